// The families of encoders: their configurations, and what their files call things.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "models/block_sparse.h"
#include "nn/rotary.h"
#include "ops/elementwise.h"

namespace instruct::models {

// What a family's files call its weights, below the prefix that models with heads put in front.
struct EncoderNames {
  std::string_view prefix;  // "bert."
  std::string_view words, positions, types, embedding_norm;
  std::string_view block;                                      // "encoder.layer."
  std::string_view query, key, value, output, attention_norm;  // key and value empty: query gives all three
  std::string_view up, down, feed_forward_norm;
  std::string_view final_norm;
  std::string_view pooler;
};

// What a family's heads are called; empty: there is no such layer.
struct HeadNames {
  std::string_view dense, norm, out;                    // of a text's label; dense may be the pooler
  std::string_view token_dense, token_norm, token_out;  // of labels of tokens
  std::string_view span_out = "qa_outputs";  // of spans, behind the layers of labels of tokens; empty: not known here
  std::string_view masked_dense, masked_norm, masked_out;  // of masked tokens; words' embeddings are its weight
  std::string_view masked_bias;                            // of the vocabulary
};

struct EncoderFamily {
  std::string_view model_type;
  std::string_view architecture;  // "Bert": of BertModel, BertForSequenceClassification, ...
  EncoderNames names;
  HeadNames heads;
  ops::Activation head_activation = ops::Activation::kTanh;
  bool offset_positions = false;  // the first token's position is pad_token_id + 1 (RoBERTa)
  bool norms_before = false;      // with a last one behind all blocks
  bool gated = false;
  bool rotary = false;
  bool pools_by_config = false;    // transformers reads classifier_pooling
  bool block_sparse = false;       // attention is, unless attention_type says otherwise (BigBird)
  bool drops_before_norm = false;  // dropout of the embeddings, else behind their norm
  bool head_by_config = false;     // heads have the configuration's activation
};

struct EncoderConfig {
  std::string architecture;  // model_type
  std::int64_t layers = 0;
  std::int64_t width = 0;               // D
  std::int64_t feed_forward_width = 0;  // F
  std::int64_t heads = 0;               // H
  std::int64_t vocabulary = 0;          // V
  std::int64_t position_rows = 0;       // of the table of learned positions; 0: none
  std::int64_t first_position = 0;
  std::int64_t types = 0;           // rows of the table of token types; 0: none
  std::int64_t context_length = 0;  // tokens of a text
  std::int64_t padding = -1;        // token whose embedding is not trained
  float norm_epsilon = 1e-12F;
  bool norm_bias = true;
  bool biases = true;  // of attention's projections
  bool feed_forward_biases = true;
  ops::Activation activation = ops::Activation::kGelu;
  BlockSparse blocks;
  double dropout = 0;          // of what attention and feed-forward add, and of the embeddings
  std::int64_t window = 0;     // keys less than so many positions away are seen; 0: all
  std::vector<bool> windowed;  // the layers that it holds for
  std::optional<nn::RotaryConfig> rotary, window_rotary;
  bool head_bias = true;            // of the dense layer of heads
  float initial_deviation = 0.02F;  // of fresh weights (initializer_range)

  std::int64_t head_width() const { return width / heads; }
  // Raises BadData naming the field when a value is missing, contradictory or out of range.
  void check(const std::string& origin) const;
};

// nullptr for a model_type that is no encoder's.
const EncoderFamily* find_encoder_family(std::string_view model_type);
// Raises Internal for another.
const EncoderFamily& encoder_family_of(std::string_view model_type);
// Names of all, for messages: "bert, roberta, ...".
std::string encoder_family_names();

// From config.json. Raises Unsupported for what this program does not compute, BadData or NotFound for a bad field.
EncoderConfig encoder_config_from_json(const Value& json, const std::string& origin);

}  // namespace instruct::models
