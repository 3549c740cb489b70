// Vector helpers shared by the Highway kernels: f32 and bf16 access, loops with tails, sums and exp. Compiled once per
// instruction set: included after foreach_target.h, inside Highway's per-target guard.
//
// bf16 is rounded to nearest even by integer arithmetic, because Highway's DemoteTo truncates and the processors' own
// instruction flushes denormals: every target writes the bits that tensor::to_bfloat16 would.

// clang-format off
#if defined(INSTRUCT_KERNELS_CPU_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef INSTRUCT_KERNELS_CPU_VECTORS_INL_H_
#undef INSTRUCT_KERNELS_CPU_VECTORS_INL_H_
#else
#define INSTRUCT_KERNELS_CPU_VECTORS_INL_H_
#endif
// clang-format on

#include <hwy/highway.h>

#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Reads as many f32 values as D has lanes.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const tensor::BFloat16* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

// Writes all lanes.
template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, float* to) {
  hn::StoreU(value, d, to);
}
template <class D>
HWY_INLINE void store(D /*d*/, hn::Vec<D> value, tensor::BFloat16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const hn::RebindToSigned<D> di32;
  const auto bits = hn::BitCast(d32, value);
  const auto upper = hn::ShiftRight<16>(bits);
  const auto half = hn::Add(hn::Set(d32, 0x7fffU), hn::And(upper, hn::Set(d32, 1U)));  // ties go to the even neighbour
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, half));
  const auto quiet = hn::Or(upper, hn::Set(d32, 0x40U));
  const auto kept = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), quiet, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, kept)), d16, &to->bits);  // below 2^16, so saturation changes nothing
}

// Calls body(d, i) for i = 0, L, 2L, ... with full vectors of L lanes, then one element at a time for the rest.
template <class Body>
HWY_INLINE void for_lanes(std::int64_t size, Body&& body) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) body(d, i);
  for (; i < size; ++i) body(one, i);
}

// Sum of term(d, i, accumulator) over [0, size): term returns the accumulator plus the contribution of its lanes. Four
// accumulators hide the latency of the addition and shorten the error chain to size / (4 L).
template <class Term>
HWY_INLINE float sum_lanes(std::int64_t size, Term&& term) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    sum0 = term(d, i, sum0);
    sum1 = term(d, i + lanes, sum1);
    sum2 = term(d, i + 2 * lanes, sum2);
    sum3 = term(d, i + 3 * lanes, sum3);
  }
  for (; i + lanes <= size; i += lanes) sum0 = term(d, i, sum0);
  auto rest = hn::Zero(one);
  for (; i < size; ++i) rest = term(one, i, rest);
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return hn::GetLane(hn::SumOfLanes(d, sum)) + hn::GetLane(rest);
}

// e^x. x = n ln 2 + r with |r| <= ln(2)/2; e^r by its Taylor polynomial of degree 7 (remainder below 6e-9 relative),
// times 2^n in two steps so that results overflow to infinity and underflow through denormals to 0. ln 2 is split so
// that n * kLn2High is exact. At most 2 units in the last place off; NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp(D d, V x) {
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0x1.62e4p-1F;
  constexpr float kLn2Low = 1.42860682e-6F;
  const hn::RebindToSigned<D> di;
  const V bounded = hn::Min(hn::Max(x, hn::Set(d, -105.0F)), hn::Set(d, 104.0F));
  const auto n = hn::NearestInt(hn::Mul(bounded, hn::Set(d, kLog2E)));
  const V whole = hn::ConvertTo(d, n);
  const V r = hn::NegMulAdd(whole, hn::Set(d, kLn2Low), hn::NegMulAdd(whole, hn::Set(d, kLn2High), bounded));
  V p = hn::Set(d, 1.0F / 5040.0F);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 720.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 120.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 24.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 6.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5F));
  p = hn::MulAdd(p, hn::Mul(r, r), r);
  p = hn::Add(p, hn::Set(d, 1.0F));
  const auto n_low = hn::ShiftRight<1>(n);
  const auto power = [&](auto e) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127)))); };
  const V result = hn::Mul(hn::Mul(p, power(n_low)), power(hn::Sub(n, n_low)));
  return hn::IfThenElse(hn::IsNaN(x), x, result);  // Ne(x, x) is false for NaN on AVX-512
}

// 1 / (1 + e^-z).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid(D d, V z) {
  const V one = hn::Set(d, 1.0F);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(z))));
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
