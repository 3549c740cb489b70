#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

#if defined(__x86_64__)
#include "kernels/cpu/attention_tiles-inl.h"

namespace instruct::kernels::cpu::tiles {
namespace {

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

INSTRUCT_TILES void scale_rows(float* sums, std::int64_t rows, Lanes factor) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelQueries) {
    const Lanes row = load_lanes(sums);
    store_lanes(sums, {_mm512_mul_ps(row.low, factor.low), _mm512_mul_ps(row.high, factor.high)});
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

#else  // no tiles elsewhere: CpuFeatures says so, and nothing of this is called

namespace instruct::kernels::cpu::tiles {
std::int64_t forward_scratch_bytes(std::int64_t) {
  return 0;
}
void forward_panel(const ForwardPanel&) {
  INSTRUCT_CHECK(false);
}
#endif

Columns seen_by_any(const View& view) {
  const std::int64_t begin = view.window > 0 ? std::max<std::int64_t>(0, view.position + 1 - view.window) : 0;
  std::int64_t end = view.position + view.count;
  if (view.end > 0) end = view.window > 0 ? std::min(view.end, end - 1 + view.window) : view.end;
  return {.begin = begin / kTileDepth * kTileDepth, .end = ceil_div(end, kTileDepth) * kTileDepth};
}

}  // namespace instruct::kernels::cpu::tiles
