// Heads of encoders: from last hidden states to scores of labels, of tokens or of words.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/encoder.h"
#include "ops/cross_entropy.h"

namespace instruct::models {

// What a head scores.
enum class HeadKind {
  kText,    // labels of a text, from what is pooled of it
  kTokens,  // labels of tokens
  kSpan,    // whether a span starts at a token, and whether it ends there
  kMasked,  // words of the vocabulary, for masked tokens
};

// dense, activation, norm, out: what a family has of these. All but `out` may be missing.
struct EncoderHead {
  nn::Linear dense;  // [D, D]
  ops::Activation activation = ops::Activation::kTanh;
  nn::LayerNorm norm;
  std::string norm_name;
  nn::Linear out;  // [N, D]; of words: the embeddings themselves
  HeadKind kind = HeadKind::kText;
  std::string bias_name;  // of `out`, where it has a name of its own

  // x [M, D], what is pooled or tokens, to scores [M, N]. x is read by nothing else.
  Variable operator()(const ops::Context& context, const Variable& x, const nn::Dropout& dropout) const;
  // What `out` takes [M, D].
  Variable before_out(const ops::Context& context, const Variable& x, const nn::Dropout& dropout) const;
  // Of masked tokens: log P of words, y [M, D] being what `out` takes (ops::linear_cross_entropy).
  std::vector<float> word_log_probabilities(const ops::Context& context, const Variable& y,
                                            const ops::Predictions& predictions) const;
  // Every weight that is not the encoder's.
  std::vector<NamedWeight> weights() const;
};

// Which layers get new weights: none (what the file lacks is an error), those that the file lacks or has in another
// size, or all.
enum class Draw { kNothing, kMissing, kAll };

struct HeadOptions {
  HeadKind kind = HeadKind::kText;
  std::int64_t labels = 0;  // N; of words: ignored, of spans: 2
  std::string prefix = {};  // in front of the names, where a model has several heads
  Draw draw = Draw::kNothing;
  std::uint64_t seed = 0;  // of what is drawn: normal with the configuration's deviation, biases 0
};

// From the file the encoder came from; its weights are parameters, but for a head of masked tokens that the file has:
// that is as trainable as the encoder. A pooler that the encoder has is the head's dense
// layer. Raises NotFound for a layer that is missing, BadData for one of another size.
EncoderHead load_head(const Encoder& encoder, const WeightSource& source, const HeadOptions& head,
                      const WeightOptions& options, tensor::Allocator& allocator);
// Whether the file has a head of this kind.
bool has_head(const EncoderConfig& config, const WeightSource& source, HeadKind kind, const std::string& prefix = "");

}  // namespace instruct::models
