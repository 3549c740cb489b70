// Row arithmetic of attention with Highway; compiled for every target and chosen at run time.
#include "kernels/cpu/attention_rows.h"

#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

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

template <typename T>
void gradient_row(const float* scores, const float* dprobabilities, RowSpan span, float log_sum, float delta,
                  float scale, T* probabilities, T* dscores) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  zero(probabilities, 0, span.begin);
  zero(dscores, 0, span.begin);
  std::int64_t i = span.begin;
  const V shift = hn::Set(f, log_sum);
  const V mean = hn::Set(f, delta);
  const V factor = hn::Set(f, scale);
  for (; i + lanes <= span.end; i += lanes) {
    const V p = exp(f, hn::Sub(hn::LoadU(f, scores + i), shift));
    const V d = hn::Mul(hn::Mul(p, factor), hn::Sub(hn::LoadU(f, dprobabilities + i), mean));
    store(p, probabilities + i);
    store(d, dscores + i);
  }
  for (; i < span.end; ++i) {
    const float p = std::exp(scores[i] - log_sum);
    store_scalar(p, probabilities + i);
    store_scalar(p * scale * (dprobabilities[i] - delta), dscores + i);
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

template <typename T>
void score_keys(const float* query, const T* keys, std::int64_t stride, std::int64_t count, std::int64_t width,
                float scale, float* scores) {
  for (std::int64_t s = 0; s < count; ++s) scores[s] = scale * dot(query, keys + s * stride, width);
}

template <typename T>
void add_weighted(const float* weights, const T* values, std::int64_t stride, std::int64_t count, std::int64_t width,
                  float* output) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  std::int64_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) {
    V o0 = load(output + i), o1 = load(output + i + lanes), o2 = load(output + i + 2 * lanes),
      o3 = load(output + i + 3 * lanes);
    for (std::int64_t s = 0; s < count; ++s) {
      const T* value = values + s * stride + i;
      const V w = hn::Set(f, weights[s]);
      o0 = hn::MulAdd(w, load(value), o0);
      o1 = hn::MulAdd(w, load(value + lanes), o1);
      o2 = hn::MulAdd(w, load(value + 2 * lanes), o2);
      o3 = hn::MulAdd(w, load(value + 3 * lanes), o3);
    }
    store(o0, output + i);
    store(o1, output + i + lanes);
    store(o2, output + i + 2 * lanes);
    store(o3, output + i + 3 * lanes);
  }
  for (; i + lanes <= width; i += lanes) {
    V o = load(output + i);
    for (std::int64_t s = 0; s < count; ++s) o = hn::MulAdd(hn::Set(f, weights[s]), load(values + s * stride + i), o);
    store(o, output + i);
  }
  for (; i < width; ++i) {
    for (std::int64_t s = 0; s < count; ++s) output[i] += weights[s] * scalar(values + s * stride + i);
  }
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
void gradient_row_f32(const float* s, const float* d, RowSpan span, float l, float e, float c, float* p, float* o) {
  gradient_row(s, d, span, l, e, c, p, o);
}
void gradient_row_bf16(const float* s, const float* d, RowSpan span, float l, float e, float c, std::uint16_t* p,
                       std::uint16_t* o) {
  gradient_row(s, d, span, l, e, c, p, o);
}
float dot_f32(const float* a, const float* b, std::int64_t n) {
  return dot(a, b, n);
}
float dot_bf16(const std::uint16_t* a, const std::uint16_t* b, std::int64_t n) {
  return dot(a, b, n);
}
void score_keys_f32(const float* q, const float* k, std::int64_t t, std::int64_t n, std::int64_t w, float c, float* s) {
  score_keys(q, k, t, n, w, c, s);
}
void score_keys_bf16(const float* q, const std::uint16_t* k, std::int64_t t, std::int64_t n, std::int64_t w, float c,
                     float* s) {
  score_keys(q, k, t, n, w, c, s);
}
void add_weighted_f32(const float* p, const float* v, std::int64_t t, std::int64_t n, std::int64_t w, float* o) {
  add_weighted(p, v, t, n, w, o);
}
void add_weighted_bf16(const float* p, const std::uint16_t* v, std::int64_t t, std::int64_t n, std::int64_t w,
                       float* o) {
  add_weighted(p, v, t, n, w, o);
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
HWY_EXPORT(gradient_row_f32);
HWY_EXPORT(gradient_row_bf16);
HWY_EXPORT(dot_f32);
HWY_EXPORT(dot_bf16);
HWY_EXPORT(score_keys_f32);
HWY_EXPORT(score_keys_bf16);
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

void softmax_gradient_row(const float* scores, const float* dprobabilities, RowSpan span, float log_sum, float delta,
                          float scale, tensor::DType dtype, void* probabilities, void* dscores) {
  if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(gradient_row_bf16)
    (scores, dprobabilities, span, log_sum, delta, scale, half(probabilities), half(dscores));
  } else {
    HWY_DYNAMIC_DISPATCH(gradient_row_f32)
    (scores, dprobabilities, span, log_sum, delta, scale, full(probabilities), full(dscores));
  }
}

float dot_row(const void* a, const void* b, std::int64_t count, tensor::DType dtype) {
  return is_bf16(dtype) ? HWY_DYNAMIC_DISPATCH(dot_bf16)(half(a), half(b), count)
                        : HWY_DYNAMIC_DISPATCH(dot_f32)(full(a), full(b), count);
}

void score_keys(const float* query, const void* keys, std::int64_t stride, std::int64_t count, std::int64_t width,
                float scale, tensor::DType dtype, float* scores) {
  if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(score_keys_bf16)(query, half(keys), stride, count, width, scale, scores);
  } else {
    HWY_DYNAMIC_DISPATCH(score_keys_f32)(query, full(keys), stride, count, width, scale, scores);
  }
}

void add_weighted_values(const float* weights, const void* values, std::int64_t stride, std::int64_t count,
                         std::int64_t width, tensor::DType dtype, float* output) {
  if (is_bf16(dtype)) {
    HWY_DYNAMIC_DISPATCH(add_weighted_bf16)(weights, half(values), stride, count, width, output);
  } else {
    HWY_DYNAMIC_DISPATCH(add_weighted_f32)(weights, full(values), stride, count, width, output);
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
  if (is_bf16(dtype)) {
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
