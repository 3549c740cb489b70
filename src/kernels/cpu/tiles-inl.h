// What functions compiled for AMX share: work on single tiles and on vector registers. Internal to the files of tiles,
// and to be included inside `#if defined(__x86_64__)`.
#pragma once

#include <cstring>

#include "kernels/cpu/tiles.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // _mm512_undefined_*() of GCC 12 (bug 105593), seen without -O3
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

// Only the functions so marked are compiled for AMX; the rest of the program runs on any processor.
#define INSTRUCT_TILES __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,bmi2")))

namespace instruct::kernels::cpu::tiles {

inline constexpr std::int64_t kPanelStepBytes = 2 * kTileBytes;  // both tiles of 32 k in a panel
inline constexpr std::int64_t kBlockRows = 2 * kTileRows;        // rows of results kept in registers
inline constexpr std::int64_t kBlockSums = kBlockRows * kPanelColumns;

// The first `count` of n lanes.
template <typename Mask>
Mask first_lanes(std::int64_t count) {
  constexpr auto kLanes = static_cast<std::int64_t>(sizeof(Mask) * 8);
  if (count <= 0) return 0;
  return count >= kLanes ? static_cast<Mask>(~Mask{0}) : static_cast<Mask>((Mask{1} << count) - 1);
}

// Transposes a 16 x 16 matrix of 32-bit values held in 16 registers: by pairs, fours and then 128-bit lanes.
INSTRUCT_TILES inline void transpose_16x16(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// 16 rows of 64 bytes: row i from `rows` + i * stride_bytes, `columns` of its 32 values, `count` rows; zeros elsewhere.
INSTRUCT_TILES inline void load_rows(const std::byte* rows, std::int64_t stride_bytes, std::int64_t count,
                                     std::int64_t columns, __m512i* r) {
  const auto mask = first_lanes<__mmask32>(columns);
  for (int i = 0; i < 16; ++i) {
    r[i] = i < count ? _mm512_maskz_loadu_epi16(mask, rows + i * stride_bytes) : _mm512_setzero_si512();
  }
}

// 32 values of two registers, in order, as bf16 rounded to nearest even.
INSTRUCT_TILES inline __m512i to_bf16(__m512 first, __m512 second) {
  const __m512bh rounded = _mm512_cvtne2ps_pbh(second, first);
  __m512i bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

// 16 values, as f32.
INSTRUCT_TILES inline __m512 load_bf16(__mmask16 mask, const std::byte* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

INSTRUCT_TILES inline void store_tile(const __m512i* r, std::byte* tile) {
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * 64, r[i]);
}

// Pairs of 32 columns of two rows: those of columns 0-15, and of 16-31.
INSTRUCT_TILES inline void interleave(__m512i even, __m512i odd, __m512i& low, __m512i& high) {
  alignas(64) static constexpr std::int16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                        8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static constexpr std::int16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21,
                                                         53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                                         27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  low = _mm512_permutex2var_epi16(even, _mm512_load_si512(kLow), odd);
  high = _mm512_permutex2var_epi16(even, _mm512_load_si512(kHigh), odd);
}

// Interleaves rows 2i and 2i + 1 of up to 32 columns: low[i] holds the pairs of columns 0-15, high[i] of 16-31.
INSTRUCT_TILES inline void load_pairs(const std::byte* rows, std::int64_t stride_bytes, std::int64_t count,
                                      std::int64_t columns, __m512i* low, __m512i* high) {
  const auto mask = first_lanes<__mmask32>(columns);
  for (int i = 0; i < 16; ++i) {
    const __m512i even =
        2 * i < count ? _mm512_maskz_loadu_epi16(mask, rows + 2 * i * stride_bytes) : _mm512_setzero_si512();
    const __m512i odd =
        2 * i + 1 < count ? _mm512_maskz_loadu_epi16(mask, rows + (2 * i + 1) * stride_bytes) : _mm512_setzero_si512();
    interleave(even, odd, low[i], high[i]);
  }
}

// Adds left * one panel to the result tiles, over `depth` tiles of k. Rows and Columns count tiles: 1 or 2. The left
// side is loaded as data that will not be used again soon: so the panel, which every block of rows reads, stays in the
// first cache (alone, 256 x 512 from k = 576: 2.6 TFLOP/s instead of 2.0).
template <int Rows, int Columns>
INSTRUCT_TILES inline void add_product(const Left& left, const std::byte* panel, std::int64_t depth) {
  const std::byte* upper = left.data;
  const std::byte* lower = left.data + left.tile_row_bytes;
  for (std::int64_t t = 0; t < depth; ++t) {
    _tile_loadd(6, panel, 64);
    _tile_stream_loadd(4, upper, left.row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Columns == 2) {
      _tile_loadd(7, panel + kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (Rows == 2) {
      _tile_stream_loadd(5, lower, left.row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (Columns == 2) _tile_dpbf16ps(3, 5, 7);
    }
    panel += kPanelStepBytes;
    upper += left.tile_column_bytes;
    lower += left.tile_column_bytes;
  }
}

// A product's left side for one block of rows, and how many k it has.
struct Part {
  Left left;
  std::int64_t k = 0;
  std::int64_t depth() const { return (k + kTileDepth - 1) / kTileDepth; }  // in tiles
};

// multiply_block on AVX-512 registers; rows and columns are multiples of 16.
void multiply_block_in_registers(std::int64_t rows, std::int64_t columns, const Part& part, const Part& more,
                                 const std::byte* panel, Accumulate accumulate, float* sums);

// sums [Rows * 16][32] (+)= part * one panel, and `more` times what follows in the panel after whole tiles of k.
template <int Rows, int Columns>
INSTRUCT_TILES inline void multiply_block(const Part& part, const std::byte* panel, Accumulate accumulate, float* sums,
                                          const Part& more = {}) {
  if (Session::current() == Unit::kRegisters) {
    multiply_block_in_registers(Rows * kTileRows, Columns * 16, part, more, panel, accumulate, sums);
    return;
  }
  constexpr std::int64_t kSumStride = kPanelColumns * 4;
  float* below = sums + kTileRows * kPanelColumns;
  if (accumulate == Accumulate::kYes) {
    _tile_loadd(0, sums, kSumStride);
    if constexpr (Columns == 2) _tile_loadd(1, sums + 16, kSumStride);
    if constexpr (Rows == 2) _tile_loadd(2, below, kSumStride);
    if constexpr (Rows == 2 && Columns == 2) _tile_loadd(3, below + 16, kSumStride);
  } else {
    _tile_zero(0);
    if constexpr (Columns == 2) _tile_zero(1);
    if constexpr (Rows == 2) _tile_zero(2);
    if constexpr (Rows == 2 && Columns == 2) _tile_zero(3);
  }
  add_product<Rows, Columns>(part.left, panel, part.depth());
  if (more.k > 0) add_product<Rows, Columns>(more.left, panel + part.depth() * kPanelStepBytes, more.depth());
  _tile_stored(0, sums, kSumStride);
  if constexpr (Columns == 2) _tile_stored(1, sums + 16, kSumStride);
  if constexpr (Rows == 2) _tile_stored(2, below, kSumStride);
  if constexpr (Rows == 2 && Columns == 2) _tile_stored(3, below + 16, kSumStride);
}

}  // namespace instruct::kernels::cpu::tiles
