#include "kernels/cpu/tiles.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

#if defined(__x86_64__)
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
namespace {

constexpr std::int64_t kPanelStepBytes = 2 * kTileBytes;  // both tiles of 32 k in a panel
constexpr std::int64_t kBlockRows = 2 * kTileRows;        // rows of results kept in registers
constexpr std::int64_t kBlockSums = kBlockRows * kPanelColumns;

// Layout of LDTILECFG's operand (Intel, "Software Developer's Manual", volume 1, chapter 18).
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

INSTRUCT_TILES void load_config() {
  static constexpr TileConfig kConfig;  // static: GCC 12 tells its optimiser that only 8 bytes of it are read
  _tile_loadconfig(&kConfig);
}

INSTRUCT_TILES void release_config() {
  _mm_sfence();  // streamed results are seen by whoever learns that this thread is done
  _tile_release();
}

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

INSTRUCT_TILES inline void store_tile(const __m512i* r, std::byte* tile) {
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * 64, r[i]);
}

// Interleaves rows 2i and 2i + 1 of up to 32 columns: low[i] holds the pairs of columns 0-15, high[i] of 16-31.
INSTRUCT_TILES inline void load_pairs(const std::byte* rows, std::int64_t stride_bytes, std::int64_t count,
                                      std::int64_t columns, __m512i* low, __m512i* high) {
  alignas(64) static constexpr std::int16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                        8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static constexpr std::int16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21,
                                                         53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                                         27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  const __m512i pick_low = _mm512_load_si512(kLow);
  const __m512i pick_high = _mm512_load_si512(kHigh);
  const auto mask = first_lanes<__mmask32>(columns);
  for (int i = 0; i < 16; ++i) {
    const __m512i even =
        2 * i < count ? _mm512_maskz_loadu_epi16(mask, rows + 2 * i * stride_bytes) : _mm512_setzero_si512();
    const __m512i odd =
        2 * i + 1 < count ? _mm512_maskz_loadu_epi16(mask, rows + (2 * i + 1) * stride_bytes) : _mm512_setzero_si512();
    low[i] = _mm512_permutex2var_epi16(even, pick_low, odd);
    high[i] = _mm512_permutex2var_epi16(even, pick_high, odd);
  }
}

INSTRUCT_TILES void pack_left_plain(const std::byte* a, std::int64_t stride, std::int64_t m, std::int64_t k,
                                    std::byte* buffer) {
  for (std::int64_t i = 0; i < m; i += kTileRows) {
    for (std::int64_t t = 0; t < k; t += kTileDepth, buffer += kTileBytes) {
      __m512i r[16];
      load_rows(a + (i * stride + t) * 2, stride * 2, m - i, k - t, r);
      store_tile(r, buffer);
    }
  }
}

// a is stored [k, m]: pairs of its rows are interleaved to 32-bit values (k, k + 1) of each m, and those transposed.
INSTRUCT_TILES void pack_left_transposed(const std::byte* a, std::int64_t stride, std::int64_t m, std::int64_t k,
                                         std::byte* buffer) {
  const std::int64_t depth = ceil_div(k, kTileDepth);
  for (std::int64_t i = 0; i < m; i += 2 * kTileRows) {
    for (std::int64_t t = 0; t < depth; ++t) {
      __m512i low[16];
      __m512i high[16];
      load_pairs(a + (t * kTileDepth * stride + i) * 2, stride * 2, k - t * kTileDepth, m - i, low, high);
      transpose_16x16(low);
      store_tile(low, buffer + (i / kTileRows * depth + t) * kTileBytes);
      if (i + kTileRows >= m) continue;
      transpose_16x16(high);
      store_tile(high, buffer + ((i / kTileRows + 1) * depth + t) * kTileBytes);
    }
  }
}

INSTRUCT_TILES void pack_panel_plain(const std::byte* b, std::int64_t stride, std::int64_t k, std::int64_t columns,
                                     std::byte* buffer) {
  for (std::int64_t t = 0; t < k; t += kTileDepth, buffer += kPanelStepBytes) {
    __m512i low[16];
    __m512i high[16];
    load_pairs(b + t * stride * 2, stride * 2, k - t, columns, low, high);
    store_tile(low, buffer);
    store_tile(high, buffer + kTileBytes);
  }
}

// b is stored [n, k]: 16 rows of 16 pairs each become 16 pairs of 16 columns.
INSTRUCT_TILES void pack_panel_transposed(const std::byte* b, std::int64_t stride, std::int64_t k, std::int64_t columns,
                                          std::byte* buffer) {
  for (std::int64_t t = 0; t < k; t += kTileDepth, buffer += kPanelStepBytes) {
    for (std::int64_t half = 0; half < 2; ++half) {
      __m512i r[16];
      load_rows(b + (half * kTileRows * stride + t) * 2, stride * 2, columns - half * kTileRows, k - t, r);
      transpose_16x16(r);
      store_tile(r, buffer + half * kTileBytes);
    }
  }
}

// Adds left * one panel to the result tiles, over `depth` tiles of k. Rows and Columns count tiles: 1 or 2. The left side
// is loaded as data that will not be used again soon: so the panel, which every block of rows reads, stays in the first
// cache (alone, 256 x 512 from k = 576: 2.6 TFLOP/s instead of 2.0).
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

// A product's left side for one block of rows, and the tiles of k that belong to it.
struct Part {
  Left left;
  std::int64_t depth = 0;
};

// sums [Rows * 16][32] (+)= both parts * one panel.
template <int Rows, int Columns>
INSTRUCT_TILES void multiply_block(const Part& part, const Part& more, const std::byte* panel, Accumulate accumulate,
                                   float* sums) {
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
  add_product<Rows, Columns>(part.left, panel, part.depth);
  if (more.depth > 0) add_product<Rows, Columns>(more.left, panel + part.depth * kPanelStepBytes, more.depth);
  _tile_stored(0, sums, kSumStride);
  if constexpr (Columns == 2) _tile_stored(1, sums + 16, kSumStride);
  if constexpr (Rows == 2) _tile_stored(2, below, kSumStride);
  if constexpr (Rows == 2 && Columns == 2) _tile_stored(3, below + 16, kSumStride);
}

// The block for what is left of rows and columns.
void multiply_some(const Part& part, const Part& more, const std::byte* panel, std::int64_t rows, std::int64_t columns,
                   Accumulate accumulate, float* sums) {
  if (rows > kTileRows) {
    columns > 16 ? multiply_block<2, 2>(part, more, panel, accumulate, sums)
                 : multiply_block<2, 1>(part, more, panel, accumulate, sums);
  } else {
    columns > 16 ? multiply_block<1, 2>(part, more, panel, accumulate, sums)
                 : multiply_block<1, 1>(part, more, panel, accumulate, sums);
  }
}

INSTRUCT_TILES inline __m512 load_bf16(__mmask16 mask, const std::byte* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

INSTRUCT_TILES inline __m512i to_bf16(__m512 low, __m512 high) {
  const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
  __m512i bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

// c [rows, columns] = alpha * sums [rows][32] (+ c).
template <tensor::DType Type, Accumulate Add>
INSTRUCT_TILES void store_block(const float* sums, std::int64_t rows, std::int64_t columns, std::byte* c,
                                std::int64_t stride, float scale) {
  constexpr std::int64_t kSize = Type == tensor::DType::kF32 ? 4 : 2;
  const __m512 alpha = _mm512_set1_ps(scale);
  const auto first = first_lanes<__mmask16>(columns);
  const auto second = first_lanes<__mmask16>(columns - 16);
  const auto both = first_lanes<__mmask32>(columns);
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns, c += stride * kSize) {
    __m512 low = _mm512_mul_ps(alpha, _mm512_load_ps(sums));
    __m512 high = _mm512_mul_ps(alpha, _mm512_load_ps(sums + 16));
    std::byte* next = c + 16 * kSize;
    if constexpr (Type == tensor::DType::kF32) {
      if constexpr (Add == Accumulate::kYes) {
        low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(first, c));
        high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(second, next));
      }
      _mm512_mask_storeu_ps(c, first, low);
      _mm512_mask_storeu_ps(next, second, high);
    } else {
      if constexpr (Add == Accumulate::kYes) {
        low = _mm512_add_ps(low, load_bf16(first, c));
        high = _mm512_add_ps(high, load_bf16(second, next));
      }
      _mm512_mask_storeu_epi16(c, both, to_bf16(low, high));
    }
  }
}

// The same past the caches, for 32 columns that start a cache line.
template <tensor::DType Type>
INSTRUCT_TILES void stream_block(const float* sums, std::int64_t rows, std::byte* c, std::int64_t stride, float scale) {
  constexpr std::int64_t kSize = Type == tensor::DType::kF32 ? 4 : 2;
  const __m512 alpha = _mm512_set1_ps(scale);
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns, c += stride * kSize) {
    const __m512 low = _mm512_mul_ps(alpha, _mm512_load_ps(sums));
    const __m512 high = _mm512_mul_ps(alpha, _mm512_load_ps(sums + 16));
    if constexpr (Type == tensor::DType::kF32) {
      _mm512_stream_ps(reinterpret_cast<float*>(c), low);
      _mm512_stream_ps(reinterpret_cast<float*>(c) + 16, high);
    } else {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(c), to_bf16(low, high));
    }
  }
}

// The block of a result at row `row`, column `column`.
void store_result(const float* sums, std::int64_t rows, std::int64_t columns, const Result& result, std::int64_t row,
                  std::int64_t column) {
  const bool wide = result.dtype == tensor::DType::kF32;
  const bool add = result.accumulate == Accumulate::kYes;
  std::byte* c = result.data + (row * result.stride + column) * (wide ? 4 : 2);
  if (result.streams && columns == kPanelColumns) {
    wide ? stream_block<tensor::DType::kF32>(sums, rows, c, result.stride, result.alpha)
         : stream_block<tensor::DType::kBF16>(sums, rows, c, result.stride, result.alpha);
    return;
  }
  const auto store = wide ? (add ? store_block<tensor::DType::kF32, Accumulate::kYes>
                                 : store_block<tensor::DType::kF32, Accumulate::kNo>)
                          : (add ? store_block<tensor::DType::kBF16, Accumulate::kYes>
                                 : store_block<tensor::DType::kBF16, Accumulate::kNo>);
  store(sums, rows, columns, c, result.stride, result.alpha);
}

}  // namespace

Session::Session() {
  load_config();
}
Session::~Session() {
  release_config();
}

Left pack_left(const Stored& matrix, std::int64_t m, std::int64_t k, std::byte* buffer) {
  if (matrix.transpose == Transpose::kYes) {
    pack_left_transposed(matrix.data, matrix.stride, m, k, buffer);
  } else {
    pack_left_plain(matrix.data, matrix.stride, m, k, buffer);
  }
  return {.data = buffer,
          .row_bytes = 64,
          .tile_row_bytes = ceil_div(k, kTileDepth) * kTileBytes,
          .tile_column_bytes = kTileBytes};
}

Right pack_right(const Stored& matrix, std::int64_t k, std::int64_t n, std::byte* buffer, std::int64_t panel_bytes) {
  for (std::int64_t j = 0; j < n; j += kPanelColumns) {
    const Stored panel = matrix.from(0, j);
    std::byte* target = buffer + j / kPanelColumns * panel_bytes;
    if (matrix.transpose == Transpose::kYes) {
      pack_panel_transposed(panel.data, matrix.stride, k, n - j, target);
    } else {
      pack_panel_plain(panel.data, matrix.stride, k, n - j, target);
    }
  }
  return {buffer, panel_bytes};
}

void multiply(const Left& left, const Right& right, const Extent& extent, const Result& result, const MoreDepth& more) {
  alignas(64) float sums[kBlockSums];
  for (std::int64_t j = 0; j < extent.n; j += kPanelColumns) {
    const std::byte* panel = right.data + j / kPanelColumns * right.panel_bytes;
    const std::int64_t columns = std::min(kPanelColumns, extent.n - j);
    Part rows{left, ceil_div(extent.k, kTileDepth)};
    Part more_rows{more.left, ceil_div(more.k, kTileDepth)};
    for (std::int64_t i = 0; i < extent.m; i += kBlockRows) {
      const std::int64_t count = std::min(kBlockRows, extent.m - i);
      multiply_some(rows, more_rows, panel, count, columns, Accumulate::kNo, sums);
      store_result(sums, count, columns, result, i, j);
      rows.left.data += 2 * left.tile_row_bytes;
      more_rows.left.data += 2 * more.left.tile_row_bytes;
    }
  }
}

void add_to_sums(const Left& left, const Right& right, const Extent& extent, Accumulate accumulate, float* sums) {
  for (std::int64_t j = 0; j < extent.n; j += kPanelColumns) {
    const std::byte* panel = right.data + j / kPanelColumns * right.panel_bytes;
    Part rows{left, ceil_div(extent.k, kTileDepth)};
    for (std::int64_t i = 0; i < extent.m; i += kBlockRows, sums += kBlockSums) {
      multiply_some(rows, {}, panel, extent.m - i, extent.n - j, accumulate, sums);
      rows.left.data += 2 * left.tile_row_bytes;
    }
  }
}

void store_sums(const float* sums, std::int64_t m, std::int64_t n, const Result& result) {
  for (std::int64_t j = 0; j < n; j += kPanelColumns) {
    for (std::int64_t i = 0; i < m; i += kBlockRows, sums += kBlockSums) {
      store_result(sums, std::min(kBlockRows, m - i), std::min(kPanelColumns, n - j), result, i, j);
    }
  }
}

INSTRUCT_TILES void add_transposed(const float* source, std::int64_t source_stride, std::int64_t rows,
                                   std::int64_t columns, float* target, std::int64_t target_stride) {
  for (std::int64_t i = 0; i < rows; i += 16) {
    for (std::int64_t j = 0; j < columns; j += 16) {
      __m512i r[16];
      const auto mask = first_lanes<__mmask16>(columns - j);
      for (int row = 0; row < 16; ++row) {
        r[row] = _mm512_maskz_loadu_epi32(mask, source + (i + row) * source_stride + j);
      }
      transpose_16x16(r);
      for (int row = 0; row < std::min<std::int64_t>(16, columns - j); ++row) {
        float* to = target + (j + row) * target_stride + i;
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_castsi512_ps(r[row])));
      }
    }
  }
}

#else  // no tiles elsewhere: CpuFeatures says so, and nothing of this is called

namespace instruct::kernels::cpu::tiles {
Session::Session() {
  INSTRUCT_CHECK(false);
}
Session::~Session() = default;
Left pack_left(const Stored&, std::int64_t, std::int64_t, std::byte*) {
  INSTRUCT_CHECK(false);
  return {};
}
Right pack_right(const Stored&, std::int64_t, std::int64_t, std::byte*, std::int64_t) {
  INSTRUCT_CHECK(false);
  return {};
}
void multiply(const Left&, const Right&, const Extent&, const Result&, const MoreDepth&) {
  INSTRUCT_CHECK(false);
}
void add_to_sums(const Left&, const Right&, const Extent&, Accumulate, float*) {
  INSTRUCT_CHECK(false);
}
void store_sums(const float*, std::int64_t, std::int64_t, const Result&) {
  INSTRUCT_CHECK(false);
}
void add_transposed(const float*, std::int64_t, std::int64_t, std::int64_t, float*, std::int64_t) {
  INSTRUCT_CHECK(false);
}
#endif

Stored Stored::from(std::int64_t row, std::int64_t column) const {
  Stored moved = *this;
  moved.data += (transpose == Transpose::kYes ? column * stride + row : row * stride + column) * 2;
  return moved;
}

Left left_in_place(const Stored& matrix) {
  return {.data = matrix.data,
          .row_bytes = matrix.stride * 2,
          .tile_row_bytes = kTileRows * matrix.stride * 2,
          .tile_column_bytes = kTileDepth * 2};
}

std::int64_t packed_left_bytes(std::int64_t m, std::int64_t k) {
  return ceil_div(m, 2 * kTileRows) * 2 * ceil_div(k, kTileDepth) * kTileBytes;
}
std::int64_t packed_panel_bytes(std::int64_t k) {
  return ceil_div(k, kTileDepth) * 2 * kTileBytes;
}
Right right_from(const Right& right, std::int64_t k, std::int64_t n) {
  return {right.data + n / kPanelColumns * right.panel_bytes + k / kTileDepth * 2 * kTileBytes, right.panel_bytes};
}
std::int64_t sums_bytes(std::int64_t m, std::int64_t n) {
  return ceil_div(m, 2 * kTileRows) * ceil_div(n, kPanelColumns) * 2 * kTileRows * kPanelColumns * 4;
}
std::int64_t packed_right_bytes(std::int64_t k, std::int64_t n) {
  return ceil_div(n, kPanelColumns) * packed_panel_bytes(k);
}

}  // namespace instruct::kernels::cpu::tiles
