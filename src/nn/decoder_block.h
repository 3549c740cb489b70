// One transformer decoder block: attention, with rotary positions where it has them, then a feed-forward, gated or not,
// each behind a norm and where the family has them (Gemma) before another.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "nn/expert_mixture.h"
#include "nn/key_value_cache.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace instruct::nn {

// What all blocks of one pass share.
struct PassInput {
  std::span<const std::int32_t> positions;      // [T]
  const tensor::AttentionPlan* plan = nullptr;  // keys are the T tokens, or cache slots when there is a cache
  std::array<ops::RotaryTables, 2> rotary;      // a block says which it takes
  KeyValueCache* cache = nullptr;               // with a cache: new keys go to `slots`, attention reads the cache
  std::span<const std::int32_t> slots;
  std::span<const std::int32_t> adapters;  // [T], of models::Pass
  ops::Balance* balance = nullptr;         // of experts, where it counts
};

struct DecoderBlock {
  LayerNorm attention_norm;
  Linear query, key, value, output;
  LayerNorm query_norm, key_norm;  // [K] of each head, or undefined
  LayerNorm attention_out_norm;    // of what attention adds, or undefined
  LayerNorm feed_forward_norm;
  Linear gate, up, down;                 // without a weight of the gate, up alone goes through the activation
  Linear fused_attention, fused_gating;  // of query, key and value, of gate and up, where files have them as one
  ExpertMixture mixture;                 // in the place of gate, up and down where it has experts
  LayerNorm feed_forward_out_norm;       // of what the feed-forward adds, or undefined
  ops::Activation activation = ops::Activation::kSilu;
  ops::AttentionOptions attention;
  std::optional<std::size_t> rotary;  // which tables turn queries and keys by their positions; none: they are not
  std::int64_t index = 0;

  // x [T, D] to [T, D]. When `rows` is not empty only those rows leave the block, [rows, D]: the rest serves as keys
  // and values and skips the output projection and the feed-forward.
  Variable operator()(const Context& context, const Variable& x, const PassInput& pass,
                      std::span<const std::int32_t> rows) const;

 private:
  Variable attend(const Context& context, const Variable& x, const PassInput& pass) const;
  Variable feed_forward(const Context& context, const Variable& x, std::span<const std::int32_t> adapters,
                        ops::Balance* balance) const;
  // x + what a part of the block gave, normalised where there is a norm.
  static Variable add_to(const Context& context, const Variable& x, const Variable& part, const LayerNorm& out_norm);
  // A projection as attention takes it: normalised by head, where there is a norm, and rotated where the block does.
  Variable place(const Context& context, const Variable& projected, const LayerNorm& head_norm,
                 const PassInput& pass) const;
};

}  // namespace instruct::nn
