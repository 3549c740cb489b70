#include "kernels/cpu/few_rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"

#if defined(__x86_64__)
#include "kernels/cpu/tiles-inl.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

constexpr std::int64_t kMostGroupRows = 8;     // each has its sum in a register
constexpr std::int64_t kOutputs = 16;          // computed one after another, stored together
constexpr std::int64_t kStep = 32;             // k of a register
constexpr std::int64_t kMostRows = 32;         // tiles in registers are as fast from 48 on
constexpr std::int64_t kMostRowsOfAmx = 15;    // a tile's rows less one
constexpr std::int64_t kTaskBytes = 64 << 10;  // of the matrix
constexpr std::int64_t kAheadBytes = 8 << 10;  // to the second cache: the first has too few loads in flight

INSTRUCT_TILES inline __m512bh load(const std::byte* from) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
}
INSTRUCT_TILES inline __m512bh load_first(std::int64_t count, const std::byte* from) {
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(tiles::first_lanes<__mmask32>(count), from));
}

// sums[r] += the products of row r of x, interleaved, with `weights`, lane by lane.
template <int Count>
INSTRUCT_TILES inline void add_products(const std::byte* x, const std::byte* weights, std::int64_t k,
                                        __m512 (&sums)[kMostGroupRows]) {
  const auto add = [&](__m512bh step) INSTRUCT_TILES {
    for (int r = 0; r < Count; ++r) sums[r] = _mm512_dpbf16_ps(sums[r], step, load(x + r * kStep * 2));
  };
  for (; k >= kStep; k -= kStep, x += Count * kStep * 2, weights += kStep * 2) {
    _mm_prefetch(weights + kAheadBytes, _MM_HINT_T1);
    add(load(weights));
  }
  if (k > 0) add(load_first(k, weights));
}

// The sum of each of four registers.
INSTRUCT_TILES inline __m128 totals(const __m512* sums) {
  const __m512 first = _mm512_add_ps(_mm512_unpacklo_ps(sums[0], sums[1]), _mm512_unpackhi_ps(sums[0], sums[1]));
  const __m512 second = _mm512_add_ps(_mm512_unpacklo_ps(sums[2], sums[3]), _mm512_unpackhi_ps(sums[2], sums[3]));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(first), _mm512_castps_pd(second));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(first), _mm512_castps_pd(second));
  const __m512 lanes = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));  // of four sums each
  const __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

// c, `count` columns of one row.
INSTRUCT_TILES inline void store(__m512 values, const Matmul& product, std::int64_t count, std::byte* c) {
  const auto mask = tiles::first_lanes<__mmask16>(count);
  values = _mm512_mul_ps(values, _mm512_set1_ps(product.alpha));
  const bool adds = product.accumulate == Accumulate::kYes;
  if (product.c.dtype() == DType::kF32) {
    if (adds) values = _mm512_add_ps(values, _mm512_maskz_loadu_ps(mask, c));
    _mm512_mask_storeu_ps(c, mask, values);
    return;
  }
  if (adds) values = _mm512_add_ps(values, tiles::load_bf16(mask, c));
  _mm256_mask_storeu_epi16(c, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

// A left side in groups of rows; of each group the first kStep of k of all its rows, then the next, filled up with
// zeros.
struct Interleaved {
  const std::byte* data = nullptr;
  std::int64_t row_bytes = 0;
};

std::int64_t interleaved_row_bytes(const Tensor& x) {
  return x.defined() ? round_up(x.dim(1), kStep) * 2 : 0;
}

INSTRUCT_TILES Interleaved interleave(const Tensor& x, std::int64_t group_rows, std::byte* buffer) {
  const std::int64_t rows = x.dim(0);
  const std::int64_t k = x.dim(1);
  const std::int64_t row_bytes = interleaved_row_bytes(x);
  for (std::int64_t first = 0; first < rows; first += group_rows) {
    const std::int64_t count = std::min(group_rows, rows - first);
    for (std::int64_t r = 0; r < count; ++r) {
      const std::byte* from = x.raw() + (first + r) * x.row_stride() * 2;
      std::byte* to = buffer + first * row_bytes + r * kStep * 2;
      for (std::int64_t at = 0; at < k; at += kStep, to += count * kStep * 2)
        _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(tiles::first_lanes<__mmask32>(k - at), from + at * 2));
    }
  }
  return {buffer, row_bytes};
}

struct PreparedProduct {
  const Matmul& product;
  Interleaved a, low_a;
};

const std::byte* row_of(const Tensor& matrix, std::int64_t row) {
  return matrix.raw() + row * matrix.row_stride() * 2;
}

// `Count` rows of the result from `row` and kOutputs columns from `column`, as far as there are so many.
template <int Count>
INSTRUCT_TILES void multiply_group(const PreparedProduct& prepared, std::int64_t row, std::int64_t column) {
  const Matmul& product = prepared.product;
  const std::byte* a = prepared.a.data + row * prepared.a.row_bytes;
  const std::byte* low_a = prepared.low_a.data + row * prepared.low_a.row_bytes;
  const std::int64_t outputs = std::min(kOutputs, product.c.dim(1) - column);
  __m512i results[kOutputs] = {};  // [outputs][rows], then transposed
  for (std::int64_t o = 0; o < outputs; ++o) {
    __m512 sums[kMostGroupRows] = {};
    add_products<Count>(a, row_of(product.b, column + o), product.b.dim(1), sums);
    if (product.low_a.defined())
      add_products<Count>(low_a, row_of(product.low_b, column + o), product.low_b.dim(1), sums);
    for (int r = 0; r < Count; r += 4) _mm_store_ps(reinterpret_cast<float*>(&results[o]) + r, totals(sums + r));
  }
  tiles::transpose_16x16(results);
  const std::int64_t element = tensor::info(product.c.dtype()).block_bytes;
  const std::int64_t stride = product.c.row_stride() * element;
  std::byte* c = const_cast<std::byte*>(product.c.raw()) + row * stride + column * element;
  for (int r = 0; r < Count; ++r) store(_mm512_castsi512_ps(results[r]), product, outputs, c + r * stride);
}

using Group = void (*)(const PreparedProduct&, std::int64_t row, std::int64_t column);
template <std::size_t... Index>
constexpr std::array<Group, kMostGroupRows> groups_of(std::index_sequence<Index...>) {
  return {multiply_group<static_cast<int>(Index + 1)>...};
}
constexpr auto kGroups = groups_of(std::make_index_sequence<std::size_t{kMostGroupRows}>());

}  // namespace

bool suits_few_rows(const Matmul& product, tiles::Unit unit) {
  const std::int64_t most = unit == tiles::Unit::kAmx ? kMostRowsOfAmx : kMostRows;
  return unit != tiles::Unit::kNone && product.a.dtype() == DType::kBF16 && product.transpose_a == Transpose::kNo &&
         product.transpose_b == Transpose::kYes && product.c.dim(0) <= most;
}

void few_rows_matmul(Stream& stream, const Matmul& product) {
  const std::int64_t rows = product.c.dim(0);
  const std::int64_t group_rows = ceil_div(rows, ceil_div(rows, kMostGroupRows));
  const std::int64_t a_bytes = rows * interleaved_row_bytes(product.a);
  const auto storage = stream.allocator.allocate(a_bytes + rows * interleaved_row_bytes(product.low_a));
  PreparedProduct prepared{.product = product, .a = interleave(product.a, group_rows, storage->data), .low_a = {}};
  if (product.low_a.defined()) prepared.low_a = interleave(product.low_a, group_rows, storage->data + a_bytes);
  const std::int64_t grain = round_up(std::max<std::int64_t>(1, kTaskBytes / (product.a.dim(1) * 2)), kOutputs);
  stream.threads.run_ranges(product.c.dim(1), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t column = begin; column < end; column += kOutputs) {
      for (std::int64_t row = 0; row < rows; row += group_rows)
        kGroups[static_cast<std::size_t>(std::min(group_rows, rows - row) - 1)](prepared, row, column);
    }
  });
}

}  // namespace instruct::kernels::cpu

#else

namespace instruct::kernels::cpu {
bool suits_few_rows(const Matmul&, tiles::Unit) {
  return false;
}
void few_rows_matmul(Stream&, const Matmul&) {
  INSTRUCT_CHECK(false);
}
}  // namespace instruct::kernels::cpu
#endif
