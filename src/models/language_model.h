// What every model that writes text can do, whatever its family: log P(answer | what was asked), trained, scored and
// generated from. Decoders (llama.h) read what was asked and answer with one stack of layers; encoder-decoders
// (seq2seq.h) read it with a second one.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/weight_loader.h"
#include "nn/key_value_cache.h"
#include "nn/linear.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"

namespace instruct::models {

using ops::Context;

// What the rest of the program needs to know of a model's configuration.
struct ModelSizes {
  std::string architecture;             // Hugging Face model_type
  std::int64_t layers = 0;              // of one stack
  std::int64_t width = 0;               // D
  std::int64_t feed_forward_width = 0;  // F
  std::int64_t heads = 0;               // H
  std::int64_t key_value_heads = 0;     // G
  std::int64_t head_width = 0;          // K
  std::int64_t vocabulary = 0;          // V, rows of the embedding
  std::int64_t context_length = 0;      // of the text; of an encoder-decoder's source and of its answer, each
  std::int64_t experts = 0;             // E, of a mixture; 0: there is none
  std::int64_t chosen_experts = 0;      // that a token goes to
  std::int64_t expert_width = 0;        // F of an expert
  bool gated = true;                    // the feed-forward
  double balance_weight = 0;            // of ops::Balance in training (router_aux_loss_coef); 0: it takes no part

  // Columns of the feed-forward that a token goes through.
  std::int64_t active_width() const { return experts > 0 ? chosen_experts * expert_width : feed_forward_width; }
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

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual const ModelSizes& sizes() const = 0;
  virtual DType dtype() const = 0;
  // Whether any weight is packed for products on integers.
  virtual bool has_integer_products() const = 0;
  // Natural-log probabilities of predictions from the outputs of pass.rows. With a recording context the loss is
  // sum_i weights[i] * -log P, and context.tape is ready for backward(). `vocabulary` columns take part. Raises
  // InvalidArgument when a position is past the context length.
  virtual std::vector<float> log_probabilities(const Context& context, const Pass& pass,
                                               const ops::Predictions& predictions, std::int64_t vocabulary) = 0;
  // Logits [rows, V], f32, of the tokens pass.rows.
  virtual Tensor logits(const Context& context, const Pass& pass) = 0;

  // Of the compute type where no other is named: f32, bf16 or kI8.
  virtual nn::KeyValueCache make_cache(std::int64_t slots, tensor::Allocator& allocator,
                                       std::optional<DType> dtype = std::nullopt) const = 0;
  // Linear layers an adapter may attach to, by block, then the head when untied.
  virtual std::vector<nn::Linear*> linears() = 0;
  // Every weight, for full tuning and export. The head is absent when tied.
  virtual std::vector<NamedWeight> weights() const = 0;
  // SHA-256 over the norm weights, which every file format keeps in full: the same for all quantisations of a model,
  // another for every other model.
  virtual std::string fingerprint() const = 0;
};

// Those of the model's weights that full tuning changes.
inline std::vector<NamedWeight> trained_weights(const LanguageModel& model) {
  std::vector<NamedWeight> trained = model.weights();
  std::erase_if(trained, [](const NamedWeight& weight) { return !weight.variable.requires_gradient(); });
  return trained;
}

}  // namespace instruct::models
