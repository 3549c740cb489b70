// Encoder-decoders: T5, mT5, BART, Marian. Differences are fields of the configuration and names in a table
// (seq2seq_config.h).
//
// One stack of blocks reads the source, each token seeing all of it; a second one writes the answer, its tokens seeing
// those before them and, in a second attention of each block, what the encoder made of the source (Vaswani et al.,
// 2017; Raffel et al., "T5", 2020; Lewis et al., "BART", 2020). A batch holds both in one list of tokens: the plan says
// which are sources and which source each answer reads, so that a source is encoded once for all of its answers. In a
// cache a slot of a source holds its keys and values for that second attention, a slot of an answer those for the
// first.
#pragma once

#include <memory>

#include "models/seq2seq_config.h"
#include "nn/encoder_block.h"

namespace instruct::models {

class Seq2Seq : public LanguageModel {
 public:
  Seq2Seq(Seq2SeqConfig config, const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator);

  const Seq2SeqConfig& config() const { return config_; }
  const ModelSizes& sizes() const override { return config_; }
  DType dtype() const override { return dtype_; }
  bool has_integer_products() const override;
  // Hidden states of what tokens a pass computes, as transformers' encoder_hidden_states and decoder_hidden_states: the
  // output of the embeddings and of every block, the last one normalised. For tests.
  struct Layers {
    std::vector<Tensor> encoder, decoder;
  };
  // Final hidden states of the answers' tokens [T' or rows, D]; pass.rows are among those.
  Variable hidden(const Context& context, const Pass& pass, Layers* layers = nullptr);
  std::vector<float> log_probabilities(const Context& context, const Pass& pass, const ops::Predictions& predictions,
                                       std::int64_t vocabulary) override;
  Tensor logits(const Context& context, const Pass& pass) override;
  nn::KeyValueCache make_cache(std::int64_t slots, tensor::Allocator& allocator,
                               std::optional<DType> dtype = std::nullopt) const override;
  std::vector<nn::Linear*> linears() override;
  std::vector<NamedWeight> weights() const override;
  std::string fingerprint() const override;

 private:
  struct Stack {
    const StackNames* names = nullptr;
    Variable positions;  // [P, D], or undefined
    nn::LayerNorm embedding_norm;
    std::vector<nn::EncoderBlock> blocks;
    nn::LayerNorm final_norm;
    ops::DistanceBias bias;  // without weights where there is none
  };
  // The parts of a pass that the two stacks compute.
  struct Parts;

  Stack load_stack(const StackNames& names, bool decoder, WeightLoader& loader, const WeightSource& source) const;
  Variable embed(const Context& context, const Stack& stack, std::span<const std::int32_t> tokens,
                 std::span<const std::int32_t> positions) const;
  Variable run(const Context& context, const Stack& stack, Variable x, const nn::EncoderInput& input,
               std::span<const std::int32_t> rows, bool checkpoint, std::vector<Tensor>* layers) const;
  void add_stack(const Stack& stack, std::vector<NamedWeight>& weights) const;
  Tensor sinusoids(std::int64_t positions) const;
  const Variable& head() const { return config_.tied_embeddings ? words_ : head_.weight; }

  Seq2SeqConfig config_;
  DType dtype_;
  Variable words_;  // [V, D]
  Stack encoder_, decoder_;
  nn::Linear head_;       // weight undefined when tied
  Variable logits_bias_;  // [V] f32, not trained; or undefined
};

}  // namespace instruct::models
