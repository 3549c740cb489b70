// The LLaMA family of decoders: Llama 1 to 3, SmolLM2, Mistral, Qwen2, Qwen3, SmolLM3, Gemma 2 and 3. Differences are
// fields of the configuration.
//
// Blocks with RMSNorm, rotary positions, grouped-query attention and a gated feed-forward (Touvron et al., "LLaMA",
// 2023; Gemma Team, "Gemma 3 technical report", 2025).
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "models/weight_loader.h"
#include "nn/decoder_block.h"
#include "nn/rotary.h"
#include "ops/cross_entropy.h"

namespace instruct::models {

using ops::Context;

struct LlamaConfig {
  std::string architecture;  // Hugging Face model_type (families.h)
  std::int64_t layers = 0;
  std::int64_t width = 0;               // D
  std::int64_t feed_forward_width = 0;  // F
  std::int64_t heads = 0;               // H
  std::int64_t key_value_heads = 0;     // G
  std::int64_t head_width = 0;          // K
  std::int64_t vocabulary = 0;          // V, rows of the embedding
  std::int64_t context_length = 0;
  std::int64_t sliding_window = 0;  // 0: none
  std::vector<bool> windowed;       // layers that it holds for; empty: all
  std::int64_t padding = -1;        // token whose embedding is not trained as an input (pad_token_id), -1: none
  float norm_epsilon = 1e-5F;
  bool tied_embeddings = false;
  bool attention_bias = false;     // q, k, v have biases (Qwen2) ...
  bool output_bias = false;        // ... and the output projection too (Llama's attention_bias)
  bool fused_projections = false;  // q, k and v are rows of one matrix, gate and up of another (Phi-3)
  bool head_norms = false;         // queries and keys are normalised by head (Qwen3)
  bool out_norms = false;          // and what attention and feed-forward add is normalised (Gemma)
  float norm_offset = 0;           // added to the weights of norms
  float embedding_scale = 1;       // of the embeddings as inputs
  std::int64_t query_scalar = 0;   // scores are divided by its root; 0: head_width
  float attention_soft_cap = 0;    // of scores, 0: none (Gemma 2)
  float logit_soft_cap = 0;        // of logits, 0: none (Gemma 2)
  ops::Activation activation = ops::Activation::kSilu;
  std::int64_t experts = 0;          // E, of a mixture; 0: there is none
  std::int64_t chosen_experts = 0;   // that a token goes to
  std::int64_t expert_width = 0;     // F of an expert
  bool renormalise_experts = false;  // the weights of a token's experts sum to 1
  std::vector<bool> dense;           // layers with one feed-forward all the same; empty: none
  double balance_weight = 0;         // of ops::Balance in training (router_aux_loss_coef); 0: it takes no part
  nn::RotaryConfig rotary;
  std::optional<nn::RotaryConfig> window_rotary;  // of the layers with a window, where they have their own
  std::vector<bool> unrotated;                    // layers without rotary positions (SmolLM3); empty: none

  bool has_experts(std::int64_t layer) const {
    return experts > 0 && (dense.empty() || !dense[static_cast<std::size_t>(layer)]);
  }
  // Columns of the feed-forward that a token goes through.
  std::int64_t active_width() const { return experts > 0 ? chosen_experts * expert_width : feed_forward_width; }

  // Raises BadData naming the field when a value is missing, contradictory or out of range.
  void check(const std::string& origin) const;
};

// One pass over a batch of tokens. Everything referred to must outlive the backward pass.
struct Pass {
  std::span<const std::int32_t> tokens;     // [T]
  std::span<const std::int32_t> positions;  // [T]
  const tensor::AttentionPlan* plan = nullptr;
  nn::KeyValueCache* cache = nullptr;  // with `slots`, [T]: where the new keys and values go
  std::span<const std::int32_t> slots;
  std::span<const std::int32_t> rows;      // tokens whose output is wanted; empty for all
  std::span<const std::int32_t> adapters;  // [T] of an adapters::AdapterSet, -1: none; empty where there is no set
  ops::Balance* balance = nullptr;         // counts how evenly experts are chosen, and adds its gradient
  bool checkpoint = false;                 // recording, keep only the input of each block and compute the rest again
};

class Llama {
 public:
  Llama(LlamaConfig config, const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator);

  const LlamaConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }
  // Whether any weight is packed for products on integers.
  bool has_integer_products() const;
  // Final normalised hidden states [T or rows, D]. Raises InvalidArgument when a position is past the context length.
  Variable hidden(const Context& context, const Pass& pass);
  // Natural-log probabilities of predictions from the outputs of pass.rows. With a recording context the loss is
  // sum_i weights[i] * -log P, and context.tape is ready for backward(). `vocabulary` columns take part.
  std::vector<float> log_probabilities(const Context& context, const Pass& pass, const ops::Predictions& predictions,
                                       std::int64_t vocabulary);
  // Logits [rows, V], f32, of the tokens pass.rows.
  Tensor logits(const Context& context, const Pass& pass);
  // Output projection [V, D]; the embedding itself when tied.
  const Variable& head() const { return config_.tied_embeddings ? embedding_ : head_.weight; }

  // Of the compute type where no other is named: f32, bf16 or kI8.
  nn::KeyValueCache make_cache(std::int64_t slots, tensor::Allocator& allocator,
                               std::optional<DType> dtype = std::nullopt) const;
  // Linear layers an adapter may attach to, by block, then the head when untied.
  std::vector<nn::Linear*> linears();
  // Every weight, for full tuning and export. The head is absent when tied.
  std::vector<NamedWeight> weights() const;
  // SHA-256 over the norm weights, which every file format keeps in full: the same for all quantisations of a model,
  // another for every other model.
  std::string fingerprint() const;

 private:
  using Tables = std::array<ops::RotaryTables, 2>;  // of all layers, and of those with a window where these differ
  // For a pass whose longest text has this many tokens, on which dynamic scaling depends; longrope's are both sets, of
  // which each text takes its own.
  Tables tables_for(std::int64_t positions, tensor::Allocator& allocator);
  ops::RmsNormOptions norm_options() const { return {.epsilon = config_.norm_epsilon, .offset = config_.norm_offset}; }

  LlamaConfig config_;
  DType dtype_;
  Variable embedding_;  // [V, D]
  std::vector<nn::DecoderBlock> blocks_;
  Variable norm_;    // [D] f32
  nn::Linear head_;  // weight undefined when tied
  std::mutex tables_mutex_;
  Tables tables_;
  std::int64_t tables_stage_ = 0;  // nn::rotary_stage of what they were made for
};

}  // namespace instruct::models
