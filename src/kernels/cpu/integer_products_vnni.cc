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

INSTRUCT_INTEGERS void quantise_row(const std::byte* x, DType dtype, std::int64_t blocks, int planes, std::int64_t rows,
                                    std::int64_t row, std::byte* plane) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (std::int64_t b = 0; b < blocks; ++b) {
    __m512 values[2] = {load_values(x, dtype, b * kBlock), load_values(x, dtype, b * kBlock + 16)};
    // As integers, magnitudes are ordered like the numbers, with infinity and NaN above all.
    const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(values[0]), magnitude),
                                          _mm512_and_si512(_mm512_castps_si512(values[1]), magnitude));
    const BlockScale scale = scale_of(std::bit_cast<float>(_mm512_reduce_max_epu32(most)));
    const __mmask16 used = scale.factor != 0.0F ? 0xffff : 0;  // values that are not finite leave no trace
    for (__m512& value : values) value = _mm512_maskz_mul_ps(used, value, _mm512_set1_ps(scale.factor));
    float plane_scale = scale.scale;
    for (int i = 0; i < planes; ++i, plane += kRowBytes * rows, plane_scale /= kFiner) {
      int sums[2];
      for (int half = 0; half < 2; ++half) {
        const __m512i integers = _mm512_cvtps_epi32(values[half]);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(plane + row * kBlock + half * 16), _mm512_cvtsepi32_epi8(integers));
        sums[half] = _mm512_reduce_add_epi32(integers);
        values[half] = _mm512_mul_ps(_mm512_sub_ps(values[half], _mm512_cvtepi32_ps(integers)), _mm512_set1_ps(kFiner));
      }
      put_fields(plane_scale, sums[0], sums[1], rows, row, plane);
    }
  }
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
