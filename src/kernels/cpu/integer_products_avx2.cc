// Integer products with AVX2: two registers a row. Products of bytes are added in pairs to 16 bits, which must not
// saturate: 8-bit integers with a zero of 128 are multiplied as signed numbers, |w| <= 128 times x with w's sign.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/integer_products.h"

#define INSTRUCT_INTEGERS __attribute__((target("avx2,f16c,fma")))

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

struct Floats {
  __m256 low, high;
};
struct Sums {
  __m256i low, high;
};
struct Bytes {
  __m256i low, high;
};
constexpr bool kSignedBytes = true;
constexpr int kGroupRows = 2;  // four registers each

INSTRUCT_INTEGERS inline Floats zero_floats() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
INSTRUCT_INTEGERS inline Floats set_floats(float value) {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
INSTRUCT_INTEGERS inline Floats load_floats(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
INSTRUCT_INTEGERS inline Floats load_halves(const std::byte* from) {
  const auto* halves = reinterpret_cast<const __m128i*>(from);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
INSTRUCT_INTEGERS inline void store_floats(Floats values, float* to) {
  _mm256_storeu_ps(to, values.low);
  _mm256_storeu_ps(to + 8, values.high);
}
INSTRUCT_INTEGERS inline Floats multiply(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
INSTRUCT_INTEGERS inline Floats multiply_add(Floats a, Floats b, Floats sum) {
  return {_mm256_fmadd_ps(a.low, b.low, sum.low), _mm256_fmadd_ps(a.high, b.high, sum.high)};
}
INSTRUCT_INTEGERS inline Floats to_floats(Sums sums) {
  return {_mm256_cvtepi32_ps(sums.low), _mm256_cvtepi32_ps(sums.high)};
}
INSTRUCT_INTEGERS inline Sums set_sums(int value) {
  return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}
template <int Bits>
INSTRUCT_INTEGERS inline Sums shift_right(Sums sums) {
  return {_mm256_srai_epi32(sums.low, Bits), _mm256_srai_epi32(sums.high, Bits)};
}
INSTRUCT_INTEGERS inline Bytes load_bytes(const std::byte* from) {
  const auto* bytes = reinterpret_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(bytes), _mm256_loadu_si256(bytes + 1)};
}
INSTRUCT_INTEGERS inline Bytes low_halves(Bytes both) {
  const __m256i low = _mm256_set1_epi8(0xF);
  return {_mm256_and_si256(both.low, low), _mm256_and_si256(both.high, low)};
}
INSTRUCT_INTEGERS inline Bytes high_halves(Bytes both) {
  return low_halves({_mm256_srli_epi16(both.low, 4), _mm256_srli_epi16(both.high, 4)});
}
template <bool Signed>
INSTRUCT_INTEGERS inline __m256i dot_half(__m256i sums, __m256i weights, __m256i four) {
  if constexpr (Signed) {
    const __m256i whole = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
    four = _mm256_sign_epi8(four, whole);
    weights = _mm256_abs_epi8(whole);
  }
  const __m256i pairs = _mm256_maddubs_epi16(weights, four);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
template <bool Signed>
INSTRUCT_INTEGERS inline Sums dot(Sums sums, Bytes weights, int four) {
  const __m256i inputs = _mm256_set1_epi32(four);
  return {dot_half<Signed>(sums.low, weights.low, inputs), dot_half<Signed>(sums.high, weights.high, inputs)};
}

// 8 values as f32.
INSTRUCT_INTEGERS inline __m256 load_values(const std::byte* x, DType dtype, std::int64_t at) {
  if (dtype == DType::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(x) + at);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + at * 2));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// One span of a row: `count` blocks.
INSTRUCT_INTEGERS inline void quantise_span(const std::byte* x, DType dtype, std::int64_t count,
                                            const GroupShape& shape, std::int64_t row, std::byte* group) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256 values[8];
  __m256i most = _mm256_setzero_si256();
  const std::int64_t vectors = 4 * count;
  for (std::int64_t i = 0; i < vectors; ++i) {
    values[i] = load_values(x, dtype, i * 8);
    // As integers, magnitudes are ordered like the numbers, with infinity and NaN above all.
    most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
  }
  std::uint32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), most);
  const BlockScale scale = scale_of(std::bit_cast<float>(*std::max_element(lanes, lanes + 8)));
  for (std::int64_t i = 0; i < vectors; ++i) {
    values[i] = _mm256_mul_ps(values[i], _mm256_set1_ps(scale.factor));
    if (scale.factor == 0.0F) values[i] = _mm256_setzero_ps();  // values that are not finite leave no trace
  }
  float plane_scale = scale.scale;
  const std::int64_t block_bytes = kRowBytes * shape.rows * shape.planes;
  for (int p = 0; p < shape.planes; ++p, plane_scale /= kFiner) {
    std::byte* plane = group + p * kRowBytes * shape.rows;
    int sums[2] = {};
    for (std::int64_t i = 0; i < vectors; ++i) {
      const __m256i rounded = _mm256_cvtps_epi32(values[i]);
      std::int32_t integers[8];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(integers), rounded);
      values[i] = _mm256_mul_ps(_mm256_sub_ps(values[i], _mm256_cvtepi32_ps(rounded)), _mm256_set1_ps(kFiner));
      std::byte* to = plane + i / 4 * block_bytes + row * kBlock + i % 4 * 8;
      for (int k = 0; k < 8; ++k) {
        to[k] = static_cast<std::byte>(integers[k]);
        sums[i % 4 / 2] += integers[k];
      }
    }
    put_fields(plane_scale, sums[0], sums[1], shape.rows, row, plane);
  }
}

void quantise_row(const std::byte* x, DType dtype, const GroupShape& shape, std::int64_t row, std::byte* group) {
  for (std::int64_t b = 0; b < shape.blocks; b += shape.span) {
    quantise_span(x + b * kBlock * tensor::info(dtype).block_bytes, dtype, std::min(shape.span, shape.blocks - b),
                  shape, row, group + b * kRowBytes * shape.rows * shape.planes);
  }
}

void store_row(const float* sums, DType dtype, std::int64_t count, std::byte* y) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(y)[i] = sums[i];
    } else {
      reinterpret_cast<tensor::BFloat16*>(y)[i] = tensor::to_bfloat16(sums[i]);
    }
  }
}

void load_row(const std::byte* y, DType dtype, std::int64_t count, float* sums) {
  std::fill_n(sums, kPanel, 0.0F);
  for (std::int64_t i = 0; i < count; ++i) {
    sums[i] = dtype == DType::kF32 ? reinterpret_cast<const float*>(y)[i]
                                   : tensor::to_float(reinterpret_cast<const tensor::BFloat16*>(y)[i]);
  }
}

}  // namespace
}  // namespace instruct::kernels::cpu

#include "kernels/cpu/integer_products.inc"

namespace instruct::kernels::cpu {

const IntegerProducts kAvx2Products = kProducts;

}  // namespace instruct::kernels::cpu
#endif
