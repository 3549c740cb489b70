#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

#if defined(__x86_64__)
#include "kernels/cpu/tiles-inl.h"

namespace instruct::kernels::cpu::tiles {
namespace {

constexpr float kLog2E = 1.44269504F;

// One key's values of the 32 queries of a panel.
struct Lanes {
  __m512 low;
  __m512 high;
};

INSTRUCT_TILES inline Lanes all_lanes(float value) {
  return {_mm512_set1_ps(value), _mm512_set1_ps(value)};
}
INSTRUCT_TILES inline Lanes load_lanes(const float* from) {
  return {_mm512_load_ps(from), _mm512_load_ps(from + 16)};
}
INSTRUCT_TILES inline void store_lanes(float* to, Lanes lanes) {
  _mm512_store_ps(to, lanes.low);
  _mm512_store_ps(to + 16, lanes.high);
}

// 2^x: the nearest whole power times 2^r, |r| <= 1/2, by the polynomial of degree 5 with the least relative error of
// those that are 1 at 0 (9e-8; 1.6e-7 with the rounding of f32). 2^-infinity is 0; NaN stays NaN.
INSTRUCT_TILES inline __m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(0.00132647273F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00967151299F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0555073358F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240222424F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693147004F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, whole);  // p is NaN when x is infinite; the instruction has 2^-infinity = 0 all the same
}

// 32 values of two registers, in order, as bf16 rounded to nearest even.
INSTRUCT_TILES inline __m512i to_bf16(__m512 first, __m512 second) {
  const __m512bh rounded = _mm512_cvtne2ps_pbh(second, first);
  __m512i bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

// 16 pairs of bf16: first[i] below second[i].
INSTRUCT_TILES inline __m512i to_bf16_pairs(__m512 first, __m512 second) {
  alignas(64) static constexpr std::int16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), to_bf16(first, second));
}

// The queries of a panel that see `column`, a bit each.
std::uint32_t queries_that_see(const View& view, std::int64_t column) {
  const std::int64_t first = std::clamp<std::int64_t>(column - view.position, 0, kPanelQueries);
  const std::int64_t last = view.window > 0 ? std::min(view.count, column - view.position + view.window) : view.count;
  return first_lanes<std::uint32_t>(last) & ~first_lanes<std::uint32_t>(first);
}

struct LaneMasks {
  __mmask16 low;
  __mmask16 high;
};
LaneMasks masks_of(const View& view, std::int64_t column) {
  const std::uint32_t mask = queries_that_see(view, column);
  return {static_cast<__mmask16>(mask & 0xffff), static_cast<__mmask16>(mask >> 16)};
}

// The part of `columns` that all 32 lanes of a panel see, in pairs of columns.
Columns seen_by_all(const View& view, const Columns& columns) {
  const std::int64_t begin =
      view.window > 0 ? std::max<std::int64_t>(0, view.position + kPanelQueries - view.window) : 0;
  Columns all{.begin = std::clamp((begin + 1) / 2 * 2, columns.begin, columns.end),
              .end = std::clamp((view.position + 1) / 2 * 2, columns.begin, columns.end)};
  if (view.count < kPanelQueries || all.end <= all.begin) all = {columns.begin, columns.begin};
  return all;
}

// Panel number `panel` of a block of queries.
View panel_of(const View& view, std::int64_t panel) {
  const std::int64_t first = panel * kPanelQueries;
  return {view.position + first, std::min(kPanelQueries, view.count - first), view.window};
}

// `scores` start at the first of the columns, in what follows.
template <bool Masked>
INSTRUCT_TILES inline Lanes maximum_of(const float* scores, const Columns& columns, const View& view, Lanes most) {
  for (std::int64_t c = columns.begin; c < columns.end; ++c, scores += kPanelQueries) {
    const Lanes value = load_lanes(scores);  // the second operand of max is kept where the first is NaN
    if constexpr (Masked) {
      const LaneMasks seen = masks_of(view, c);
      most.low = _mm512_mask_max_ps(most.low, seen.low, value.low, most.low);
      most.high = _mm512_mask_max_ps(most.high, seen.high, value.high, most.high);
    } else {
      most = {_mm512_max_ps(value.low, most.low), _mm512_max_ps(value.high, most.high)};
    }
  }
  return most;
}

INSTRUCT_TILES Lanes maximum(const float* scores, const Columns& columns, const View& view, Lanes most) {
  const Columns all = seen_by_all(view, columns);
  most = maximum_of<true>(scores, {columns.begin, all.begin}, view, most);
  most = maximum_of<false>(scores + (all.begin - columns.begin) * kPanelQueries, all, view, most);
  return maximum_of<true>(scores + (all.end - columns.begin) * kPanelQueries, {all.end, columns.end}, view, most);
}

// A factor to the base 2 instead of e, and what to take off: exp(scale * (score - most)) = 2^(factor * score - shift).
struct Exponent {
  __m512 factor;
  Lanes shift;
};

template <bool Masked>
INSTRUCT_TILES inline Lanes exponentials_at(const float* scores, const Exponent& exponent, LaneMasks seen) {
  const Lanes score = load_lanes(scores);
  Lanes e{exp2(_mm512_fmsub_ps(score.low, exponent.factor, exponent.shift.low)),
          exp2(_mm512_fmsub_ps(score.high, exponent.factor, exponent.shift.high))};
  if constexpr (Masked) e = {_mm512_maskz_mov_ps(seen.low, e.low), _mm512_maskz_mov_ps(seen.high, e.high)};
  return e;
}

// Exponentials of scores as the right side of a product, [columns, 32 queries], added to `total`. `first` is the
// column at which `scores` and `packed` start.
template <bool Masked>
INSTRUCT_TILES inline Lanes exponentials_of(const float* scores, const Columns& columns, std::int64_t first,
                                            const View& view, const Exponent& exponent, std::byte* packed,
                                            Lanes total) {
  for (std::int64_t c = columns.begin; c < columns.end; c += 2) {
    const std::int64_t row = c - first;
    const float* at = scores + row * kPanelQueries;
    const Lanes even = exponentials_at<Masked>(at, exponent, masks_of(view, c));
    const Lanes odd = exponentials_at<Masked>(at + kPanelQueries, exponent, masks_of(view, c + 1));
    total = {_mm512_add_ps(_mm512_add_ps(total.low, even.low), odd.low),
             _mm512_add_ps(_mm512_add_ps(total.high, even.high), odd.high)};
    std::byte* pairs = packed + row / kTileDepth * kPanelStepBytes + row % kTileDepth / 2 * 64;
    _mm512_store_si512(pairs, to_bf16_pairs(even.low, odd.low));
    _mm512_store_si512(pairs + kTileBytes, to_bf16_pairs(even.high, odd.high));
  }
  return total;
}

INSTRUCT_TILES Lanes exponentials(const float* scores, const Columns& columns, const View& view,
                                  const Exponent& exponent, std::byte* packed, Lanes total) {
  const Columns all = seen_by_all(view, columns);
  const std::int64_t first = columns.begin;
  total = exponentials_of<true>(scores, {first, all.begin}, first, view, exponent, packed, total);
  total = exponentials_of<false>(scores, all, first, view, exponent, packed, total);
  return exponentials_of<true>(scores, {all.end, columns.end}, first, view, exponent, packed, total);
}

// sums [rows, 32] (+)= left [rows, k] * one panel; rows and k are multiples of 32.
INSTRUCT_TILES inline void multiply_panel(Left left, std::int64_t rows, const std::byte* panel, std::int64_t k,
                                          Accumulate accumulate, float* sums) {
  for (std::int64_t r = 0; r < rows; r += kBlockRows, left.data += 2 * left.tile_row_bytes, sums += kBlockSums) {
    multiply_block<2, 2>(left, panel, k / kTileDepth, accumulate, sums);
  }
}

INSTRUCT_TILES void scale_rows(float* sums, std::int64_t rows, Lanes factor) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelQueries) {
    const Lanes row = load_lanes(sums);
    store_lanes(sums, {_mm512_mul_ps(row.low, factor.low), _mm512_mul_ps(row.high, factor.high)});
  }
}

// The panel's rows of a head from sums [width, 32 queries], each query times its factor.
INSTRUCT_TILES void store_transposed(const float* sums, std::int64_t width, Lanes factor, const HeadTarget& target,
                                     std::int64_t count) {
  for (std::int64_t w = 0; w < width; w += 32) {
    __m512i low[16];
    __m512i high[16];
    for (std::int64_t i = 0; i < 16; ++i) {
      const Lanes even = load_lanes(sums + (w + 2 * i) * kPanelQueries);
      const Lanes odd = load_lanes(sums + (w + 2 * i + 1) * kPanelQueries);
      low[i] = to_bf16_pairs(_mm512_mul_ps(even.low, factor.low), _mm512_mul_ps(odd.low, factor.low));
      high[i] = to_bf16_pairs(_mm512_mul_ps(even.high, factor.high), _mm512_mul_ps(odd.high, factor.high));
    }
    transpose_16x16(low);
    transpose_16x16(high);
    std::byte* to = target.data + w * 2;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(16, count); ++i, to += target.stride * 2)
      _mm512_storeu_si512(to, low[i]);
    for (std::int64_t i = 16; i < count; ++i, to += target.stride * 2) _mm512_storeu_si512(to, high[i - 16]);
  }
}

// most * factor; 0 for a query that has seen no key yet, whose exponentials must not be NaN.
INSTRUCT_TILES inline Lanes shift_of(Lanes most, __m512 factor) {
  const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  return {_mm512_maskz_mul_ps(_mm512_cmp_ps_mask(most.low, nothing, _CMP_NEQ_UQ), most.low, factor),
          _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(most.high, nothing, _CMP_NEQ_UQ), most.high, factor)};
}

INSTRUCT_TILES void store_log_sums(const ForwardPanel& panel, Lanes most, Lanes total) {
  alignas(64) float largest[kPanelQueries];
  alignas(64) float sums[kPanelQueries];
  store_lanes(largest, most);
  store_lanes(sums, total);
  for (std::int64_t i = 0; i < panel.view.count; ++i) {
    panel.log_sum[i * panel.log_sum_stride] = panel.scale * largest[i] + std::log(sums[i]);
  }
}

Right packed_queries(const HeadRows& rows, std::int64_t width, std::int64_t count, std::byte* buffer) {
  return pack_right({rows.data, rows.stride, Transpose::kYes}, width, count, buffer, packed_panel_bytes(width));
}

}  // namespace

std::int64_t forward_scratch_bytes(std::int64_t width) {
  return kForwardKeys * kPanelQueries * (4 + 2) + width * kPanelQueries * (4 + 2);
}

INSTRUCT_TILES void forward_panel(const ForwardPanel& panel) {
  auto* scores = reinterpret_cast<float*>(panel.scratch);
  float* sums = scores + kForwardKeys * kPanelQueries;
  auto* probabilities = reinterpret_cast<std::byte*>(sums + panel.width * kPanelQueries);
  std::byte* queries = probabilities + kForwardKeys * kPanelQueries * 2;
  packed_queries(panel.queries, panel.width, panel.view.count, queries);
  const __m512 factor = _mm512_set1_ps(panel.scale * kLog2E);
  Lanes most = all_lanes(-std::numeric_limits<float>::infinity());
  Lanes total = all_lanes(0.0F);
  const Columns columns = seen_by_any(panel.view);
  for (Columns part{.begin = columns.begin}; part.begin < columns.end; part.begin = part.end) {
    part.end = std::min(columns.end, (part.begin / kForwardKeys + 1) * kForwardKeys);
    const std::int64_t keys = part.end - part.begin;
    multiply_panel(left_from(panel.keys, part.begin, 0), keys, queries, panel.width, Accumulate::kNo, scores);
    const Lanes before = most;
    most = maximum(scores, part, panel.view, most);
    const Exponent exponent{factor, shift_of(most, factor)};
    const bool first = part.begin == columns.begin;
    if (!first) {
      const Lanes correction{exp2(_mm512_fmsub_ps(before.low, factor, exponent.shift.low)),
                             exp2(_mm512_fmsub_ps(before.high, factor, exponent.shift.high))};
      scale_rows(sums, panel.width, correction);
      total = {_mm512_mul_ps(total.low, correction.low), _mm512_mul_ps(total.high, correction.high)};
    }
    total = exponentials(scores, part, panel.view, exponent, probabilities, total);
    multiply_panel(left_from(panel.values_transposed, 0, part.begin), panel.width, probabilities, keys,
                   first ? Accumulate::kNo : Accumulate::kYes, sums);
  }
  const __m512 one = _mm512_set1_ps(1.0F);
  store_transposed(sums, panel.width, {_mm512_div_ps(one, total.low), _mm512_div_ps(one, total.high)}, panel.output,
                   panel.view.count);
  store_log_sums(panel, most, total);
}

namespace {

constexpr std::int64_t kBlockQueries = kBackwardPanels * kPanelQueries;

// The scratch of backward_block, cut up.
struct BackwardScratch {
  BackwardScratch(std::byte* buffer, std::int64_t width);

  std::int64_t panel_bytes;   // of queries and doutputs
  std::byte* queries;         // [width, 128], packed
  std::byte* doutputs;        // the same
  Right queries_plain;        // [128, width], packed
  Right doutputs_plain;       // the same
  Left probabilities;         // [32 keys, 128]
  Left dscores;               // the same
  std::byte* dscores_packed;  // per panel [128 keys, 32], packed
  float* scores;              // [32 keys, 32]
  float* dprobabilities;      // the same
  float* dqueries;            // per panel [width, 32]
  float* shifts;              // [128]
  float* deltas;              // the same
  std::int64_t bytes = 0;
};

constexpr std::int64_t kPackedScoreBytes = kBackwardKeys * kPanelQueries * 2;

BackwardScratch::BackwardScratch(std::byte* buffer, std::int64_t width) : panel_bytes(packed_panel_bytes(width)) {
  const auto take = [&](std::int64_t count) {
    std::byte* taken = buffer == nullptr ? nullptr : buffer + bytes;
    bytes += count;
    return taken;
  };
  const auto take_floats = [&](std::int64_t count) { return reinterpret_cast<float*>(take(count * 4)); };
  queries = take(kBackwardPanels * panel_bytes);
  doutputs = take(kBackwardPanels * panel_bytes);
  queries_plain = {take(packed_right_bytes(kBlockQueries, width)), packed_panel_bytes(kBlockQueries)};
  doutputs_plain = {take(packed_right_bytes(kBlockQueries, width)), packed_panel_bytes(kBlockQueries)};
  probabilities = packed_left(kBlockQueries, take(packed_left_bytes(kBlockRows, kBlockQueries)));
  dscores = packed_left(kBlockQueries, take(packed_left_bytes(kBlockRows, kBlockQueries)));
  dscores_packed = take(kBackwardPanels * kPackedScoreBytes);
  scores = take_floats(kBlockSums);
  dprobabilities = take_floats(kBlockSums);
  dqueries = take_floats(width * kBlockQueries);
  shifts = take_floats(kBlockQueries);
  deltas = take_floats(kBlockQueries);
}

INSTRUCT_TILES inline __m512 widen(const std::byte* from) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}

INSTRUCT_TILES inline float dot_of_row(const std::byte* a, const std::byte* b, std::int64_t width) {
  __m512 first = _mm512_setzero_ps();
  __m512 second = _mm512_setzero_ps();
  for (std::int64_t i = 0; i < width; i += 32) {
    first = _mm512_fmadd_ps(widen(a + i * 2), widen(b + i * 2), first);
    second = _mm512_fmadd_ps(widen(a + i * 2 + 32), widen(b + i * 2 + 32), second);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(first, second));
}

// What the gradient of the softmax needs of each query: log_sum to the base 2, and scale * dot(doutput, output).
INSTRUCT_TILES void prepare_rows(const BackwardBlock& block, const BackwardScratch& scratch) {
  for (std::int64_t i = 0; i < ceil_div(block.view.count, kPanelQueries) * kPanelQueries; ++i) {
    const bool real = i < block.view.count;
    scratch.shifts[i] = real ? block.log_sum[i * block.log_sum_stride] * kLog2E : 0.0F;
    scratch.deltas[i] = real ? block.scale * dot_of_row(block.doutput.data + i * block.doutput.stride * 2,
                                                        block.output.data + i * block.output.stride * 2, block.width)
                             : 0.0F;
  }
}

void pack_rows(const HeadRows& rows, std::int64_t width, std::int64_t count, std::byte* transposed,
               const Right& plain) {
  pack_right({rows.data, rows.stride, Transpose::kYes}, width, count, transposed, packed_panel_bytes(width));
  pack_right({rows.data, rows.stride}, count, width, const_cast<std::byte*>(plain.data), plain.panel_bytes);
}

// Where the results of 32 keys and one panel go.
struct PanelOutputs {
  std::byte* probabilities;  // two tiles below each other, `tile_row_bytes` apart
  std::byte* dscores;
  std::int64_t tile_row_bytes;
  std::byte* dscores_packed;  // two tiles beside each other
};

struct RowGradient {
  __m512i probabilities;
  __m512i dscores;
};

// p = 2^(factor * score - shift) and p * (scale * dprobability - delta) of one key.
template <bool Masked>
INSTRUCT_TILES inline RowGradient gradient_of_row(const float* scores, const float* dprobabilities,
                                                  const Exponent& exponent, __m512 scale, Lanes delta, LaneMasks seen) {
  const Lanes p = exponentials_at<Masked>(scores, exponent, seen);
  const Lanes dp = load_lanes(dprobabilities);
  const Lanes centred{_mm512_fmsub_ps(dp.low, scale, delta.low), _mm512_fmsub_ps(dp.high, scale, delta.high)};
  Lanes ds;
  if constexpr (Masked) {
    ds = {_mm512_maskz_mul_ps(seen.low, p.low, centred.low), _mm512_maskz_mul_ps(seen.high, p.high, centred.high)};
  } else {
    ds = {_mm512_mul_ps(p.low, centred.low), _mm512_mul_ps(p.high, centred.high)};
  }
  return {to_bf16(p.low, p.high), to_bf16(ds.low, ds.high)};
}

// The gradient of the softmax for 32 keys from `column` on and one panel.
template <bool Masked>
INSTRUCT_TILES void gradient_of_keys(const BackwardScratch& scratch, const View& view, std::int64_t column,
                                     const Exponent& exponent, float scale, Lanes delta, const PanelOutputs& outputs) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::int64_t i = 0; i < 16; ++i) {
    const float* scores = scratch.scores + 2 * i * kPanelQueries;
    const float* dprobabilities = scratch.dprobabilities + 2 * i * kPanelQueries;
    const RowGradient even =
        gradient_of_row<Masked>(scores, dprobabilities, exponent, factor, delta, masks_of(view, column + 2 * i));
    const RowGradient odd = gradient_of_row<Masked>(scores + kPanelQueries, dprobabilities + kPanelQueries, exponent,
                                                    factor, delta, masks_of(view, column + 2 * i + 1));
    const std::int64_t at = i / 8 * outputs.tile_row_bytes + i % 8 * 128;
    _mm512_store_si512(outputs.probabilities + at, even.probabilities);
    _mm512_store_si512(outputs.probabilities + at + 64, odd.probabilities);
    _mm512_store_si512(outputs.dscores + at, even.dscores);
    _mm512_store_si512(outputs.dscores + at + 64, odd.dscores);
    __m512i low;
    __m512i high;
    interleave(even.dscores, odd.dscores, low, high);
    _mm512_store_si512(outputs.dscores_packed + i * 64, low);
    _mm512_store_si512(outputs.dscores_packed + kTileBytes + i * 64, high);
  }
}

// 32 keys and one panel: scores, gradients of the probabilities, and what the three products over them read.
INSTRUCT_TILES void keys_and_panel(const BackwardBlock& block, const BackwardScratch& scratch, std::int64_t column,
                                   std::int64_t panel) {
  const std::int64_t depth = block.width / kTileDepth;
  multiply_block<2, 2>(left_from(block.keys, column, 0), scratch.queries + panel * scratch.panel_bytes, depth,
                       Accumulate::kNo, scratch.scores);
  multiply_block<2, 2>(left_from(block.values, column, 0), scratch.doutputs + panel * scratch.panel_bytes, depth,
                       Accumulate::kNo, scratch.dprobabilities);
  const View view = panel_of(block.view, panel);
  const Exponent exponent{_mm512_set1_ps(block.scale * kLog2E), load_lanes(scratch.shifts + panel * kPanelQueries)};
  const Lanes delta = load_lanes(scratch.deltas + panel * kPanelQueries);
  const PanelOutputs outputs{
      .probabilities = const_cast<std::byte*>(left_from(scratch.probabilities, 0, panel * kPanelQueries).data),
      .dscores = const_cast<std::byte*>(left_from(scratch.dscores, 0, panel * kPanelQueries).data),
      .tile_row_bytes = scratch.dscores.tile_row_bytes,
      .dscores_packed =
          scratch.dscores_packed + panel * kPackedScoreBytes + column % kBackwardKeys / kTileDepth * kPanelStepBytes};
  const Columns strip{column, column + kTileDepth};
  const Columns all = seen_by_all(view, strip);
  if (all.begin == strip.begin && all.end == strip.end) {
    gradient_of_keys<false>(scratch, view, column, exponent, block.scale, delta, outputs);
  } else {
    gradient_of_keys<true>(scratch, view, column, exponent, block.scale, delta, outputs);
  }
}

// The panels of the block [begin, end) that see some of 32 keys.
Columns panels_that_see(const View& view, std::int64_t column) {
  const std::int64_t panels = ceil_div(view.count, kPanelQueries);
  Columns seeing{.begin = 0, .end = panels};
  while (seeing.begin < panels && seen_by_any(panel_of(view, seeing.begin)).end <= column) ++seeing.begin;
  while (seeing.end > seeing.begin && seen_by_any(panel_of(view, seeing.end - 1)).begin > column) --seeing.end;
  return seeing;
}

// 32 keys and all panels, up to the gradients of these keys and values.
INSTRUCT_TILES void keys_and_block(const BackwardBlock& block, const BackwardScratch& scratch, std::int64_t column) {
  const Columns panels = panels_that_see(block.view, column);
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) keys_and_panel(block, scratch, column, panel);
  const std::int64_t first = panels.begin * kPanelQueries;
  const std::int64_t depth = panels.end - panels.begin;
  for (std::int64_t w = 0; w < block.width; w += kPanelColumns) {
    const std::int64_t at = column * block.width + w * kTileDepth;
    multiply_block<2, 2>(left_from(scratch.probabilities, 0, first), right_from(scratch.doutputs_plain, first, w).data,
                         depth, Accumulate::kYes, block.dvalues + at);
    multiply_block<2, 2>(left_from(scratch.dscores, 0, first), right_from(scratch.queries_plain, first, w).data, depth,
                         Accumulate::kYes, block.dkeys + at);
  }
}

}  // namespace

std::int64_t key_sums_bytes(std::int64_t columns, std::int64_t width) {
  return columns * width * 4;
}

INSTRUCT_TILES void move_key_sums(float* sums, std::int64_t first, std::int64_t count, std::int64_t width,
                                  float* target) {
  for (std::int64_t c = first; c < first + count; ++c) {
    float* row = sums + c / kBlockRows * kBlockRows * width + c % kBlockRows * kPanelColumns;
    for (std::int64_t w = 0; w < width; w += kPanelColumns, row += kBlockSums, target += kPanelColumns) {
      const Lanes sum = load_lanes(row);
      _mm512_storeu_ps(target, _mm512_add_ps(_mm512_loadu_ps(target), sum.low));
      _mm512_storeu_ps(target + 16, _mm512_add_ps(_mm512_loadu_ps(target + 16), sum.high));
      store_lanes(row, all_lanes(0.0F));
    }
  }
}

std::int64_t backward_scratch_bytes(std::int64_t width) {
  return BackwardScratch(nullptr, width).bytes;
}

INSTRUCT_TILES void backward_block(const BackwardBlock& block) {
  const BackwardScratch scratch(block.scratch, block.width);
  pack_rows(block.queries, block.width, block.view.count, scratch.queries, scratch.queries_plain);
  pack_rows(block.doutput, block.width, block.view.count, scratch.doutputs, scratch.doutputs_plain);
  prepare_rows(block, scratch);
  const std::int64_t panels = ceil_div(block.view.count, kPanelQueries);
  const std::int64_t panel_sums = block.width * kPanelQueries;
  std::fill_n(scratch.dqueries, panels * panel_sums, 0.0F);
  const Columns columns = seen_by_any(block.view);
  for (Columns part{.begin = columns.begin}; part.begin < columns.end; part.begin = part.end) {
    part.end = std::min(columns.end, (part.begin / kBackwardKeys + 1) * kBackwardKeys);
    for (std::int64_t c = part.begin; c < part.end; c += kTileDepth) keys_and_block(block, scratch, c);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const Columns seen = seen_by_any(panel_of(block.view, panel));
      const std::int64_t begin = std::max(part.begin, seen.begin);
      const std::int64_t keys = std::min(part.end, seen.end) - begin;
      if (keys <= 0) continue;
      multiply_panel(
          left_from(block.keys_transposed, 0, begin), block.width,
          scratch.dscores_packed + panel * kPackedScoreBytes + begin % kBackwardKeys / kTileDepth * kPanelStepBytes,
          keys, Accumulate::kYes, scratch.dqueries + panel * panel_sums);
    }
  }
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    const HeadTarget target{block.dquery.data + panel * kPanelQueries * block.dquery.stride * 2, block.dquery.stride};
    store_transposed(scratch.dqueries + panel * panel_sums, block.width, all_lanes(1.0F), target,
                     panel_of(block.view, panel).count);
  }
}

#else  // no tiles elsewhere: CpuFeatures says so, and nothing of this is called

namespace instruct::kernels::cpu::tiles {
std::int64_t forward_scratch_bytes(std::int64_t) {
  return 0;
}
void forward_panel(const ForwardPanel&) {
  INSTRUCT_CHECK(false);
}
std::int64_t key_sums_bytes(std::int64_t, std::int64_t) {
  return 0;
}
void move_key_sums(float*, std::int64_t, std::int64_t, std::int64_t, float*) {
  INSTRUCT_CHECK(false);
}
std::int64_t backward_scratch_bytes(std::int64_t) {
  return 0;
}
void backward_block(const BackwardBlock&) {
  INSTRUCT_CHECK(false);
}
#endif

Columns seen_by_any(const View& view) {
  const std::int64_t begin = view.window > 0 ? std::max<std::int64_t>(0, view.position + 1 - view.window) : 0;
  return {.begin = begin / kTileDepth * kTileDepth,
          .end = ceil_div(view.position + view.count, kTileDepth) * kTileDepth};
}

}  // namespace instruct::kernels::cpu::tiles
