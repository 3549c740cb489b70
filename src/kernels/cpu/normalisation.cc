// Normalisation by rows with Highway. A row is read from memory once and again from the first-level cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/normalisation.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

// Returns 1 / sqrt(mean(x^2) + epsilon) and writes y = x * that * (weight + offset).
template <class X>
float norm_row(const X* x, const float* weight, float offset, float epsilon, std::int64_t width, X* y) {
  const float squares = sum_lanes(width, [&](auto d, std::int64_t i, auto sum) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::MulAdd(v, v, sum);
  });
  const float inverse = 1.0F / std::sqrt(squares / static_cast<float>(width) + epsilon);
  for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto w = hn::Add(load(d, weight + i), hn::Set(d, offset));
    store(d, hn::Mul(hn::Mul(load(d, x + i), hn::Set(d, inverse)), w), y + i);
  });
  return inverse;
}

void norm_all(Stream& stream, const Tensor& x, const Tensor& weight, float offset, float epsilon, Tensor& y,
              Tensor& inverse_rms) {
  const float* w = weight.data<float>();
  float* inverse = inverse_rms.data<float>();
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    const X* in = x.data<X>();
    X* out = y.data<X>();
    for_row_ranges(stream, x.dim(0), x.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        inverse[t] = norm_row(in + t * x.row_stride(), w, offset, epsilon, x.dim(1), out + t * y.row_stride());
      }
    });
  });
}

// One row of the gradient, dx = r (w dy - n mean(w dy n)) with n = x r, w = weight + offset. Adds dy n to dweight when
// it is asked for. `previous` is dx when the gradient is accumulated, else null.
template <class X>
void norm_backward_row(const X* x, const float* weight, float offset, float r, const X* dy, std::int64_t width,
                       const X* previous, X* dx, float* dweight) {
  const float products = sum_lanes(width, [&](auto d, std::int64_t i, auto sum) HWY_ATTR {
    const auto w = hn::Add(load(d, weight + i), hn::Set(d, offset));
    return hn::MulAdd(hn::Mul(w, load(d, dy + i)), load(d, x + i), sum);
  });
  const float mean = products * r / static_cast<float>(width);
  for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto inverse = hn::Set(d, r);
    const auto gradient = load(d, dy + i);
    const auto n = hn::Mul(load(d, x + i), inverse);
    const auto w = hn::Add(load(d, weight + i), hn::Set(d, offset));
    const auto centred = hn::NegMulAdd(n, hn::Set(d, mean), hn::Mul(w, gradient));
    if (dweight != nullptr) store(d, hn::MulAdd(gradient, n, load(d, dweight + i)), dweight + i);
    const auto base = previous != nullptr ? load(d, previous + i) : hn::Zero(d);
    store(d, hn::MulAdd(centred, inverse, base), dx + i);
  });
}

void norm_backward_all(Stream& stream, const Tensor& x, const Tensor& weight, float offset, const Tensor& inverse_rms,
                       const Tensor& dy, Accumulate accumulate_dx, Tensor& dx, Tensor& dweight) {
  const float* w = weight.data<float>();
  const float* inverse = inverse_rms.data<float>();
  const std::int64_t width = x.dim(1);
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    const X* in = x.data<X>();
    const X* gradient = dy.data<X>();
    X* out = dx.data<X>();
    const auto do_rows = [&](std::int64_t begin, std::int64_t end, float* partial) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        X* row = out + t * dx.row_stride();
        norm_backward_row(in + t * x.row_stride(), w, offset, inverse[t], gradient + t * dy.row_stride(), width,
                          accumulate_dx == Accumulate::kYes ? row : nullptr, row, partial);
      }
    };
    if (dweight.defined()) {
      sum_over_rows(stream, x.dim(0), width, dweight.data<float>(), do_rows);
    } else {
      for_row_ranges(stream, x.dim(0), width,
                     [&](std::int64_t begin, std::int64_t end) HWY_ATTR { do_rows(begin, end, nullptr); });
    }
  });
}

struct Moments {
  float mean = 0;
  float inverse_deviation = 0;
};

// y = (x - mean) / deviation * weight + bias; the deviation is summed around the mean, so nothing cancels.
template <class X>
Moments layer_norm_row(const X* x, const float* weight, const float* bias, float epsilon, std::int64_t width, X* y) {
  const auto count = static_cast<float>(width);
  const float mean =
      sum_lanes(width, [&](auto d, std::int64_t i, auto sum) HWY_ATTR { return hn::Add(sum, load(d, x + i)); }) / count;
  const float squares = sum_lanes(width, [&](auto d, std::int64_t i, auto sum) HWY_ATTR {
    const auto v = hn::Sub(load(d, x + i), hn::Set(d, mean));
    return hn::MulAdd(v, v, sum);
  });
  const float inverse = 1.0F / std::sqrt(squares / count + epsilon);
  for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto n = hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, mean)), hn::Set(d, inverse));
    const auto shift = bias != nullptr ? load(d, bias + i) : hn::Zero(d);
    store(d, hn::MulAdd(n, load(d, weight + i), shift), y + i);
  });
  return {mean, inverse};
}

void layer_norm_all(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon, Tensor& y,
                    Tensor& mean, Tensor& inverse_deviation) {
  const float* w = weight.data<float>();
  const float* b = bias.defined() ? bias.data<float>() : nullptr;
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    const X* in = x.data<X>();
    X* out = y.data<X>();
    for_row_ranges(stream, x.dim(0), x.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        const Moments moments =
            layer_norm_row(in + t * x.row_stride(), w, b, epsilon, x.dim(1), out + t * y.row_stride());
        mean.data<float>()[t] = moments.mean;
        inverse_deviation.data<float>()[t] = moments.inverse_deviation;
      }
    });
  });
}

// dx = r (w dy - mean(w dy) - n mean(w dy n)) with n = (x - mean) r; dweight and `previous` as in norm_backward_row.
template <class X>
void layer_norm_backward_row(const X* x, const float* weight, Moments moments, const X* dy, std::int64_t width,
                             const X* previous, X* dx, float* dweight) {
  const float r = moments.inverse_deviation;
  const auto count = static_cast<float>(width);
  const float plain = sum_lanes(width, [&](auto d, std::int64_t i, auto sum)
                                           HWY_ATTR { return hn::MulAdd(load(d, weight + i), load(d, dy + i), sum); }) /
                      count;
  const float along = sum_lanes(width,
                                [&](auto d, std::int64_t i, auto sum) HWY_ATTR {
                                  const auto n =
                                      hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, moments.mean)), hn::Set(d, r));
                                  return hn::MulAdd(hn::Mul(load(d, weight + i), load(d, dy + i)), n, sum);
                                }) /
                      count;
  for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto inverse = hn::Set(d, r);
    const auto gradient = load(d, dy + i);
    const auto n = hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, moments.mean)), inverse);
    const auto scaled = hn::MulSub(load(d, weight + i), gradient, hn::Set(d, plain));
    if (dweight != nullptr) store(d, hn::MulAdd(gradient, n, load(d, dweight + i)), dweight + i);
    const auto base = previous != nullptr ? load(d, previous + i) : hn::Zero(d);
    store(d, hn::MulAdd(hn::NegMulAdd(n, hn::Set(d, along), scaled), inverse, base), dx + i);
  });
}

void layer_norm_backward_all(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& mean,
                             const Tensor& inverse_deviation, const Tensor& dy, Accumulate accumulate_dx, Tensor& dx,
                             Tensor& dweight) {
  const std::int64_t width = x.dim(1);
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    const X* in = x.data<X>();
    const X* gradient = dy.data<X>();
    X* out = dx.data<X>();
    const auto do_rows = [&](std::int64_t begin, std::int64_t end, float* partial) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        X* row = out + t * dx.row_stride();
        layer_norm_backward_row(
            in + t * x.row_stride(), weight.data<float>(), {mean.data<float>()[t], inverse_deviation.data<float>()[t]},
            gradient + t * dy.row_stride(), width, accumulate_dx == Accumulate::kYes ? row : nullptr, row, partial);
      }
    };
    if (dweight.defined()) {
      sum_over_rows(stream, x.dim(0), width, dweight.data<float>(), do_rows);
    } else {
      for_row_ranges(stream, x.dim(0), width,
                     [&](std::int64_t begin, std::int64_t end) HWY_ATTR { do_rows(begin, end, nullptr); });
    }
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(norm_all);
HWY_EXPORT(norm_backward_all);
HWY_EXPORT(layer_norm_all);
HWY_EXPORT(layer_norm_backward_all);

void rms_norm(Stream& stream, const Tensor& x, const Tensor& weight, float offset, float epsilon, Tensor& y,
              Tensor& inverse_rms) {
  HWY_DYNAMIC_DISPATCH(norm_all)(stream, x, weight, offset, epsilon, y, inverse_rms);
}

void rms_norm_backward(Stream& stream, const Tensor& x, const Tensor& weight, float offset, const Tensor& inverse_rms,
                       const Tensor& dy, Accumulate accumulate_dx, Tensor& dx, Tensor& dweight) {
  HWY_DYNAMIC_DISPATCH(norm_backward_all)(stream, x, weight, offset, inverse_rms, dy, accumulate_dx, dx, dweight);
}

void layer_norm(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon, Tensor& y,
                Tensor& mean, Tensor& inverse_deviation) {
  HWY_DYNAMIC_DISPATCH(layer_norm_all)(stream, x, weight, bias, epsilon, y, mean, inverse_deviation);
}

void layer_norm_backward(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, const Tensor& dy, Accumulate accumulate_dx, Tensor& dx,
                         Tensor& dweight) {
  HWY_DYNAMIC_DISPATCH(layer_norm_backward_all)
  (stream, x, weight, mean, inverse_deviation, dy, accumulate_dx, dx, dweight);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
