// Encoders: BERT, BigBird, RoBERTa, XLM-RoBERTa, DistilBERT, ModernBERT. Differences are fields of the configuration
// and names in a table (encoder_config.h).
//
// Tokens see their whole row in both directions (Devlin et al., "BERT", 2019; Warner et al., "Smarter, better, faster,
// longer", 2024). Rows lie side by side in one flat list, as everywhere here: nothing is padded.
#pragma once

#include <mutex>

#include "models/encoder_config.h"
#include "models/weight_loader.h"
#include "nn/encoder_block.h"

namespace instruct::models {

// One pass over rows of tokens. Everything referred to must outlive the backward pass.
struct EncoderPass {
  std::span<const std::int32_t> tokens;         // [T]
  std::span<const std::int32_t> positions;      // [T], within its row, counted from config().first_position
  std::span<const std::int32_t> types;          // [T]; may be empty where the model knows none
  const tensor::AttentionPlan* plan = nullptr;  // of whole rows
  std::span<const std::int32_t> rows;           // tokens whose output is wanted; empty for all
  nn::Dropout dropout;
  bool checkpoint = false;  // recording, keep only the input of each block
};

class Encoder {
 public:
  Encoder(EncoderConfig config, const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator);

  const EncoderConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }
  // Last hidden states [T or rows, D]. Raises InvalidArgument when a row is longer than the context. `layers`, where
  // given, gets the output of the embeddings and of every block but the last, as transformers' hidden_states.
  Variable hidden(const ops::Context& context, const EncoderPass& pass, std::vector<Tensor>* layers = nullptr);

  // Parts of texts, as ranges of the pass's tokens, to [M, D]: their outputs, or the means of these. `pass.rows` are
  // the tokens themselves where every part is one; else empty. `parts` must outlive the backward pass.
  Variable pooled(const ops::Context& context, const EncoderPass& pass, std::span<const tensor::KeyRange> parts);

  // Linear layers an adapter may attach to, by block.
  std::vector<nn::Linear*> linears();
  // Every weight, under the names of models with heads, for full tuning and export.
  std::vector<NamedWeight> weights() const;
  // Word embeddings [V, D], which heads of masked language models share.
  const Variable& words() const { return words_; }
  // Dense layer over the first token's output that some files bring along; without a weight where they do not.
  const nn::Linear& pooler() const { return pooler_; }
  // SHA-256 over the norm weights.
  std::string fingerprint() const;

 private:
  using Tables = std::array<ops::RotaryTables, 2>;
  Tables tables_for(std::int64_t positions, tensor::Allocator& allocator);
  nn::EncoderBlock load_block(std::int64_t index, WeightLoader& loader, const std::string& prefix) const;
  Variable embed(const ops::Context& context, const EncoderPass& pass) const;
  // Of block-sparse attention where a text is long enough for it, else none: one for all blocks, or in training one for
  // each, by head.
  std::shared_ptr<std::vector<tensor::AttentionPlan>> plans_of(const EncoderPass& pass, bool training) const;

  EncoderConfig config_;
  DType dtype_;
  std::string prefix_;  // of the file
  Variable words_;      // [V, D]
  Variable positions_;  // [position_rows, D], or undefined
  Variable types_;      // [types, D], or undefined
  nn::LayerNorm embedding_norm_;
  std::vector<nn::EncoderBlock> blocks_;
  nn::LayerNorm final_norm_;
  nn::Linear pooler_;
  std::mutex tables_mutex_;
  Tables tables_;
};

}  // namespace instruct::models
