// Row arithmetic of attention with Highway; compiled for every target and chosen at run time.
#include "kernels/cpu/attention_rows.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"
#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using U32 = hn::Rebind<std::uint32_t, F>;
using U16 = hn::Rebind<std::uint16_t, F>;
using V = hn::Vec<F>;

// bf16 is the upper half of an f32; rounding is to nearest, ties to even, as tensor::to_bfloat16.
HWY_INLINE V load(const std::uint16_t* source) {
  const F f;
  return hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(U16(), source))));
}
HWY_INLINE V load(const float* source) {
  return hn::LoadU(F(), source);
}
// Integers of one scale, which follows them.
HWY_INLINE V load(const std::int8_t* source) {
  const hn::Rebind<std::int32_t, F> i32;
  return hn::ConvertTo(F(), hn::PromoteTo(i32, hn::LoadU(hn::Rebind<std::int8_t, F>(), source)));
}
// What the elements of a head's row are to be multiplied with.
template <typename T>
HWY_INLINE float scale_of(const T* row, std::int64_t width) {
  float scale = 1;
  if constexpr (std::is_same_v<T, std::int8_t>) std::memcpy(&scale, row + width, sizeof(scale));
  return scale;
}
HWY_INLINE void store(V value, float* target) {
  hn::StoreU(value, F(), target);
}
HWY_INLINE void store(V value, std::uint16_t* target) {
  const U32 u;
  const auto bits = hn::BitCast(u, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fff))));
  hn::StoreU(hn::DemoteTo(U16(), hn::BitCast(hn::Rebind<std::int32_t, F>(), rounded)), U16(), target);
}
inline float scalar(const std::uint16_t* source) {
  return tensor::to_float(tensor::BFloat16{*source});
}
inline float scalar(const float* source) {
  return *source;
}
inline float scalar(const std::int8_t* source) {
  return static_cast<float>(*source);
}
inline void store_scalar(float value, std::uint16_t* target) {
  *target = tensor::to_bfloat16(value).bits;
}
inline void store_scalar(float value, float* target) {
  *target = value;
}

template <typename T>
void zero(T* target, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) target[i] = T{};
}

template <typename T>
float softmax_row(float* scores, RowSpan span, T* probabilities) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  float* row = scores + span.begin;
  const std::int64_t count = span.end - span.begin;
  const std::int64_t body = count / lanes * lanes;
  V most = hn::Set(f, -INFINITY);
  for (std::int64_t i = 0; i < body; i += lanes) most = hn::Max(most, hn::LoadU(f, row + i));
  float largest = body > 0 ? hn::GetLane(hn::MaxOfLanes(f, most)) : -INFINITY;
  for (std::int64_t i = body; i < count; ++i) largest = row[i] > largest ? row[i] : largest;
  V total = hn::Zero(f);
  const V shift = hn::Set(f, largest);
  for (std::int64_t i = 0; i < body; i += lanes) {
    const V e = exp(f, hn::Sub(hn::LoadU(f, row + i), shift));
    total = hn::Add(total, e);
    hn::StoreU(e, f, row + i);
  }
  float sum = hn::GetLane(hn::SumOfLanes(f, total));
  for (std::int64_t i = body; i < count; ++i) {
    row[i] = std::exp(row[i] - largest);
    sum += row[i];
  }
  const float inverse = 1.0F / sum;
  const V factor = hn::Set(f, inverse);
  zero(probabilities, 0, span.begin);
  T* out = probabilities + span.begin;
  for (std::int64_t i = 0; i < body; i += lanes) store(hn::Mul(hn::LoadU(f, row + i), factor), out + i);
  for (std::int64_t i = body; i < count; ++i) store_scalar(row[i] * inverse, out + i);
  zero(probabilities, span.end, span.width);
  return largest + std::log(sum);
}

void cap_row(float* scores, RowSpan span, float cap) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  const float inverse = 1.0F / cap;
  std::int64_t i = span.begin;
  for (; i + lanes <= span.end; i += lanes) {
    const V share = hn::Tanh(f, hn::Mul(hn::LoadU(f, scores + i), hn::Set(f, inverse)));
    hn::StoreU(hn::Mul(share, hn::Set(f, cap)), f, scores + i);
  }
  for (; i < span.end; ++i) scores[i] = cap * std::tanh(scores[i] * inverse);
}

// `inverse_cap` is 0 where there is no cap.
template <typename T>
void gradient_row(const float* scores, const float* dprobabilities, RowSpan span, float log_sum, float delta,
                  float scale, float inverse_cap, T* probabilities, T* dscores) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  zero(probabilities, 0, span.begin);
  zero(dscores, 0, span.begin);
  std::int64_t i = span.begin;
  const V shift = hn::Set(f, log_sum);
  const V mean = hn::Set(f, delta);
  const V factor = hn::Set(f, scale);
  for (; i + lanes <= span.end; i += lanes) {
    const V score = hn::LoadU(f, scores + i);
    const V p = exp(f, hn::Sub(score, shift));
    const V share = hn::Mul(score, hn::Set(f, inverse_cap));
    const V slope = hn::NegMulAdd(hn::Mul(share, share), factor, factor);
    const V d = hn::Mul(hn::Mul(p, slope), hn::Sub(hn::LoadU(f, dprobabilities + i), mean));
    store(p, probabilities + i);
    store(d, dscores + i);
  }
  for (; i < span.end; ++i) {
    const float p = std::exp(scores[i] - log_sum);
    store_scalar(p, probabilities + i);
    const float share = scores[i] * inverse_cap;
    store_scalar(p * (scale - share * share * scale) * (dprobabilities[i] - delta), dscores + i);
  }
  zero(probabilities, span.end, span.width);
  zero(dscores, span.end, span.width);
}

template <typename A, typename B>
float dot(const A* a, const B* b, std::int64_t count) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  V first = hn::Zero(f);
  V second = hn::Zero(f);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    first = hn::MulAdd(load(a + i), load(b + i), first);
    second = hn::MulAdd(load(a + i + lanes), load(b + i + lanes), second);
  }
  for (; i + lanes <= count; i += lanes) first = hn::MulAdd(load(a + i), load(b + i), first);
  float sum = hn::GetLane(hn::SumOfLanes(f, hn::Add(first, second)));
  for (; i < count; ++i) sum += scalar(a + i) * scalar(b + i);
  return sum;
}

// Sums of the lanes of four vectors.
HWY_INLINE void sums_of_four(const V* v, float* sums) {
  const F f;
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) sums[i] = hn::GetLane(hn::SumOfLanes(f, v[i]));
#else
  // Within each 128 bits: pairs of two vectors, then of all four.
  const hn::RepartitionToWide<F> wide;
  const auto ab = hn::Add(hn::InterleaveLower(f, v[0], v[1]), hn::InterleaveUpper(f, v[0], v[1]));
  const auto cd = hn::Add(hn::InterleaveLower(f, v[2], v[3]), hn::InterleaveUpper(f, v[2], v[3]));
  const auto lower = hn::InterleaveLower(wide, hn::BitCast(wide, ab), hn::BitCast(wide, cd));
  const auto upper = hn::InterleaveUpper(wide, hn::BitCast(wide, ab), hn::BitCast(wide, cd));
  HWY_ALIGN float blocks[hn::MaxLanes(F())];
  hn::Store(hn::Add(hn::BitCast(f, lower), hn::BitCast(f, upper)), f, blocks);
  const hn::FixedTag<float, 4> four;
  auto sum = hn::Load(four, blocks);
  for (std::size_t i = 4; i < hn::Lanes(f); i += 4) sum = hn::Add(sum, hn::Load(four, blocks + i));
  hn::StoreU(sum, four, sums);
#endif
}

// Asks for a row before it is read. Rows of one head lie apart: the processor's own prefetching gives up at every page.
template <typename T>
HWY_INLINE void fetch_row(const T* row, std::int64_t width) {
  for (std::int64_t i = 0; i < width; i += 64 / static_cast<std::int64_t>(sizeof(T))) hwy::Prefetch(row + i);
}
constexpr std::int64_t kAhead = 32;  // rows

// Several queries against the same keys, which are loaded once for all of them.
template <std::size_t Queries, typename T>
void score_keys(const float* queries, const T* keys, std::int64_t stride, std::int64_t count, std::int64_t width,
                float scale, float* scores, std::int64_t score_stride) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  const std::int64_t whole = width / lanes * lanes;
  for (std::int64_t s = 0; s < count; s += 4, keys += 4 * stride) {
    // Past the end the last key again: a score does not depend on where a run of keys begins and ends.
    const std::int64_t last = std::min<std::int64_t>(4, count - s) - 1;
    const T* key_rows[4];
    for (std::int64_t k = 0; k < 4; ++k) key_rows[k] = keys + std::min(k, last) * stride;
    V partial[Queries][4];
    for (auto& query : partial) std::fill_n(query, 4, hn::Zero(f));
    for (std::int64_t k = kAhead; k < kAhead + 4; ++k) fetch_row(keys + k * stride, width);
    for (std::int64_t i = 0; i < whole; i += lanes) {
      const V key[4] = {load(key_rows[0] + i), load(key_rows[1] + i), load(key_rows[2] + i), load(key_rows[3] + i)};
      for (std::size_t q = 0; q < Queries; ++q) {
        const V query = load(queries + static_cast<std::int64_t>(q) * width + i);
        for (std::size_t k = 0; k < 4; ++k) partial[q][k] = hn::MulAdd(query, key[k], partial[q][k]);
      }
    }
    for (std::size_t q = 0; q < Queries; ++q) {
      float sums[4];
      sums_of_four(partial[q], sums);
      const float* query = queries + static_cast<std::int64_t>(q) * width;
      float* to = scores + static_cast<std::int64_t>(q) * score_stride + s;
      for (std::int64_t k = 0; k <= last; ++k) {
        for (std::int64_t i = whole; i < width; ++i) sums[k] += query[i] * scalar(key_rows[k] + i);
        to[k] = scale * scale_of(key_rows[k], width) * sums[k];
      }
    }
  }
}

// Lanes [0, width) of several outputs, in steps of `Vectors` vectors.
template <std::size_t Queries, std::size_t Vectors, typename T>
std::int64_t add_weighted_lanes(const float* weights, std::int64_t weight_stride, const T* values, std::int64_t stride,
                                std::int64_t count, std::int64_t width, std::int64_t from, float* outputs) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  const auto step = static_cast<std::int64_t>(Vectors) * lanes;
  for (; from + step <= width; from += step) {
    V sums[Queries][Vectors];
    const auto at = [&](std::size_t q, std::size_t v) {
      return outputs + static_cast<std::int64_t>(q) * width + from + static_cast<std::int64_t>(v) * lanes;
    };
    for (std::size_t q = 0; q < Queries; ++q) {
      for (std::size_t v = 0; v < Vectors; ++v) sums[q][v] = load(at(q, v));
    }
    for (std::int64_t s = 0; s < count; ++s) {
      V value[Vectors];
      fetch_row(values + (s + kAhead) * stride + from, step);
      for (std::size_t v = 0; v < Vectors; ++v)
        value[v] = load(values + s * stride + from + static_cast<std::int64_t>(v) * lanes);
      for (std::size_t q = 0; q < Queries; ++q) {
        const V weight = hn::Set(
            f, scale_of(values + s * stride, width) * weights[static_cast<std::int64_t>(q) * weight_stride + s]);
        for (std::size_t v = 0; v < Vectors; ++v) sums[q][v] = hn::MulAdd(weight, value[v], sums[q][v]);
      }
    }
    for (std::size_t q = 0; q < Queries; ++q) {
      for (std::size_t v = 0; v < Vectors; ++v) store(sums[q][v], at(q, v));
    }
  }
  return from;
}

template <std::size_t Queries, typename T>
void add_weighted(const float* weights, std::int64_t weight_stride, const T* values, std::int64_t stride,
                  std::int64_t count, std::int64_t width, float* outputs) {
  std::int64_t i = add_weighted_lanes<Queries, 4>(weights, weight_stride, values, stride, count, width, 0, outputs);
  i = add_weighted_lanes<Queries, 1>(weights, weight_stride, values, stride, count, width, i, outputs);
  for (; i < width; ++i) {
    for (std::int64_t q = 0; q < static_cast<std::int64_t>(Queries); ++q) {
      for (std::int64_t s = 0; s < count; ++s)
        outputs[q * width + i] +=
            scale_of(values + s * stride, width) * weights[q * weight_stride + s] * scalar(values + s * stride + i);
    }
  }
}

// Calls body(first, constant number) for 0 <= first < queries, four at a time and then one by one.
template <typename Body>
void for_queries(std::int64_t queries, const Body& body) {
  std::int64_t q = 0;
  for (; q + 4 <= queries; q += 4) body(q, std::integral_constant<std::size_t, 4>());
  if (queries - q == 3) return body(q, std::integral_constant<std::size_t, 3>());
  if (queries - q == 2) return body(q, std::integral_constant<std::size_t, 2>());
  if (queries - q == 1) return body(q, std::integral_constant<std::size_t, 1>());
}

template <typename T>
void score_all(const float* queries, std::int64_t number, const T* keys, std::int64_t stride, std::int64_t count,
               std::int64_t width, float scale, float* scores, std::int64_t score_stride) {
  for_queries(number, [&](std::int64_t q, auto several) {
    score_keys<decltype(several)::value>(queries + q * width, keys, stride, count, width, scale,
                                         scores + q * score_stride, score_stride);
  });
}

template <typename T>
void add_weighted_all(const float* weights, std::int64_t weight_stride, std::int64_t number, const T* values,
                      std::int64_t stride, std::int64_t count, std::int64_t width, float* outputs) {
  for_queries(number, [&](std::int64_t q, auto several) {
    add_weighted<decltype(several)::value>(weights + q * weight_stride, weight_stride, values, stride, count, width,
                                           outputs + q * width);
  });
}

template <typename T>
void decode_head(const T* source, std::int64_t width, float* target) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  const float scale = scale_of(source, width);
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) store(hn::Mul(load(source + i), hn::Set(f, scale)), target + i);
  for (; i < width; ++i) target[i] = scale * scalar(source + i);
}

template <typename A, typename B>
void copy(const A* source, std::int64_t count, B* target) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F()));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(load(source + i), target + i);
  for (; i < count; ++i) store_scalar(scalar(source + i), target + i);
}

void add_row(const float* source, std::int64_t count, float* target) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F()));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(hn::Add(load(source + i), load(target + i)), target + i);
  for (; i < count; ++i) target[i] += source[i];
}

// One entry point a function and type, for the dispatch table.
float softmax_row_f32(float* s, RowSpan span, float* p) {
  return softmax_row(s, span, p);
}
float softmax_row_bf16(float* s, RowSpan span, std::uint16_t* p) {
  return softmax_row(s, span, p);
}
void gradient_row_f32(const float* s, const float* d, RowSpan span, float l, float e, float c, float i, float* p,
                      float* o) {
  gradient_row(s, d, span, l, e, c, i, p, o);
}
void gradient_row_bf16(const float* s, const float* d, RowSpan span, float l, float e, float c, float i,
                       std::uint16_t* p, std::uint16_t* o) {
  gradient_row(s, d, span, l, e, c, i, p, o);
}
float dot_f32(const float* a, const float* b, std::int64_t n) {
  return dot(a, b, n);
}
float dot_bf16(const std::uint16_t* a, const std::uint16_t* b, std::int64_t n) {
  return dot(a, b, n);
}
void score_keys_f32(const float* q, std::int64_t n, const float* k, std::int64_t t, std::int64_t c, std::int64_t w,
                    float f, float* s, std::int64_t p) {
  score_all(q, n, k, t, c, w, f, s, p);
}
void score_keys_bf16(const float* q, std::int64_t n, const std::uint16_t* k, std::int64_t t, std::int64_t c,
                     std::int64_t w, float f, float* s, std::int64_t p) {
  score_all(q, n, k, t, c, w, f, s, p);
}
void score_keys_i8(const float* q, std::int64_t n, const std::int8_t* k, std::int64_t t, std::int64_t c, std::int64_t w,
                   float f, float* s, std::int64_t p) {
  score_all(q, n, k, t, c, w, f, s, p);
}
void add_weighted_i8(const float* p, std::int64_t d, std::int64_t n, const std::int8_t* v, std::int64_t t,
                     std::int64_t c, std::int64_t w, float* o) {
  add_weighted_all(p, d, n, v, t, c, w, o);
}
void decode_head_i8(const std::int8_t* a, std::int64_t w, float* b) {
  decode_head(a, w, b);
}
void add_weighted_f32(const float* p, std::int64_t d, std::int64_t n, const float* v, std::int64_t t, std::int64_t c,
                      std::int64_t w, float* o) {
  add_weighted_all(p, d, n, v, t, c, w, o);
}
void add_weighted_bf16(const float* p, std::int64_t d, std::int64_t n, const std::uint16_t* v, std::int64_t t,
                       std::int64_t c, std::int64_t w, float* o) {
  add_weighted_all(p, d, n, v, t, c, w, o);
}
void copy_f32_f32(const float* a, std::int64_t n, float* b) {
  copy(a, n, b);
}
void copy_f32_bf16(const float* a, std::int64_t n, std::uint16_t* b) {
  copy(a, n, b);
}
void copy_bf16_f32(const std::uint16_t* a, std::int64_t n, float* b) {
  copy(a, n, b);
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(softmax_row_f32);
HWY_EXPORT(softmax_row_bf16);
HWY_EXPORT(cap_row);
HWY_EXPORT(gradient_row_f32);
HWY_EXPORT(gradient_row_bf16);
HWY_EXPORT(dot_f32);
HWY_EXPORT(dot_bf16);
HWY_EXPORT(score_keys_f32);
HWY_EXPORT(score_keys_bf16);
HWY_EXPORT(score_keys_i8);
HWY_EXPORT(add_weighted_i8);
HWY_EXPORT(decode_head_i8);
HWY_EXPORT(add_weighted_f32);
HWY_EXPORT(add_weighted_bf16);
HWY_EXPORT(copy_f32_f32);
HWY_EXPORT(copy_f32_bf16);
HWY_EXPORT(copy_bf16_f32);
HWY_EXPORT(add_row);

namespace {
bool is_bf16(tensor::DType dtype) {
  return dtype == tensor::DType::kBF16;
}
const std::uint16_t* half(const void* p) {
  return static_cast<const std::uint16_t*>(p);
}
std::uint16_t* half(void* p) {
  return static_cast<std::uint16_t*>(p);
}
const std::int8_t* bytes(const void* p) {
  return static_cast<const std::int8_t*>(p);
}
const float* full(const void* p) {
  return static_cast<const float*>(p);
}
float* full(void* p) {
  return static_cast<float*>(p);
}
}  // namespace

float softmax_row(float* scores, RowSpan span, tensor::DType dtype, void* probabilities) {
  return is_bf16(dtype) ? HWY_DYNAMIC_DISPATCH(softmax_row_bf16)(scores, span, half(probabilities))
                        : HWY_DYNAMIC_DISPATCH(softmax_row_f32)(scores, span, full(probabilities));
}

void cap_row(float* scores, RowSpan span, float cap) {
  if (cap > 0) HWY_DYNAMIC_DISPATCH(cap_row)(scores, span, cap);
}

void softmax_gradient_row(const float* scores, const float* dprobabilities, RowSpan span, float log_sum, float delta,
                          float scale, float cap, tensor::DType dtype, void* probabilities, void* dscores) {
  const float inverse = cap > 0 ? 1.0F / cap : 0.0F;
  if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(gradient_row_bf16)
    (scores, dprobabilities, span, log_sum, delta, scale, inverse, half(probabilities), half(dscores));
  } else {
    HWY_DYNAMIC_DISPATCH(gradient_row_f32)
    (scores, dprobabilities, span, log_sum, delta, scale, inverse, full(probabilities), full(dscores));
  }
}

float dot_row(const void* a, const void* b, std::int64_t count, tensor::DType dtype) {
  return is_bf16(dtype) ? HWY_DYNAMIC_DISPATCH(dot_bf16)(half(a), half(b), count)
                        : HWY_DYNAMIC_DISPATCH(dot_f32)(full(a), full(b), count);
}

void score_keys(const float* queries, std::int64_t number, const void* keys, std::int64_t stride, std::int64_t count,
                std::int64_t width, float scale, tensor::DType dtype, float* scores, std::int64_t score_stride) {
  if (dtype == tensor::DType::kI8) {
    HWY_DYNAMIC_DISPATCH(score_keys_i8)
    (queries, number, bytes(keys), stride, count, width, scale, scores, score_stride);
  } else if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(score_keys_bf16)
    (queries, number, half(keys), stride, count, width, scale, scores, score_stride);
  } else {
    HWY_DYNAMIC_DISPATCH(score_keys_f32)
    (queries, number, full(keys), stride, count, width, scale, scores, score_stride);
  }
}

void add_weighted_values(const float* weights, std::int64_t weight_stride, std::int64_t number, const void* values,
                         std::int64_t stride, std::int64_t count, std::int64_t width, tensor::DType dtype,
                         float* outputs) {
  if (dtype == tensor::DType::kI8) {
    HWY_DYNAMIC_DISPATCH(add_weighted_i8)
    (weights, weight_stride, number, bytes(values), stride, count, width, outputs);
  } else if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(add_weighted_bf16)
    (weights, weight_stride, number, half(values), stride, count, width, outputs);
  } else {
    HWY_DYNAMIC_DISPATCH(add_weighted_f32)
    (weights, weight_stride, number, full(values), stride, count, width, outputs);
  }
}

void store_row(const float* source, std::int64_t count, tensor::DType dtype, void* destination) {
  if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(copy_f32_bf16)(source, count, half(destination));
  } else {
    HWY_DYNAMIC_DISPATCH(copy_f32_f32)(source, count, full(destination));
  }
}

void load_row(const void* source, std::int64_t count, tensor::DType dtype, float* destination) {
  if (dtype == tensor::DType::kI8) {
    HWY_DYNAMIC_DISPATCH(decode_head_i8)(bytes(source), count, destination);
  } else if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(copy_bf16_f32)(half(source), count, destination);
  } else {
    HWY_DYNAMIC_DISPATCH(copy_f32_f32)(full(source), count, destination);
  }
}

void add_row(const float* source, std::int64_t count, float* destination) {
  HWY_DYNAMIC_DISPATCH(add_row)(source, count, destination);
}

}  // namespace instruct::kernels::cpu
#endif
