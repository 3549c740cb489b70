// The LLaMA family of decoders: Llama 1 to 3, SmolLM2, Mistral, Qwen2, Qwen3, SmolLM3, Gemma 2 and 3; and GPT-2.
// Differences are fields of the configuration.
//
// Blocks with RMSNorm, rotary positions, grouped-query attention and a gated feed-forward (Touvron et al., "LLaMA",
// 2023; Gemma Team, "Gemma 3 technical report", 2025); GPT-2's have layer normalisation, learned positions and a
// feed-forward without a gate (Radford et al., "Language models are unsupervised multitask learners", 2019).
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "models/language_model.h"
#include "nn/decoder_block.h"
#include "nn/rotary.h"

namespace instruct::models {

struct LlamaConfig : ModelSizes {
  std::int64_t sliding_window = 0;  // 0: none
  std::vector<bool> windowed;       // layers that it holds for; empty: all
  std::int64_t padding = -1;        // token whose embedding is not trained as an input (pad_token_id), -1: none
  float norm_epsilon = 1e-5F;
  bool tied_embeddings = false;
  bool attention_bias = false;     // q, k, v have biases (Qwen2) ...
  bool output_bias = false;        // ... and the output projection too (Llama's attention_bias)
  bool layer_norms = false;        // norms take the mean away and have biases, as the feed-forward then has (GPT-2)
  bool learned_positions = false;  // a row of a table for each, in the place of rotary ones (GPT-2)
  bool fused_projections = false;  // q, k and v are rows of one matrix, gate and up of another (Phi-3)
  bool head_norms = false;         // queries and keys are normalised by head (Qwen3)
  bool out_norms = false;          // and what attention and feed-forward add is normalised (Gemma)
  float norm_offset = 0;           // added to the weights of norms
  float embedding_scale = 1;       // of the embeddings as inputs
  std::int64_t query_scalar = 0;   // scores are divided by its root; 0: head_width
  bool scores_by_layer = false;    // and by the layer's number, from 1 on (GPT-2's scale_attn_by_inverse_layer_idx)
  float attention_soft_cap = 0;    // of scores, 0: none (Gemma 2)
  float logit_soft_cap = 0;        // of logits, 0: none (Gemma 2)
  ops::Activation activation = ops::Activation::kSilu;
  bool renormalise_experts = false;  // the weights of a token's experts sum to 1
  std::vector<bool> dense;           // layers with one feed-forward all the same; empty: none
  nn::RotaryConfig rotary;
  std::optional<nn::RotaryConfig> window_rotary;  // of the layers with a window, where they have their own
  std::vector<bool> unrotated;                    // layers without rotary positions (SmolLM3); empty: none

  bool has_experts(std::int64_t layer) const {
    return experts > 0 && (dense.empty() || !dense[static_cast<std::size_t>(layer)]);
  }

  // Raises BadData naming the field when a value is missing, contradictory or out of range.
  void check(const std::string& origin) const;
};

class Llama : public LanguageModel {
 public:
  Llama(LlamaConfig config, const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator);

  const LlamaConfig& config() const { return config_; }
  const ModelSizes& sizes() const override { return config_; }
  DType dtype() const override { return dtype_; }
  bool has_integer_products() const override;
  // Final normalised hidden states [T or rows, D]. Raises InvalidArgument when a position is past the context length.
  Variable hidden(const Context& context, const Pass& pass);
  std::vector<float> log_probabilities(const Context& context, const Pass& pass, const ops::Predictions& predictions,
                                       std::int64_t vocabulary) override;
  Tensor logits(const Context& context, const Pass& pass) override;
  // Output projection [V, D]; the embedding itself when tied.
  const Variable& head() const { return config_.tied_embeddings ? embedding_ : head_.weight; }

  nn::KeyValueCache make_cache(std::int64_t slots, tensor::Allocator& allocator,
                               std::optional<DType> dtype = std::nullopt) const override;
  std::vector<nn::Linear*> linears() override;
  std::vector<NamedWeight> weights() const override;
  std::string fingerprint() const override;

 private:
  using Tables = std::array<ops::RotaryTables, 2>;  // of all layers, and of those with a window where these differ
  // For a pass whose longest text has this many tokens, on which dynamic scaling depends; longrope's are both sets, of
  // which each text takes its own.
  Tables tables_for(std::int64_t positions, tensor::Allocator& allocator);
  nn::DecoderBlock load_block(std::int64_t index, WeightLoader& loader) const;

  LlamaConfig config_;
  DType dtype_;
  Variable embedding_;  // [V, D]
  Variable positions_;  // [context, D], or undefined
  std::vector<nn::DecoderBlock> blocks_;
  nn::LayerNorm norm_;
  nn::Linear head_;  // weight undefined when tied
  std::mutex tables_mutex_;
  Tables tables_;
  std::int64_t tables_stage_ = 0;  // nn::rotary_stage of what they were made for
};

}  // namespace instruct::models
