#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/attention_tiles.h"

#if defined(__x86_64__)
#include "kernels/cpu/attention_tiles-inl.h"

namespace instruct::kernels::cpu::tiles {
namespace {

constexpr std::int64_t kBlockQueries = kBackwardPanels * kPanelQueries;

// Panel number `panel` of a block of queries.
View panel_of(const View& view, std::int64_t panel) {
  const std::int64_t first = panel * kPanelQueries;
  return {view.position + first, std::min(kPanelQueries, view.count - first), view.window, view.end};
}

// The scratch of backward_block, cut up.
struct BackwardScratch {
  BackwardScratch(std::byte* buffer, std::int64_t width);
  float* scores_of(std::int64_t panel) const { return scores + panel % 2 * kBlockSums; }
  float* dprobabilities_of(std::int64_t panel) const { return dprobabilities + panel % 2 * kBlockSums; }

  std::int64_t panel_bytes;   // of queries and doutputs
  std::byte* queries;         // of all panels, [width, 32] each, packed
  std::byte* doutputs;        // the same
  Right queries_plain;        // [queries, width], packed
  Right doutputs_plain;       // the same
  Left probabilities;         // [32 keys, queries]
  Left dscores;               // the same
  std::byte* dscores_packed;  // of all panels, [keys, 32] each, packed
  float* scores;              // [32 keys, 32], for two panels at a time
  float* dprobabilities;      // the same
  float* dqueries;            // of all panels, [width, 32] each
  float* shifts;              // [queries]
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
  scores = take_floats(2 * kBlockSums);
  dprobabilities = take_floats(2 * kBlockSums);
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

// What the gradient of the softmax for 32 keys and one panel is computed from, and where it goes.
struct PanelGradient {
  View view;
  std::int64_t column;  // of the first key
  float scale;
  Lanes delta;
  const float* scores;
  const float* dprobabilities;
  std::byte* left_probabilities;  // two tiles below each other, `tile_row_bytes` apart
  std::byte* left_dscores;
  std::int64_t tile_row_bytes;
  std::byte* right_dscores;  // two tiles beside each other
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

template <bool Masked>
INSTRUCT_TILES void gradient_of_keys(const PanelGradient& gradient, const Exponent& exponent) {
  const __m512 scale = _mm512_set1_ps(gradient.scale);
  for (std::int64_t i = 0; i < 16; ++i) {
    const float* scores = gradient.scores + 2 * i * kPanelQueries;
    const float* dprobabilities = gradient.dprobabilities + 2 * i * kPanelQueries;
    const std::int64_t column = gradient.column + 2 * i;
    const RowGradient even = gradient_of_row<Masked>(scores, dprobabilities, exponent, scale, gradient.delta,
                                                     masks_of(gradient.view, column));
    const RowGradient odd = gradient_of_row<Masked>(scores + kPanelQueries, dprobabilities + kPanelQueries, exponent,
                                                    scale, gradient.delta, masks_of(gradient.view, column + 1));
    const std::int64_t at = i / 8 * gradient.tile_row_bytes + i % 8 * 128;
    _mm512_store_si512(gradient.left_probabilities + at, even.probabilities);
    _mm512_store_si512(gradient.left_probabilities + at + 64, odd.probabilities);
    _mm512_store_si512(gradient.left_dscores + at, even.dscores);
    _mm512_store_si512(gradient.left_dscores + at + 64, odd.dscores);
    __m512i low;
    __m512i high;
    interleave(even.dscores, odd.dscores, low, high);
    _mm512_store_si512(gradient.right_dscores + i * 64, low);
    _mm512_store_si512(gradient.right_dscores + kTileBytes + i * 64, high);
  }
}

// 32 keys and one panel: scores, and gradients of the probabilities.
INSTRUCT_TILES void multiply_keys(const BackwardBlock& block, const BackwardScratch& scratch, std::int64_t column,
                                  std::int64_t panel) {
  multiply_block<2, 2>({left_from(block.keys, column, 0), block.width}, scratch.queries + panel * scratch.panel_bytes,
                       Accumulate::kNo, scratch.scores_of(panel));
  multiply_block<2, 2>({left_from(block.values, column, 0), block.width},
                       scratch.doutputs + panel * scratch.panel_bytes, Accumulate::kNo,
                       scratch.dprobabilities_of(panel));
}

// The gradient of the softmax for the same, as the products over it read it.
INSTRUCT_TILES void gradient_of_panel(const BackwardBlock& block, const BackwardScratch& scratch, std::int64_t column,
                                      std::int64_t panel) {
  const View view = panel_of(block.view, panel);
  const Exponent exponent{_mm512_set1_ps(block.scale * kLog2E), load_lanes(scratch.shifts + panel * kPanelQueries)};
  const PanelGradient gradient{
      .view = view,
      .column = column,
      .scale = block.scale,
      .delta = load_lanes(scratch.deltas + panel * kPanelQueries),
      .scores = scratch.scores_of(panel),
      .dprobabilities = scratch.dprobabilities_of(panel),
      .left_probabilities = const_cast<std::byte*>(left_from(scratch.probabilities, 0, panel * kPanelQueries).data),
      .left_dscores = const_cast<std::byte*>(left_from(scratch.dscores, 0, panel * kPanelQueries).data),
      .tile_row_bytes = scratch.dscores.tile_row_bytes,
      .right_dscores =
          scratch.dscores_packed + panel * kPackedScoreBytes + column % kBackwardKeys / kTileDepth * kPanelStepBytes};
  const Columns strip{column, column + kTileDepth};
  const Columns all = seen_by_all(view, strip);
  if (all.begin == strip.begin && all.end == strip.end) {
    gradient_of_keys<false>(gradient, exponent);
  } else {
    gradient_of_keys<true>(gradient, exponent);
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
  // The tiles work on the next panel while the vector units work on this one.
  if (panels.begin < panels.end) multiply_keys(block, scratch, column, panels.begin);
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    if (panel + 1 < panels.end) multiply_keys(block, scratch, column, panel + 1);
    gradient_of_panel(block, scratch, column, panel);
  }
  const std::int64_t first = panels.begin * kPanelQueries;
  const std::int64_t queries = (panels.end - panels.begin) * kPanelQueries;
  for (std::int64_t w = 0; w < block.width; w += kPanelColumns) {
    const std::int64_t at = column * block.width + w * kTileDepth;
    multiply_block<2, 2>({left_from(scratch.probabilities, 0, first), queries},
                         right_from(scratch.doutputs_plain, first, w).data, Accumulate::kYes, block.dvalues + at);
    multiply_block<2, 2>({left_from(scratch.dscores, 0, first), queries},
                         right_from(scratch.queries_plain, first, w).data, Accumulate::kYes, block.dkeys + at);
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

}  // namespace instruct::kernels::cpu::tiles
