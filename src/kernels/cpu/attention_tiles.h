// The arithmetic of attention by tiles for a few panels of queries of one head. Internal to kernels/cpu; inside a
// tiles::Session.
//
// Scores are computed transposed, [keys, queries]: a vector register holds one key's scores of 16 queries, so that
// maximum and sum of the softmax are taken register by register, without sums across lanes, and what is written is
// what the next products read. The keys are the left side where they lie; 32 queries are one panel of the right side.
//
// A query's sums run over its keys in order of their column, in steps that start at multiples of fixed sizes, and a
// key that it does not see adds an exact zero. So a result depends on the keys seen, not on what else is computed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/tiles.h"

namespace instruct::kernels::cpu::tiles {

inline constexpr std::int64_t kPanelQueries = kPanelColumns;
inline constexpr std::int64_t kForwardKeys = 256;   // keys whose scores are kept at once
inline constexpr std::int64_t kBackwardPanels = 8;  // panels that share each load of the keys' gradients
inline constexpr std::int64_t kBackwardKeys = 128;  // keys after whose step the queries' gradients are stored

// Which keys neighbouring queries see: query i of `count` those in columns up to its own, position + i, or with an
// `end` those in columns before that; of these the ones less than `window` columns away (all when it is 0).
struct View {
  std::int64_t position = 0;
  std::int64_t count = 0;
  std::int64_t window = 0;
  std::int64_t end = 0;
};

// Columns [begin, end).
struct Columns {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
// The columns of which some query sees some, in whole steps of 32.
Columns seen_by_any(const View& view);

// Rows of one head, bf16, `stride` elements apart.
struct HeadRows {
  const std::byte* data = nullptr;
  std::int64_t stride = 0;
};
struct HeadTarget {
  std::byte* data = nullptr;
  std::int64_t stride = 0;
};

// One panel forward: up to 32 queries of a head.
struct ForwardPanel {
  View view;
  std::int64_t width = 0;  // of a head, a multiple of 32
  float scale = 1.0F;      // above 0
  Left keys;               // [columns, width]
  Left values_transposed;  // [width, columns]
  HeadRows queries;
  HeadTarget output;
  float* log_sum = nullptr;  // of the first query
  std::int64_t log_sum_stride = 0;
  std::byte* scratch = nullptr;  // forward_scratch_bytes(width)
};
std::int64_t forward_scratch_bytes(std::int64_t width);
void forward_panel(const ForwardPanel& panel);

// Sums of gradients by key: [columns / 32][width / 32][32][32], as blocks of results leave the tiles.
std::int64_t key_sums_bytes(std::int64_t columns, std::int64_t width);
// target [count, width] += the sums from column `first` on, which become zero.
void move_key_sums(float* sums, std::int64_t first, std::int64_t count, std::int64_t width, float* target);

// One block backward: up to kBackwardPanels panels of a head. What they add to the gradients of keys and values goes to
// the sums.
struct BackwardBlock {
  View view;
  std::int64_t width = 0;
  float scale = 1.0F;
  Left keys;             // [columns, width]
  Left values;           // the same
  Left keys_transposed;  // [width, columns]
  HeadRows queries;
  HeadRows output;
  HeadRows doutput;
  HeadTarget dquery;
  const float* log_sum = nullptr;  // of the first query
  std::int64_t log_sum_stride = 0;
  float* dkeys = nullptr;
  float* dvalues = nullptr;
  std::byte* scratch = nullptr;  // backward_scratch_bytes(width)
};
std::int64_t backward_scratch_bytes(std::int64_t width);
void backward_block(const BackwardBlock& block);

}  // namespace instruct::kernels::cpu::tiles
