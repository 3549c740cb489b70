// One pre-norm transformer decoder block: attention with rotary positions, then a gated feed-forward.
#pragma once

#include <span>

#include "nn/key_value_cache.h"
#include "nn/linear.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace instruct::nn {

// What all blocks of one pass share.
struct PassInput {
  std::span<const std::int32_t> positions;      // [T]
  const tensor::AttentionPlan* plan = nullptr;  // keys are the T tokens, or cache slots when there is a cache
  const ops::RotaryTables* rotary = nullptr;
  KeyValueCache* cache = nullptr;  // with a cache: new keys go to `slots`, attention reads the cache
  std::span<const std::int32_t> slots;
  std::span<const std::int32_t> adapters;  // [T], of models::Pass
  ops::AttentionOptions attention;
};

struct DecoderBlock {
  Variable attention_norm;  // [D] f32
  Linear query, key, value, output;
  Variable query_norm, key_norm;  // [K] f32 of each head, or undefined
  Variable feed_forward_norm;     // [D] f32
  Linear gate, up, down;
  std::int64_t window = 0;  // of attention, 0: none
  bool rotates = true;      // queries and keys, by their positions
  float epsilon = 1e-5F;
  std::int64_t index = 0;

  // x [T, D] to [T, D]. When `rows` is not empty only those rows leave the block, [rows, D]: the rest serves as keys
  // and values and skips the output projection and the feed-forward.
  Variable operator()(const Context& context, const Variable& x, const PassInput& pass,
                      std::span<const std::int32_t> rows) const;

 private:
  Variable attend(const Context& context, const Variable& x, const PassInput& pass) const;
  // A projection as attention takes it: normalised by head, where there is a norm, and rotated where the block does.
  Variable place(const Context& context, const Variable& projected, const Variable& head_norm,
                 const PassInput& pass) const;
};

}  // namespace instruct::nn
