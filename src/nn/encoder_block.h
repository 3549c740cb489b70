// One block of an encoder, or of either stack of an encoder-decoder: attention, in a decoder a second one over what the
// encoder made of its source, then a feed-forward, each with a residual sum and a norm behind it (BERT, BART) or before
// it (ModernBERT, T5).
#pragma once

#include <array>
#include <optional>
#include <span>

#include "base/random.h"
#include "nn/key_value_cache.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace instruct::nn {

// What is dropped in a pass that records a gradient. Each place draws from a stream of its own.
struct Dropout {
  float rate = 0;
  std::uint64_t seed = 0;
  std::uint64_t pass = 0;  // a new one for every pass
  Variable operator()(const Context& context, Variable x, std::uint64_t place) const {
    constexpr std::uint64_t kPlaces = 1 << 16;
    return ops::dropout(context, std::move(x), rate, {seed, RandomPurpose::kDropout, pass * kPlaces + place});
  }
};

// What all blocks of one pass share.
struct EncoderInput {
  std::span<const std::int32_t> positions;      // [T], for rotary tables
  const tensor::AttentionPlan* plan = nullptr;  // keys are the T tokens
  // Where heads see different keys: for each block a plan of its heads as rows (ops::heads_to_rows), in plan's place.
  std::span<const tensor::AttentionPlan> plans_by_head;
  std::array<ops::RotaryTables, 2> rotary;
  Dropout dropout;
  const ops::DistanceBias* bias = nullptr;  // of the stack
  // Of a decoder: what the encoder made of the sources [S, D], undefined where all are in the cache, and which of them
  // each token sees, as keys of another text.
  Variable source = {};
  const tensor::AttentionPlan* source_plan = nullptr;
  // With a cache new keys go to `slots`, those of sources to `source_slots`, and both plans point into it.
  KeyValueCache* cache = nullptr;
  std::span<const std::int32_t> slots = {};
  std::span<const std::int32_t> source_slots = {};
};

// Attention over the encoder's output.
struct CrossAttention {
  LayerNorm norm;
  Linear query, key, value, output;
  bool defined() const { return query.weight.defined(); }
};

struct EncoderBlock {
  enum class Norms { kBehind, kBefore };
  Norms norms = Norms::kBehind;
  LayerNorm attention_norm;  // undefined: none
  Linear query, key, value;  // where key has no weight, query gives all three, [3D, D]
  Linear output;
  CrossAttention cross;  // of decoders
  LayerNorm feed_forward_norm;
  Linear gate;  // where it has a weight, activation(gate(x)) multiplies up(x)
  Linear up, down;
  bool gated = false;  // up gives 2F columns: the first half goes through the activation, the second multiplies it
  ops::Activation activation = ops::Activation::kGelu;
  ops::AttentionOptions attention;
  std::optional<std::size_t> rotary;  // which tables turn queries and keys; none: they are not
  std::int64_t index = 0;

  // x [T, D] to [T, D]. When `rows` is not empty only those rows leave the block, [rows, D].
  Variable operator()(const Context& context, const Variable& x, const EncoderInput& pass,
                      std::span<const std::int32_t> rows) const;

 private:
  Variable attend(const Context& context, const Variable& x, const EncoderInput& pass) const;
  Variable attend_source(const Context& context, const Variable& x, const EncoderInput& pass) const;
  Variable feed_forward(const Context& context, const Variable& x) const;
};

}  // namespace instruct::nn
