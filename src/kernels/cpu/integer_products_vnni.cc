// Integer products with AVX-512 VNNI: one register of sums a row, its lanes the outputs of a panel.
#include "kernels/cpu/integer_products.h"

#if defined(__x86_64__)

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // _mm512_undefined_*() of GCC 12 (bug 105593), seen without -O3
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

// Only the functions so marked are compiled for AVX-512; the rest of the program runs on any processor.
#define INSTRUCT_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma,bmi2")))

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

// A format at compile time.
template <int kBitsStored, int kZeroShift, int kGroup, bool kMinimum, bool kHalf>
struct Format {
  static constexpr int bits = kBitsStored;       // 4 or 8
  static constexpr int zero_shift = kZeroShift;  // zero is 2^zero_shift, none when negative
  static constexpr int group = kGroup;
  static constexpr bool minimum = kMinimum;
  static constexpr bool half = kHalf;
};

inline int read_int(const std::byte* from) {
  int value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline float read_float(const std::byte* from) {
  return std::bit_cast<float>(read_int(from));
}

template <bool kHalf>
INSTRUCT_VNNI inline __m512 next_numbers(const std::byte*& panel) {
  const std::byte* from = panel;
  panel += kPanel * (kHalf ? 2 : 4);
  if constexpr (kHalf) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_loadu_ps(from);
}

template <class F, int kRows>
INSTRUCT_VNNI void panel_product(const std::byte* group, const std::byte* panel, std::int64_t blocks, float* sums) {
  const auto field = [](const std::byte* block, RowField which, int row) {
    return block + kBlock * kRows + (which * kRows + row) * 4;
  };
  constexpr auto kSums = static_cast<std::size_t>(kRows);
  __m512 sum[kSums];
  for (int r = 0; r < kRows; ++r) sum[r] = _mm512_loadu_ps(sums + r * kPanel);
  for (std::int64_t b = 0; b < blocks; ++b, group += kRowBytes * kRows) {
    for (int part = 0; part < kBlock / F::group; ++part) {
      const __m512 scale = next_numbers<F::half>(panel);
      __m512 minimum = _mm512_setzero_ps();
      if constexpr (F::minimum) minimum = next_numbers<F::half>(panel);
      __m512i dot[kSums];
      for (int r = 0; r < kRows; ++r) {
        dot[r] = _mm512_setzero_si512();
        if constexpr (F::zero_shift >= 0) {
          int negated = 0;
          if (F::group == kBlock) negated = read_int(field(group, kNegatedSum, r));
          if (F::group != kBlock) {
            const int first = read_int(field(group, kNegatedHalfSum, r));
            negated = part == 0 ? first : read_int(field(group, kNegatedSum, r)) - first;
          }
          dot[r] = _mm512_slli_epi32(_mm512_set1_epi32(negated), F::zero_shift);
        }
      }
      const std::byte* x = group + part * F::group;
      const auto accumulate = [&](__m512i weights, int four) INSTRUCT_VNNI {
        for (int r = 0; r < kRows; ++r)
          dot[r] = _mm512_dpbusd_epi32(dot[r], weights, _mm512_set1_epi32(read_int(x + r * kBlock + four * 4)));
      };
      if constexpr (F::bits == 4) {
        const __m512i low = _mm512_set1_epi8(0xF);
        for (int four = 0; four < F::group / 4; four += 2, panel += 64) {
          const __m512i both = _mm512_loadu_si512(panel);
          accumulate(_mm512_and_si512(both, low), four);
          accumulate(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), four + 1);
        }
      } else {
        for (int four = 0; four < F::group / 4; ++four, panel += 64) accumulate(_mm512_loadu_si512(panel), four);
      }
      for (int r = 0; r < kRows; ++r) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(read_float(field(group, kScale, r))));
        sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), both, sum[r]);
        if constexpr (F::minimum)
          sum[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(read_float(field(group, kScaledSum, r))), sum[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(sums + r * kPanel, sum[r]);
}

template <class F>
PanelProduct of_rows(std::int64_t rows) {
  switch (rows) {
    case 1:
      return panel_product<F, 1>;
    case 2:
      return panel_product<F, 2>;
    case 4:
      return panel_product<F, 4>;
    case 8:
      return panel_product<F, 8>;
    case kMostRows:
      return panel_product<F, kMostRows>;
    default:
      return nullptr;
  }
}

PanelProduct find_panel_product(DType dtype, std::int64_t rows) {
  switch (dtype) {
    case DType::kQ8_0:
      return of_rows<Format<8, 7, 32, false, true>>(rows);
    case DType::kQ4_0:
      return of_rows<Format<4, 3, 32, false, true>>(rows);
    case DType::kQ4_1:
      return of_rows<Format<4, -1, 32, true, true>>(rows);
    case DType::kQ5_0:
      return of_rows<Format<8, 4, 32, false, true>>(rows);
    case DType::kQ5_1:
      return of_rows<Format<8, -1, 32, true, true>>(rows);
    case DType::kQ4_K:
      return of_rows<Format<4, -1, 32, true, false>>(rows);
    case DType::kQ5_K:
      return of_rows<Format<8, -1, 32, true, false>>(rows);
    case DType::kQ6_K:
      return of_rows<Format<8, 5, 16, false, false>>(rows);
    default:
      return nullptr;
  }
}

// 16 values as f32.
INSTRUCT_VNNI inline __m512 load_values(const std::byte* x, DType dtype, std::int64_t at) {
  if (dtype == DType::kF32) return _mm512_loadu_ps(x + at * 4);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + at * 2));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

INSTRUCT_VNNI void quantise_row(const std::byte* x, DType dtype, std::int64_t blocks, std::int64_t rows,
                                std::int64_t row, std::byte* group) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (std::int64_t b = 0; b < blocks; ++b, group += kRowBytes * rows) {
    const __m512 values[2] = {load_values(x, dtype, b * kBlock), load_values(x, dtype, b * kBlock + 16)};
    // As integers, magnitudes are ordered like the numbers, with infinity and NaN above all.
    const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(values[0]), magnitude),
                                          _mm512_and_si512(_mm512_castps_si512(values[1]), magnitude));
    const float largest = std::bit_cast<float>(_mm512_reduce_max_epu32(most));
    const bool finite = largest <= std::numeric_limits<float>::max();
    // A block of numbers so small that their inverse overflows counts as zero.
    const float inverse = finite && largest > 127.0F / std::numeric_limits<float>::max() ? 127.0F / largest : 0.0F;
    const float scale = finite ? largest / 127.0F : std::numeric_limits<float>::quiet_NaN();
    int sums[2];
    for (int half = 0; half < 2; ++half) {
      __m512i integers = _mm512_setzero_si512();
      if (inverse != 0.0F)
        integers = _mm512_cvtps_epi32(_mm512_mul_ps(values[half], _mm512_set1_ps(inverse)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(group + row * kBlock + half * 16), _mm512_cvtsepi32_epi8(integers));
      sums[half] = _mm512_reduce_add_epi32(integers);
    }
    const int sum = sums[0] + sums[1];
    const auto put = [&](RowField which, std::uint32_t bits) {
      std::memcpy(group + kBlock * rows + (which * rows + row) * 4, &bits, sizeof(bits));
    };
    put(kScale, std::bit_cast<std::uint32_t>(scale));
    put(kScaledSum, std::bit_cast<std::uint32_t>(scale * static_cast<float>(sum)));
    put(kNegatedSum, static_cast<std::uint32_t>(-sum));
    put(kNegatedHalfSum, static_cast<std::uint32_t>(-sums[0]));
  }
}

template <int kRows>
INSTRUCT_VNNI void low_product_rows(const float* left, const float* right, std::int64_t rank, float* sums) {
  __m512 sum[static_cast<std::size_t>(kRows)];
  for (int r = 0; r < kRows; ++r) sum[r] = _mm512_loadu_ps(sums + r * kPanel);
  for (std::int64_t k = 0; k < rank; ++k, right += kPanel) {
    const __m512 outputs = _mm512_loadu_ps(right);
    for (int r = 0; r < kRows; ++r) sum[r] = _mm512_fmadd_ps(_mm512_set1_ps(left[r * rank + k]), outputs, sum[r]);
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(sums + r * kPanel, sum[r]);
}

void low_product(const float* left, const float* right, std::int64_t rank, std::int64_t rows, float* sums) {
  for (; rows >= 4; rows -= 4, left += 4 * rank, sums += 4 * kPanel) low_product_rows<4>(left, right, rank, sums);
  for (; rows > 0; --rows, left += rank, sums += kPanel) low_product_rows<1>(left, right, rank, sums);
}

// To nearest, ties to even; NaN stays NaN, as in tensor::to_bfloat16.
INSTRUCT_VNNI inline __m256i to_bfloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

INSTRUCT_VNNI void store_sums(const float* sums, DType dtype, std::int64_t rows, std::int64_t count,
                              std::int64_t stride_bytes, std::byte* y) {
  const auto lanes = static_cast<__mmask16>((1U << count) - 1);
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanel, y += stride_bytes) {
    const __m512 values = _mm512_loadu_ps(sums);
    if (dtype == DType::kF32) {
      _mm512_mask_storeu_ps(y, lanes, values);
    } else {
      _mm256_mask_storeu_epi16(y, lanes, to_bfloat16(values));
    }
  }
}

INSTRUCT_VNNI void load_sums(const std::byte* y, DType dtype, std::int64_t rows, std::int64_t count,
                             std::int64_t stride_bytes, float* sums) {
  const auto lanes = static_cast<__mmask16>((1U << count) - 1);
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanel, y += stride_bytes) {
    if (dtype == DType::kF32) {
      _mm512_storeu_ps(sums, _mm512_maskz_loadu_ps(lanes, y));
    } else {
      const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, y));
      _mm512_storeu_ps(sums, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
    }
  }
}

}  // namespace

const IntegerProducts kVnniProducts{.most_rows = kMostRows,
                                    .panel_product = find_panel_product,
                                    .quantise_row = quantise_row,
                                    .low_product = low_product,
                                    .store_sums = store_sums,
                                    .load_sums = load_sums};

}  // namespace instruct::kernels::cpu
#endif
