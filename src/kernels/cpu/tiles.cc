#include "kernels/cpu/tiles.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

#if defined(__x86_64__)
#include "kernels/cpu/tiles-inl.h"

namespace instruct::kernels::cpu::tiles {
namespace {

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
  _tile_release();
}

std::byte* tile_of(const Left& left, std::int64_t row, std::int64_t column) {
  return const_cast<std::byte*>(left_from(left, row, column).data);
}

INSTRUCT_TILES void pack_left_plain(const std::byte* a, std::int64_t stride, std::int64_t m, std::int64_t k,
                                    const Left& target) {
  for (std::int64_t i = 0; i < m; i += kTileRows) {
    for (std::int64_t t = 0; t < k; t += kTileDepth) {
      __m512i r[16];
      load_rows(a + (i * stride + t) * 2, stride * 2, m - i, k - t, r);
      store_tile(r, tile_of(target, i, t));
    }
  }
}

// a is stored [k, m]: pairs of its rows are interleaved to 32-bit values (k, k + 1) of each m, and those transposed.
INSTRUCT_TILES void pack_left_transposed(const std::byte* a, std::int64_t stride, std::int64_t m, std::int64_t k,
                                         const Left& target) {
  for (std::int64_t i = 0; i < m; i += 2 * kTileRows) {
    for (std::int64_t t = 0; t < k; t += kTileDepth) {
      __m512i low[16];
      __m512i high[16];
      load_pairs(a + (t * stride + i) * 2, stride * 2, k - t, m - i, low, high);
      transpose_16x16(low);
      store_tile(low, tile_of(target, i, t));
      if (i + kTileRows >= m) continue;
      transpose_16x16(high);
      store_tile(high, tile_of(target, i + kTileRows, t));
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

constexpr std::int64_t kAheadBytes = 512;  // the processor's own prefetching does not follow 32 rows at once

// b is stored [n, k]: 16 rows of 16 pairs each become 16 pairs of 16 columns.
INSTRUCT_TILES void pack_panel_transposed(const std::byte* b, std::int64_t stride, std::int64_t k, std::int64_t columns,
                                          std::byte* buffer) {
  for (std::int64_t t = 0; t < k; t += kTileDepth, buffer += kPanelStepBytes) {
    for (std::int64_t half = 0; half < 2; ++half) {
      __m512i r[16];
      const std::byte* rows = b + (half * kTileRows * stride + t) * 2;
      for (int i = 0; i < 16; ++i) _mm_prefetch(rows + i * stride * 2 + kAheadBytes, _MM_HINT_T0);
      load_rows(rows, stride * 2, columns - half * kTileRows, k - t, r);
      transpose_16x16(r);
      store_tile(r, buffer + half * kTileBytes);
    }
  }
}

constexpr std::int64_t kRegisterRows = 8;  // by 32 columns: half of the registers

INSTRUCT_TILES inline __m512bh as_bf16(__m512i bits) {
  return reinterpret_cast<__m512bh>(bits);
}

// Adds kRegisterRows rows of the left side, from `row`, times one panel.
template <int Columns>
INSTRUCT_TILES inline void add_rows(const Part& part, std::int64_t row, const std::byte* panel,
                                    __m512 (&sums)[kRegisterRows][2]) {
  const Left& left = part.left;
  const std::byte* rows = left.data + row / kTileRows * left.tile_row_bytes + row % kTileRows * left.row_bytes;
  const auto add_pairs = [&](std::int64_t pairs) INSTRUCT_TILES {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      __m512bh weights[2];
      for (int c = 0; c < Columns; ++c) weights[c] = as_bf16(_mm512_loadu_si512(panel + c * kTileBytes + pair * 64));
      for (std::int64_t r = 0; r < kRegisterRows; ++r) {
        int both = 0;
        std::memcpy(&both, rows + r * left.row_bytes + pair * 4, sizeof(both));
        for (int c = 0; c < Columns; ++c)
          sums[r][c] = _mm512_dpbf16_ps(sums[r][c], as_bf16(_mm512_set1_epi32(both)), weights[c]);
      }
    }
  };
  for (std::int64_t k = part.k; k > 0; k -= kTileDepth, rows += left.tile_column_bytes, panel += kPanelStepBytes) {
    if (k >= kTileDepth) {
      add_pairs(kTileDepth / 2);
    } else {
      add_pairs(ceil_div(k, 2));
    }
  }
}

// kRegisterRows rows of multiply_block, from `row`; Columns counts vectors of 16.
template <int Columns>
INSTRUCT_TILES void multiply_rows(const Part& part, const Part& more, std::int64_t row, const std::byte* panel,
                                  Accumulate accumulate, float* sums) {
  __m512 registers[kRegisterRows][2];
  for (std::int64_t r = 0; r < kRegisterRows; ++r) {
    for (int c = 0; c < Columns; ++c) {
      registers[r][c] =
          accumulate == Accumulate::kYes ? _mm512_load_ps(sums + r * kPanelColumns + c * 16) : _mm512_setzero_ps();
    }
  }
  add_rows<Columns>(part, row, panel, registers);
  if (more.k > 0) add_rows<Columns>(more, row, panel + part.depth() * kPanelStepBytes, registers);
  for (std::int64_t r = 0; r < kRegisterRows; ++r) {
    for (int c = 0; c < Columns; ++c) _mm512_store_ps(sums + r * kPanelColumns + c * 16, registers[r][c]);
  }
}

// The block for what is left of rows and columns.
void multiply_some(const Part& part, const Part& more, const std::byte* panel, std::int64_t rows, std::int64_t columns,
                   Accumulate accumulate, float* sums) {
  if (rows > kTileRows) {
    columns > 16 ? multiply_block<2, 2>(part, panel, accumulate, sums, more)
                 : multiply_block<2, 1>(part, panel, accumulate, sums, more);
  } else {
    columns > 16 ? multiply_block<1, 2>(part, panel, accumulate, sums, more)
                 : multiply_block<1, 1>(part, panel, accumulate, sums, more);
  }
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

void multiply_block_in_registers(std::int64_t rows, std::int64_t columns, const Part& part, const Part& more,
                                 const std::byte* panel, Accumulate accumulate, float* sums) {
  for (std::int64_t row = 0; row < rows; row += kRegisterRows, sums += kRegisterRows * kPanelColumns) {
    columns == kPanelColumns ? multiply_rows<2>(part, more, row, panel, accumulate, sums)
                             : multiply_rows<1>(part, more, row, panel, accumulate, sums);
  }
}

thread_local constinit Unit Session::unit = Unit::kNone;

Session::Session(Unit which) {
  unit = which;
  if (which == Unit::kAmx) load_config();
}
Session::~Session() {
  _mm_sfence();  // streamed results are seen by whoever learns that this thread is done
  if (unit == Unit::kAmx) release_config();
  unit = Unit::kNone;
}

void pack_left(const Stored& matrix, std::int64_t m, std::int64_t k, const Left& target) {
  if (matrix.transpose == Transpose::kYes) {
    pack_left_transposed(matrix.data, matrix.stride, m, k, target);
  } else {
    pack_left_plain(matrix.data, matrix.stride, m, k, target);
  }
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
    Part rows{left, extent.k};
    Part more_rows{more.left, more.k};
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
    Part rows{left, extent.k};
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

#else  // no tiles elsewhere: CpuFeatures says so, and nothing of this is called

namespace instruct::kernels::cpu::tiles {
thread_local constinit Unit Session::unit = Unit::kNone;
Session::Session(Unit) {
  INSTRUCT_CHECK(false);
}
Session::~Session() = default;
void pack_left(const Stored&, std::int64_t, std::int64_t, const Left&) {
  INSTRUCT_CHECK(false);
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

Left packed_left(std::int64_t k, std::byte* buffer) {
  return {.data = buffer,
          .row_bytes = 64,
          .tile_row_bytes = ceil_div(k, kTileDepth) * kTileBytes,
          .tile_column_bytes = kTileBytes};
}
Left pack_left(const Stored& matrix, std::int64_t m, std::int64_t k, std::byte* buffer) {
  const Left target = packed_left(k, buffer);
  pack_left(matrix, m, k, target);
  return target;
}
std::int64_t packed_left_bytes(std::int64_t m, std::int64_t k) {
  return ceil_div(m, 2 * kTileRows) * 2 * ceil_div(k, kTileDepth) * kTileBytes;
}
std::int64_t packed_panel_bytes(std::int64_t k) {
  return ceil_div(k, kTileDepth) * 2 * kTileBytes;
}
std::int64_t sums_bytes(std::int64_t m, std::int64_t n) {
  return ceil_div(m, 2 * kTileRows) * ceil_div(n, kPanelColumns) * 2 * kTileRows * kPanelColumns * 4;
}
std::int64_t packed_right_bytes(std::int64_t k, std::int64_t n) {
  return ceil_div(n, kPanelColumns) * packed_panel_bytes(k);
}

}  // namespace instruct::kernels::cpu::tiles
