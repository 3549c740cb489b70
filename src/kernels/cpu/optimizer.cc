// Optimizer arithmetic with Highway: one pass over gradient, weight and both moments.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <cmath>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

// Sum of squares of `size` values; f32 squares are exact in double.
double sum_of_squares_run(const float* x, std::int64_t size) {
  const hn::ScalableTag<double> d64;
  const hn::Rebind<float, decltype(d64)> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d64));
  auto sum0 = hn::Zero(d64);
  auto sum1 = hn::Zero(d64);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d64, hn::LoadU(d, x + i));
    const auto b = hn::PromoteTo(d64, hn::LoadU(d, x + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d64, hn::Add(sum0, sum1)));
  for (; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

// Partial sums of fixed blocks, added in order.
double sum_of_squares_all(Stream& stream, const Tensor& x) {
  if (x.elements() == 0) return 0;
  const std::int64_t width = x.contiguous() ? x.elements() : x.elements() / x.dim(0);
  const std::int64_t rows = x.elements() / width;
  const std::int64_t blocks = (width + kTaskElements - 1) / kTaskElements;
  const float* data = x.data<float>();
  std::vector<double> partial(static_cast<std::size_t>(rows * blocks));
  stream.threads.run(rows * blocks, [&](std::int64_t task) HWY_ATTR {
    const std::int64_t begin = task % blocks * kTaskElements;
    const float* row = data + task / blocks * x.row_stride();
    partial[static_cast<std::size_t>(task)] =
        sum_of_squares_run(x.contiguous() ? data + begin : row + begin, std::min(kTaskElements, width - begin));
  });
  double sum = 0;
  for (const double value : partial) sum += value;
  return sum;
}

// The constants of a step, computed in double once.
struct AdamwFactors {
  float gradient_scale;
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float keep;          // 1 - rate * decay
  float rate;          // rate / (1 - beta1^step)
  float inverse_root;  // 1 / sqrt(1 - beta2^step)
  float epsilon;
};

AdamwFactors factors_of(const AdamwStep& step) {
  const auto rate = static_cast<double>(step.learning_rate);
  const auto beta1 = static_cast<double>(step.beta1);
  const auto beta2 = static_cast<double>(step.beta2);
  const auto count = static_cast<double>(step.step);
  return {.gradient_scale = step.gradient_scale,
          .beta1 = step.beta1,
          .one_minus_beta1 = static_cast<float>(1 - beta1),
          .beta2 = step.beta2,
          .one_minus_beta2 = static_cast<float>(1 - beta2),
          .keep = static_cast<float>(1 - rate * static_cast<double>(step.weight_decay)),
          .rate = static_cast<float>(rate / (1 - std::pow(beta1, count))),
          .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, count))),
          .epsilon = step.epsilon};
}

// w = w keep - rate' m / (sqrt(v) / sqrt(c2) + epsilon), see the reference.
void adamw_run(const AdamwFactors& f, const float* gradient, float* weight, float* first, float* second, BFloat16* copy,
               std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, gradient + i), hn::Set(d, f.gradient_scale));
    const auto scaled = hn::Mul(g, hn::Set(d, f.one_minus_beta1));
    const auto m = hn::MulAdd(load(d, first + i), hn::Set(d, f.beta1), scaled);
    const auto squared = hn::Mul(hn::Mul(g, hn::Set(d, f.one_minus_beta2)), g);
    const auto v = hn::MulAdd(load(d, second + i), hn::Set(d, f.beta2), squared);
    const auto root = hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.inverse_root), hn::Set(d, f.epsilon));
    const auto update = hn::Div(hn::Mul(m, hn::Set(d, f.rate)), root);
    const auto w = hn::MulSub(load(d, weight + i), hn::Set(d, f.keep), update);
    store(d, m, first + i);
    store(d, v, second + i);
    store(d, w, weight + i);
    if (copy != nullptr) store(d, w, copy + i);
  });
}

void adamw_all(Stream& stream, const AdamwStep& step, const Tensor& gradient, Tensor& weight, Tensor& first_moment,
               Tensor& second_moment, Tensor& copy) {
  const AdamwFactors factors = factors_of(step);
  const float* g = gradient.data<float>();
  float* w = weight.data<float>();
  float* m = first_moment.data<float>();
  float* v = second_moment.data<float>();
  BFloat16* c = copy.defined() ? copy.data<BFloat16>() : nullptr;
  stream.threads.run_ranges(weight.elements(), kTaskElements, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    adamw_run(factors, g + begin, w + begin, m + begin, v + begin, c == nullptr ? nullptr : c + begin, end - begin);
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(sum_of_squares_all);
HWY_EXPORT(adamw_all);

double sum_of_squares(Stream& stream, const Tensor& x) {
  return HWY_DYNAMIC_DISPATCH(sum_of_squares_all)(stream, x);
}

void adamw(Stream& stream, const AdamwStep& step, const Tensor& gradient, Tensor& weight, Tensor& first_moment,
           Tensor& second_moment, Tensor& copy) {
  HWY_DYNAMIC_DISPATCH(adamw_all)(stream, step, gradient, weight, first_moment, second_moment, copy);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
