// Configurations of encoder-decoders, and the names that their files use.
#pragma once

#include <string>
#include <string_view>

#include "base/value.h"
#include "models/language_model.h"
#include "ops/elementwise.h"

namespace instruct::models {

// Of one stack, behind its prefix. {} stands for the layer's number.
struct StackNames {
  std::string_view prefix;  // "encoder."
  std::string_view positions;
  std::string_view embedding_norm;
  std::string_view block;
  std::string_view query, key, value, output;
  std::string_view attention_norm;
  std::string_view cross_query, cross_key, cross_value, cross_output;
  std::string_view cross_norm;
  std::string_view gate;  // of gated feed-forwards, whose other half is `gated_up`
  std::string_view gated_up, up, down;
  std::string_view feed_forward_norm;
  std::string_view final_norm;
  std::string_view bias;  // of distances, in the first block
};

struct Seq2SeqFamily {
  std::string_view model_type;
  std::string_view architecture;  // the class of transformers
  std::string_view words;         // of both stacks and, where it is tied, the head
  std::string_view logits_bias;   // [1, V], added to all logits; or empty
  StackNames encoder, decoder;
};

struct Seq2SeqConfig : ModelSizes {
  std::int64_t decoder_layers = 0;  // `layers` are the encoder's
  std::int64_t decoder_feed_forward_width = 0;
  std::int64_t decoder_heads = 0;
  std::int32_t start = 0;                    // the token that every answer starts from (decoder_start_token_id)
  std::int64_t padding = -1;                 // its embedding is not trained as an input; -1: none
  std::optional<std::int32_t> forced_first;  // what an answer begins with when it is generated (forced_bos_token_id)
  std::vector<std::int32_t> suppressed;      // never generated (bad_words_ids of one token)
  bool norms_before = false;                 // else behind each part
  bool centred_norms = true;                 // layer norms; else by the root mean square
  bool biases = true;                        // of linear layers
  ops::Activation activation = ops::Activation::kGelu;
  float norm_epsilon = 1e-5F;
  float embedding_scale = 1;  // of the embeddings as inputs
  float output_scale = 1;     // of what goes into the head
  bool scaled_scores = true;  // by the root of the heads' width
  bool tied_embeddings = true;
  enum class Positions { kNone, kLearned, kSinusoidal };
  Positions positions = Positions::kNone;
  std::int64_t position_offset = 0;    // rows of the table in front of the first position's
  std::int64_t distance_buckets = 0;   // of a bias of distances; 0: there is none
  std::int64_t farthest_distance = 0;  // beyond which all are in the last bucket
  std::int64_t trained_length = 512;   // tokens that a T5 was trained with (n_positions), which bounds nothing
  double dropout = 0;

  // Raises BadData naming the field when a value is missing, contradictory or out of range.
  void check(const std::string& origin) const;
};

// Null for a model_type of another kind.
const Seq2SeqFamily* find_seq2seq_family(std::string_view model_type);
// "t5, mt5, ..."
std::string seq2seq_family_names();

// What files of BartModel and its like, which have no head, leave out in front of names.
inline constexpr std::string_view kHeadlessPrefix = "model.";

// What no field of T5's and mT5's says.
Seq2SeqConfig t5_config();
// Raises BadData or Unsupported naming `origin` and the field.
Seq2SeqConfig seq2seq_config_from_json(const Value& json, const std::string& origin);

// What generation_config.json says of how answers begin.
void read_generation_config(const Value& json, const std::string& origin, Seq2SeqConfig& config);

// The bucket of every distance from -farthest to farthest, a key's position minus the query's (Raffel et al., "T5",
// 2020): half of them for each direction where both are seen, the near ones alone, farther ones by the logarithm.
enum class Directions { kBoth, kBackwards };
std::vector<std::int32_t> distance_buckets(std::int64_t buckets, std::int64_t farthest, Directions directions);

}  // namespace instruct::models
