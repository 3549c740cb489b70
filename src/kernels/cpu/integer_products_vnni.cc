// Integer products with AVX-512 VNNI: one register a row, its lanes the outputs of a panel.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // _mm512_undefined_*() of GCC 12 (bug 105593), seen without -O3
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/integer_products.h"

// Only the functions so marked are compiled for AVX-512; the rest of the program runs on any processor.
#define INSTRUCT_INTEGERS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma,bmi2")))

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

using Floats = __m512;
using Sums = __m512i;
using Bytes = __m512i;
constexpr bool kSignedBytes = false;
constexpr int kGroupRows = 12;  // two registers each, and eight are left

INSTRUCT_INTEGERS inline Floats zero_floats() {
  return _mm512_setzero_ps();
}
INSTRUCT_INTEGERS inline Floats set_floats(float value) {
  return _mm512_set1_ps(value);
}
INSTRUCT_INTEGERS inline Floats load_floats(const float* from) {
  return _mm512_loadu_ps(from);
}
INSTRUCT_INTEGERS inline Floats load_halves(const std::byte* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
INSTRUCT_INTEGERS inline void store_floats(Floats values, float* to) {
  _mm512_storeu_ps(to, values);
}
INSTRUCT_INTEGERS inline Floats multiply(Floats a, Floats b) {
  return _mm512_mul_ps(a, b);
}
INSTRUCT_INTEGERS inline Floats multiply_add(Floats a, Floats b, Floats sum) {
  return _mm512_fmadd_ps(a, b, sum);
}
INSTRUCT_INTEGERS inline Floats to_floats(Sums sums) {
  return _mm512_cvtepi32_ps(sums);
}
INSTRUCT_INTEGERS inline Sums set_sums(int value) {
  return _mm512_set1_epi32(value);
}
template <int Bits>
INSTRUCT_INTEGERS inline Sums shift_right(Sums sums) {
  return _mm512_srai_epi32(sums, Bits);
}
INSTRUCT_INTEGERS inline Bytes load_bytes(const std::byte* from) {
  return _mm512_loadu_si512(from);
}
INSTRUCT_INTEGERS inline Bytes low_halves(Bytes both) {
  return _mm512_and_si512(both, _mm512_set1_epi8(0xF));
}
INSTRUCT_INTEGERS inline Bytes high_halves(Bytes both) {
  return _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(0xF));
}
template <bool Signed>
INSTRUCT_INTEGERS inline Sums dot(Sums sums, Bytes weights, int four) {
  static_assert(!Signed);
  return _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(four));
}

// 16 values as f32.
INSTRUCT_INTEGERS inline __m512 load_values(const std::byte* x, DType dtype, std::int64_t at) {
  if (dtype == DType::kF32) return _mm512_loadu_ps(x + at * 4);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + at * 2));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// The sums of the low and the high 16 of 32 signed bytes.
INSTRUCT_INTEGERS inline void sums_of_halves(__m256i bytes, int* sums) {
  const __m256i raised = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));  // by 128, and so not negative
  const __m256i eights = _mm256_sad_epu8(raised, _mm256_setzero_si256());
  const __m256i sixteens = _mm256_add_epi64(eights, _mm256_srli_si256(eights, 8));
  sums[0] += _mm256_extract_epi32(sixteens, 0) - 16 * 128;
  sums[1] += _mm256_extract_epi32(sixteens, 4) - 16 * 128;
}

// One span of a row.
template <int Span, int Planes>
INSTRUCT_INTEGERS inline void quantise_span(const std::byte* x, DType dtype, std::int64_t rows, std::int64_t row,
                                            std::byte* group) {
  constexpr auto kVectors = static_cast<std::size_t>(2 * Span);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512 values[kVectors];
  __m512i most = _mm512_setzero_si512();
  for (int i = 0; i < 2 * Span; ++i) {
    values[i] = load_values(x, dtype, i * 16);
    // As integers, magnitudes are ordered like the numbers, with infinity and NaN above all.
    most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(values[i]), magnitude));
  }
  const BlockScale scale = scale_of(std::bit_cast<float>(_mm512_reduce_max_epu32(most)));
  const __mmask16 used = scale.factor != 0.0F ? 0xffff : 0;  // values that are not finite leave no trace
  for (__m512& value : values) value = _mm512_maskz_mul_ps(used, value, _mm512_set1_ps(scale.factor));
  float plane_scale = scale.scale;
  for (int p = 0; p < Planes; ++p, plane_scale /= kFiner) {
    std::byte* plane = group + p * kRowBytes * rows;
    int sums[2] = {};
    for (int s = 0; s < Span; ++s) {
      const __m512i low = _mm512_cvtps_epi32(values[2 * s]);
      const __m512i high = _mm512_cvtps_epi32(values[2 * s + 1]);
      const __m256i bytes = _mm256_set_m128i(_mm512_cvtsepi32_epi8(high), _mm512_cvtsepi32_epi8(low));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(plane + s * Planes * kRowBytes * rows + row * kBlock), bytes);
      sums_of_halves(bytes, sums);
      if (p + 1 == Planes) continue;
      const __m512 finer = _mm512_set1_ps(kFiner);
      values[2 * s] = _mm512_mul_ps(_mm512_sub_ps(values[2 * s], _mm512_cvtepi32_ps(low)), finer);
      values[2 * s + 1] = _mm512_mul_ps(_mm512_sub_ps(values[2 * s + 1], _mm512_cvtepi32_ps(high)), finer);
    }
    put_fields(plane_scale, sums[0], sums[1], rows, row, plane);
  }
}

template <int Planes>
INSTRUCT_INTEGERS void quantise_planes(const std::byte* x, DType dtype, const GroupShape& shape, std::int64_t row,
                                       std::byte* group) {
  const std::int64_t x_bytes = kBlock * tensor::info(dtype).block_bytes;
  const std::int64_t block_bytes = kRowBytes * shape.rows * Planes;
  std::int64_t b = 0;
  if (shape.span == 2) {
    for (; b + 2 <= shape.blocks; b += 2)
      quantise_span<2, Planes>(x + b * x_bytes, dtype, shape.rows, row, group + b * block_bytes);
  }
  for (; b < shape.blocks; ++b)
    quantise_span<1, Planes>(x + b * x_bytes, dtype, shape.rows, row, group + b * block_bytes);
}

void quantise_row(const std::byte* x, DType dtype, const GroupShape& shape, std::int64_t row, std::byte* group) {
  shape.planes == 1 ? quantise_planes<1>(x, dtype, shape, row, group) : quantise_planes<2>(x, dtype, shape, row, group);
}

// To nearest, ties to even; NaN stays NaN, as in tensor::to_bfloat16.
INSTRUCT_INTEGERS inline __m256i to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

INSTRUCT_INTEGERS inline __mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>((1U << count) - 1);
}

INSTRUCT_INTEGERS void store_row(const float* sums, DType dtype, std::int64_t count, std::byte* y) {
  const __m512 values = _mm512_loadu_ps(sums);
  if (dtype == DType::kF32) {
    _mm512_mask_storeu_ps(y, first_lanes(count), values);
  } else {
    _mm256_mask_storeu_epi16(y, first_lanes(count), to_bfloat16(values));
  }
}

INSTRUCT_INTEGERS void load_row(const std::byte* y, DType dtype, std::int64_t count, float* sums) {
  if (dtype == DType::kF32) {
    _mm512_storeu_ps(sums, _mm512_maskz_loadu_ps(first_lanes(count), y));
  } else {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(count), y));
    _mm512_storeu_ps(sums, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
  }
}

}  // namespace
}  // namespace instruct::kernels::cpu

#include "kernels/cpu/integer_products.inc"

namespace instruct::kernels::cpu {

const IntegerProducts kVnniProducts = kProducts;

}  // namespace instruct::kernels::cpu
#endif
