// Optimizer arithmetic with Highway: one pass over gradient, weight and both moments. Moments in 8 bits are decoded
// into a block of f32 numbers, stepped as those are, and encoded again.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/dynamic_code.h"
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

// f32 weights, in one piece or in two halves (tensor::split).
struct WholeWeights {
  float* data;
  WholeWeights from(std::int64_t begin) const { return {data + begin}; }
  template <class D>
  HWY_INLINE hn::Vec<D> get(D d, std::int64_t i) const {
    return load(d, data + i);
  }
  template <class D>
  HWY_INLINE void put(D d, hn::Vec<D> value, std::int64_t i) const {
    store(d, value, data + i);
  }
};
struct HalvedWeights {
  BFloat16* upper;
  std::uint16_t* lower;
  HalvedWeights from(std::int64_t begin) const { return {upper + begin, lower + begin}; }
  template <class D>
  HWY_INLINE hn::Vec<D> get(D d, std::int64_t i) const {
    const hn::Rebind<std::uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const auto low = hn::PromoteTo(d32, hn::LoadU(d16, lower + i));
    const auto rounded = hn::PromoteTo(d32, hn::LoadU(d16, &upper[i].bits));
    return hn::BitCast(d, hn::Or(hn::ShiftLeft<16>(hn::Sub(rounded, hn::ShiftRight<15>(low))), low));
  }
  template <class D>
  HWY_INLINE void put(D /*d*/, hn::Vec<D> value, std::int64_t i) const {
    const hn::Rebind<std::uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const hn::RebindToSigned<D> di32;
    const auto bits = hn::BitCast(d32, value);
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Set(d32, 0x8000U)));
    const auto low = hn::And(bits, hn::Set(d32, 0xffffU));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, rounded)), d16, &upper[i].bits);
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, low)), d16, lower + i);
  }
};

// w = w keep - rate' m / (sqrt(v) / sqrt(c2) + epsilon), see the reference.
template <class Weights>
HWY_INLINE void adamw_run(const AdamwFactors& f, const float* gradient, Weights weights, float* first, float* second,
                          std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, gradient + i), hn::Set(d, f.gradient_scale));
    const auto scaled = hn::Mul(g, hn::Set(d, f.one_minus_beta1));
    const auto m = hn::MulAdd(load(d, first + i), hn::Set(d, f.beta1), scaled);
    const auto squared = hn::Mul(hn::Mul(g, hn::Set(d, f.one_minus_beta2)), g);
    const auto v = hn::MulAdd(load(d, second + i), hn::Set(d, f.beta2), squared);
    const auto root = hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.inverse_root), hn::Set(d, f.epsilon));
    const auto update = hn::Div(hn::Mul(m, hn::Set(d, f.rate)), root);
    store(d, m, first + i);
    store(d, v, second + i);
    weights.put(d, hn::MulSub(weights.get(d, i), hn::Set(d, f.keep), update), i);
  });
}

// How a magnitude x in (0, 1] becomes a code without a search: the thresholds say which decade's values are nearest,
// and within a decade the code is floor(x * scale + offset), at most `last`. Below thresholds[0] is 0.
struct CodeMap {
  std::array<float, kDecades + 1> thresholds;
  std::array<float, kDecades> scales, offsets, last;
};

constexpr CodeMap code_map(DynamicSign sign) {
  CodeMap map{};
  const std::array<float, 256> values = dynamic_values(sign);
  int cells = first_cells(sign);
  int base = 1;
  for (std::size_t i = 0; i < kDecades; ++i) {
    const auto at = static_cast<std::size_t>(base);
    map.thresholds[i] = (values[at - 1] + values[at]) / 2;
    map.scales[i] = static_cast<float>(cells / (0.9 * kDecadeTops[i]));
    map.offsets[i] = static_cast<float>(base - cells / 9.0);
    base += cells;
    map.last[i] = static_cast<float>(base - 1);
    cells *= 2;
  }
  map.thresholds[kDecades] = (values[static_cast<std::size_t>(base) - 1] + 1) / 2;
  return map;
}

template <DynamicSign Sign>
HWY_INLINE void decode(const std::uint8_t* codes, float scale, float* values, std::int64_t size) {
  static constexpr std::array<float, 256> kValues = dynamic_values(Sign);
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> di;
    const hn::Rebind<std::uint8_t, decltype(d)> d8;
    const auto code = hn::PromoteTo(di, hn::LoadU(d8, codes + i));
    store(d, hn::Mul(hn::GatherIndex(d, kValues.data(), code), hn::Set(d, scale)), values + i);
  });
}

// The largest magnitude, and not 0, so that the values can be divided by it.
HWY_INLINE float scale_of(const float* values, std::int64_t size) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto peak = hn::Set(d, std::numeric_limits<float>::min());
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) peak = hn::Max(peak, hn::Abs(load(d, values + i)));
  float most = hn::GetLane(hn::MaxOfLanes(d, peak));
  for (; i < size; ++i) most = std::max(most, std::abs(values[i]));
  return most;
}

// Returns the scale.
template <DynamicSign Sign>
HWY_INLINE float encode(const float* values, std::uint8_t* codes, std::int64_t size) {
  static constexpr CodeMap kMap = code_map(Sign);
  constexpr auto kTop = static_cast<float>(top_code(Sign));
  const float most = scale_of(values, size);
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> di;
    const hn::Rebind<std::uint8_t, decltype(d)> d8;
    const auto value = load(d, values + i);
    const auto x = hn::Div(hn::Abs(value), hn::Set(d, most));
    auto scale = hn::Set(d, kMap.scales[0]);
    auto offset = hn::Set(d, kMap.offsets[0]);
    auto last = hn::Set(d, kMap.last[0]);
    for (std::size_t decade = 1; decade < kDecades; ++decade) {
      const auto above = hn::Ge(x, hn::Set(d, kMap.thresholds[decade]));
      scale = hn::IfThenElse(above, hn::Set(d, kMap.scales[decade]), scale);
      offset = hn::IfThenElse(above, hn::Set(d, kMap.offsets[decade]), offset);
      last = hn::IfThenElse(above, hn::Set(d, kMap.last[decade]), last);
    }
    auto code = hn::Min(hn::Floor(hn::MulAdd(x, scale, offset)), last);
    code = hn::IfThenElse(hn::Ge(x, hn::Set(d, kMap.thresholds[kDecades])), hn::Set(d, kTop), code);
    if constexpr (Sign == DynamicSign::kSigned) {
      code = hn::IfThenElseZero(hn::Ge(x, hn::Set(d, kMap.thresholds[0])), code);
      const auto negative = hn::Add(hn::Min(code, hn::Set(d, kTop - 1)), hn::Set(d, kTop));
      const auto below = hn::And(hn::Lt(value, hn::Zero(d)), hn::Gt(code, hn::Zero(d)));
      code = hn::IfThenElse(below, negative, code);
    } else {
      code = hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), hn::Max(code, hn::Set(d, 1.0F)));
    }
    hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, code)), d8, codes + i);
  });
  return most;
}

// [begin, end) of a weight whose moments are codes, a block at a time; begin is the first of a block.
template <class Weights>
HWY_INLINE void adamw_coded(const AdamwFactors& f, const float* gradient, Weights weights, AdamwState& state,
                            std::int64_t begin, std::int64_t end) {
  std::array<float, kMomentBlock> m, v;
  float* first_scale = state.first_scale.data<float>();
  float* second_scale = state.second_scale.data<float>();
  for (std::int64_t at = begin; at < end; at += kMomentBlock) {
    const std::int64_t size = std::min(kMomentBlock, end - at);
    std::uint8_t* first = state.first.data<std::uint8_t>() + at;
    std::uint8_t* second = state.second.data<std::uint8_t>() + at;
    const std::int64_t block = at / kMomentBlock;
    decode<DynamicSign::kSigned>(first, first_scale[block], m.data(), size);
    decode<DynamicSign::kUnsigned>(second, second_scale[block], v.data(), size);
    adamw_run(f, gradient + at, weights.from(at), m.data(), v.data(), size);
    first_scale[block] = encode<DynamicSign::kSigned>(m.data(), first, size);
    second_scale[block] = encode<DynamicSign::kUnsigned>(v.data(), second, size);
  }
}

template <class Weights>
void adamw_weights(Stream& stream, const AdamwFactors& factors, const float* gradient, Weights weights,
                   AdamwState& state) {
  static_assert(kTaskElements % kMomentBlock == 0);
  const bool coded = state.first_scale.defined();
  stream.threads.run_ranges(state.weight.elements(), kTaskElements, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    if (coded) {
      adamw_coded(factors, gradient, weights, state, begin, end);
    } else {
      adamw_run(factors, gradient + begin, weights.from(begin), state.first.data<float>() + begin,
                state.second.data<float>() + begin, end - begin);
    }
  });
}

void adamw_all(Stream& stream, const AdamwStep& step, const Tensor& gradient, AdamwState& state) {
  const AdamwFactors factors = factors_of(step);
  const float* g = gradient.data<float>();
  if (state.lower.defined()) {
    const HalvedWeights halves{state.weight.data<BFloat16>(), state.lower.data<std::uint16_t>()};
    adamw_weights(stream, factors, g, halves, state);
  } else {
    adamw_weights(stream, factors, g, WholeWeights{state.weight.data<float>()}, state);
  }
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

void adamw(Stream& stream, const AdamwStep& step, const Tensor& gradient, AdamwState& state) {
  HWY_DYNAMIC_DISPATCH(adamw_all)(stream, step, gradient, state);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
