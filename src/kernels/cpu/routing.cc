// Choosing experts by row and mixing what they give. A row's choice is a few hundred numbers, which plain loops on all
// threads are fast enough for; mixing goes through whole rows, with Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

void mix_rows_all(Stream& stream, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights,
                  Tensor& y) {
  const std::int64_t count = weights.dim(1);
  const std::int64_t width = y.dim(1);
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_row_ranges(stream, y.dim(0), width * count, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        const float* w = weights.data<float>() + t * weights.row_stride();
        const std::int32_t* place = places.data() + t * count;
        const X* rows = x.data<X>();
        X* out = y.data<X>() + t * y.row_stride();
        for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
          auto sum = hn::Zero(d);
          for (std::int64_t j = 0; j < count; ++j)
            sum = hn::MulAdd(hn::Set(d, w[j]), load(d, rows + place[j] * x.row_stride() + i), sum);
          store(d, sum, out + i);
        });
      }
    });
  });
}

void mix_rows_backward_all(Stream& stream, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights,
                           const Tensor& dy, Tensor& dx, Tensor& dweights) {
  const std::int64_t count = weights.dim(1);
  const std::int64_t width = dy.dim(1);
  visit_dtype(dy.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_row_ranges(stream, dy.dim(0), width * count, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        const X* from = dy.data<X>() + t * dy.row_stride();
        for (std::int64_t j = 0; j < count; ++j) {
          const std::int64_t row = places[static_cast<std::size_t>(t * count + j)];
          const float weight = weights.data<float>()[t * weights.row_stride() + j];
          const X* value = x.data<X>() + row * x.row_stride();
          X* out = dx.data<X>() + row * dx.row_stride();
          dweights.data<float>()[t * dweights.row_stride() + j] =
              sum_lanes(width, [&](auto d, std::int64_t i, auto sum)
                                   HWY_ATTR { return hn::MulAdd(load(d, from + i), load(d, value + i), sum); });
          for_lanes(width, [&](auto d, std::int64_t i)
                               HWY_ATTR { store(d, hn::Mul(hn::Set(d, weight), load(d, from + i)), out + i); });
        }
      }
    });
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {
namespace {

float as_float(float value) {
  return value;
}
float as_float(BFloat16 value) {
  return tensor::to_float(value);
}
void put(float value, float& to) {
  to = value;
}
void put(float value, BFloat16& to) {
  to = tensor::to_bfloat16(value);
}

template <class X>
void softmax_row(const X* logits, std::int64_t experts, float* probabilities) {
  float most = -INFINITY, sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) most = std::max(most, as_float(logits[e]));
  for (std::int64_t e = 0; e < experts; ++e) {
    probabilities[e] = std::exp(as_float(logits[e]) - most);
    sum += probabilities[e];
  }
  for (std::int64_t e = 0; e < experts; ++e) probabilities[e] /= sum;
}

// By the logits: small probabilities round to the same number.
template <class X>
void choose_row(const X* logits, std::int64_t experts, std::span<std::int32_t> chosen) {
  for (std::size_t j = 0; j < chosen.size(); ++j) {
    std::int32_t best = -1;
    for (std::int32_t e = 0; e < experts; ++e) {
      const auto before = chosen.first(j);
      if (best >= 0 && !(as_float(logits[e]) > as_float(logits[best]))) continue;
      if (std::find(before.begin(), before.end(), e) == before.end()) best = e;
    }
    chosen[j] = best;
  }
}

}  // namespace

void route(Stream& stream, const Tensor& logits, Renormalise renormalise, Tensor& probabilities,
           std::span<std::int32_t> chosen, Tensor& weights) {
  const std::int64_t experts = logits.dim(1);
  const auto count = static_cast<std::size_t>(weights.dim(1));
  visit_dtype(logits.dtype(), [&](auto type) {
    for_row_ranges(stream, logits.dim(0), 8 * experts, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const auto* row = logits.data<decltype(type)>() + t * logits.row_stride();
        float* p = probabilities.data<float>() + t * probabilities.row_stride();
        float* w = weights.data<float>() + t * weights.row_stride();
        const std::span<std::int32_t> choice = chosen.subspan(static_cast<std::size_t>(t) * count, count);
        softmax_row(row, experts, p);
        choose_row(row, experts, choice);
        float sum = 0;
        for (std::size_t j = 0; j < count; ++j) sum += p[choice[j]];
        for (std::size_t j = 0; j < count; ++j)
          w[j] = renormalise == Renormalise::kYes ? p[choice[j]] / sum : p[choice[j]];
      }
    });
  });
}

// The formula stands in reference/routing.cc.
void route_backward(Stream& stream, const Tensor& probabilities, std::span<const std::int32_t> chosen,
                    Renormalise renormalise, const Tensor& weights, const Tensor& dweights,
                    std::span<const float> balance, Tensor& dlogits) {
  const std::int64_t experts = probabilities.dim(1);
  const std::int64_t count = weights.dim(1);
  visit_dtype(dlogits.dtype(), [&](auto type) {
    for_row_ranges(stream, probabilities.dim(0), 4 * experts, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> g(static_cast<std::size_t>(experts));
      for (std::int64_t t = begin; t < end; ++t) {
        const float* p = probabilities.data<float>() + t * probabilities.row_stride();
        const float* w = weights.data<float>() + t * weights.row_stride();
        const float* dw = dweights.data<float>() + t * dweights.row_stride();
        const std::int32_t* choice = chosen.data() + t * count;
        std::fill(g.begin(), g.end(), 0.0F);
        std::copy(balance.begin(), balance.end(), g.begin());
        float part = 1, mean = 0, sum = 0;
        if (renormalise == Renormalise::kYes) {
          part = 0;
          for (std::int64_t j = 0; j < count; ++j) part += p[choice[j]];
          for (std::int64_t j = 0; j < count; ++j) mean += w[j] * dw[j];
        }
        for (std::int64_t j = 0; j < count; ++j) g[static_cast<std::size_t>(choice[j])] += (dw[j] - mean) / part;
        for (std::int64_t e = 0; e < experts; ++e) sum += p[e] * g[static_cast<std::size_t>(e)];
        auto* out = dlogits.data<decltype(type)>() + t * dlogits.row_stride();
        for (std::int64_t e = 0; e < experts; ++e) put(p[e] * (g[static_cast<std::size_t>(e)] - sum), out[e]);
      }
    });
  });
}

HWY_EXPORT(mix_rows_all);
HWY_EXPORT(mix_rows_backward_all);

void mix_rows(Stream& stream, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(mix_rows_all)(stream, x, places, weights, y);
}

void mix_rows_backward(Stream& stream, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights,
                       const Tensor& dy, Tensor& dx, Tensor& dweights) {
  HWY_DYNAMIC_DISPATCH(mix_rows_backward_all)(stream, x, places, weights, dy, dx, dweights);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
