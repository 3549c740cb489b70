// What attention on tiles does in vector registers, forward and backward. To be included inside `#if
// defined(__x86_64__)`.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/tiles-inl.h"

namespace instruct::kernels::cpu::tiles {

inline constexpr float kLog2E = 1.44269504F;

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

// 16 pairs of bf16: first[i] below second[i].
INSTRUCT_TILES inline __m512i to_bf16_pairs(__m512 first, __m512 second) {
  alignas(64) static constexpr std::int16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), to_bf16(first, second));
}

// The queries of a panel that see `column`, a bit each.
inline std::uint32_t queries_that_see(const View& view, std::int64_t column) {
  std::int64_t earliest = column - view.position;
  if (view.end > 0) {
    if (column >= view.end) return 0;
    earliest = view.window > 0 ? earliest - view.window + 1 : 0;
  }
  const std::int64_t first = std::clamp<std::int64_t>(earliest, 0, kPanelQueries);
  const std::int64_t last = view.window > 0 ? std::min(view.count, column - view.position + view.window) : view.count;
  return first_lanes<std::uint32_t>(last) & ~first_lanes<std::uint32_t>(first);
}

struct LaneMasks {
  __mmask16 low;
  __mmask16 high;
};
inline LaneMasks masks_of(const View& view, std::int64_t column) {
  const std::uint32_t mask = queries_that_see(view, column);
  return {static_cast<__mmask16>(mask & 0xffff), static_cast<__mmask16>(mask >> 16)};
}

// The part of `columns` that all 32 lanes of a panel see, in pairs of columns.
inline Columns seen_by_all(const View& view, const Columns& columns) {
  const std::int64_t begin =
      view.window > 0 ? std::max<std::int64_t>(0, view.position + kPanelQueries - view.window) : 0;
  std::int64_t seen_by_first = view.position + 1;
  if (view.end > 0) seen_by_first = view.window > 0 ? std::min(view.end, view.position + view.window) : view.end;
  Columns all{.begin = std::clamp((begin + 1) / 2 * 2, columns.begin, columns.end),
              .end = std::clamp(seen_by_first / 2 * 2, columns.begin, columns.end)};
  if (view.count < kPanelQueries || all.end <= all.begin) all = {columns.begin, columns.begin};
  return all;
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

// sums [rows, 32] (+)= left [rows, k] * one panel; rows and k are multiples of 32.
INSTRUCT_TILES inline void multiply_panel(Left left, std::int64_t rows, const std::byte* panel, std::int64_t k,
                                          Accumulate accumulate, float* sums) {
  for (std::int64_t r = 0; r < rows; r += kBlockRows, left.data += 2 * left.tile_row_bytes, sums += kBlockSums) {
    multiply_block<2, 2>({left, k}, panel, accumulate, sums);
  }
}

// The panel's rows of a head from sums [width, 32 queries], each query times its factor.
INSTRUCT_TILES inline void store_transposed(const float* sums, std::int64_t width, Lanes factor,
                                            const HeadTarget& target, std::int64_t count) {
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

}  // namespace instruct::kernels::cpu::tiles
