#include "models/seq2seq_config.h"

#include <algorithm>
#include <cmath>

#include "models/activations.h"
#include "models/config_check.h"
#include "models/json_fields.h"

namespace instruct::models {
namespace {

using ops::Activation;

constexpr StackNames t5_names(bool decoder) {
  return {.prefix = decoder ? "decoder." : "encoder.",
          .positions = "",
          .embedding_norm = "",
          .block = "block.{}.",
          .query = "layer.0.SelfAttention.q",
          .key = "layer.0.SelfAttention.k",
          .value = "layer.0.SelfAttention.v",
          .output = "layer.0.SelfAttention.o",
          .attention_norm = "layer.0.layer_norm",
          .cross_query = "layer.1.EncDecAttention.q",
          .cross_key = "layer.1.EncDecAttention.k",
          .cross_value = "layer.1.EncDecAttention.v",
          .cross_output = "layer.1.EncDecAttention.o",
          .cross_norm = "layer.1.layer_norm",
          .gate = decoder ? "layer.2.DenseReluDense.wi_0" : "layer.1.DenseReluDense.wi_0",
          .gated_up = decoder ? "layer.2.DenseReluDense.wi_1" : "layer.1.DenseReluDense.wi_1",
          .up = decoder ? "layer.2.DenseReluDense.wi" : "layer.1.DenseReluDense.wi",
          .down = decoder ? "layer.2.DenseReluDense.wo" : "layer.1.DenseReluDense.wo",
          .feed_forward_norm = decoder ? "layer.2.layer_norm" : "layer.1.layer_norm",
          .final_norm = "final_layer_norm",
          .bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"};
}

constexpr StackNames bart_names(bool decoder, bool embedding_norm) {
  return {.prefix = decoder ? "model.decoder." : "model.encoder.",
          .positions = "embed_positions.weight",
          .embedding_norm = embedding_norm ? "layernorm_embedding" : "",
          .block = "layers.{}.",
          .query = "self_attn.q_proj",
          .key = "self_attn.k_proj",
          .value = "self_attn.v_proj",
          .output = "self_attn.out_proj",
          .attention_norm = "self_attn_layer_norm",
          .cross_query = "encoder_attn.q_proj",
          .cross_key = "encoder_attn.k_proj",
          .cross_value = "encoder_attn.v_proj",
          .cross_output = "encoder_attn.out_proj",
          .cross_norm = "encoder_attn_layer_norm",
          .gate = "",
          .gated_up = "",
          .up = "fc1",
          .down = "fc2",
          .feed_forward_norm = "final_layer_norm",
          .final_norm = "",
          .bias = ""};
}

constexpr Seq2SeqFamily kFamilies[] = {
    {.model_type = "t5",
     .architecture = "T5ForConditionalGeneration",
     .words = "shared.weight",
     .logits_bias = "",
     .encoder = t5_names(false),
     .decoder = t5_names(true)},
    {.model_type = "mt5",
     .architecture = "MT5ForConditionalGeneration",
     .words = "shared.weight",
     .logits_bias = "",
     .encoder = t5_names(false),
     .decoder = t5_names(true)},
    {.model_type = "bart",
     .architecture = "BartForConditionalGeneration",
     .words = "model.shared.weight",
     .logits_bias = "final_logits_bias",
     .encoder = bart_names(false, true),
     .decoder = bart_names(true, true)},
    {.model_type = "marian",
     .architecture = "MarianMTModel",
     .words = "model.shared.weight",
     .logits_bias = "final_logits_bias",
     .encoder = bart_names(false, false),
     .decoder = bart_names(true, false)},
};

Seq2SeqConfig read_t5(const Value& json) {
  Seq2SeqConfig config = t5_config();
  config.architecture = json.at("model_type").as_string();
  const bool first = config.architecture == "t5";
  config.width = json.at("d_model").as_integer();
  config.layers = json.at("num_layers").as_integer();
  config.decoder_layers = integer_or(json, "num_decoder_layers", config.layers);
  config.heads = config.decoder_heads = json.at("num_heads").as_integer();
  config.head_width = json.at("d_kv").as_integer();
  config.feed_forward_width = config.decoder_feed_forward_width = json.at("d_ff").as_integer();
  config.distance_buckets = integer_or(json, "relative_attention_num_buckets", 32);
  config.farthest_distance = integer_or(json, "relative_attention_max_distance", 128);
  config.norm_epsilon = static_cast<float>(number_or(json, "layer_norm_epsilon", 1e-6));
  config.dropout = number_or(json, "dropout_rate", 0.1);
  config.start = static_cast<std::int32_t>(integer_or(json, "decoder_start_token_id", 0));
  config.trained_length = integer_or(json, "n_positions", config.trained_length);
  const Value* named = given(json, "feed_forward_proj");
  const std::string kind = named != nullptr ? named->as_string() : first ? "relu" : "gated-gelu";
  config.gated = kind.starts_with("gated-");
  // What files call gated-gelu is the approximation by tanh.
  config.activation = kind == "gated-gelu"
                          ? Activation::kGeluTanh
                          : activation_from_name(kind.substr(config.gated ? 6 : 0), "feed_forward_proj");
  // "tie_word_embeddings: false" says that the head is not the embedding, and of T5 that its input isn't scaled; newer
  // files say the latter by itself.
  config.tied_embeddings = boolean_or(json, "tie_word_embeddings", true);
  if (first && boolean_or(json, "scale_decoder_outputs", config.tied_embeddings))
    config.output_scale =
        static_cast<float>(1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, config.width))));
  return config;
}

void read_bart(const Value& json, Seq2SeqConfig& config) {
  const bool marian = config.architecture == "marian";
  config.gated = false;
  config.width = integer_or(json, "d_model", 1024);
  config.layers = integer_or(json, "encoder_layers", 12);
  config.decoder_layers = integer_or(json, "decoder_layers", 12);
  config.heads = integer_or(json, "encoder_attention_heads", 16);
  config.decoder_heads = integer_or(json, "decoder_attention_heads", 16);
  config.feed_forward_width = integer_or(json, "encoder_ffn_dim", 4096);
  config.decoder_feed_forward_width = integer_or(json, "decoder_ffn_dim", 4096);
  config.context_length = integer_or(json, "max_position_embeddings", 1024);
  config.dropout = number_or(json, "dropout", 0.1);
  config.padding = integer_or(json, "pad_token_id", marian ? 58100 : 1);
  config.start = static_cast<std::int32_t>(integer_or(json, "decoder_start_token_id", marian ? 58100 : 2));
  config.activation = activation_or(json, "activation_function", Activation::kGelu);
  if (boolean_or(json, "scale_embedding", false))
    config.embedding_scale =
        static_cast<float>(std::sqrt(static_cast<double>(std::max<std::int64_t>(1, config.width))));
  config.positions = marian ? Seq2SeqConfig::Positions::kSinusoidal : Seq2SeqConfig::Positions::kLearned;
  config.position_offset = marian ? 0 : 2;
  config.head_width = config.heads > 0 ? config.width / config.heads : 0;
  for (const char* key : {"normalize_before", "add_final_layer_norm"}) {
    if (boolean_or(json, key, false)) raise(ErrorCategory::kUnsupported, "{}: true is not supported", key);
  }
  if (!boolean_or(json, "share_encoder_decoder_embeddings", true))
    raise(ErrorCategory::kUnsupported, "share_encoder_decoder_embeddings: false is not supported");
  if (!boolean_or(json, "tie_word_embeddings", true))
    raise(ErrorCategory::kUnsupported, "tie_word_embeddings: false is not supported for {}", config.architecture);
  if (!boolean_or(json, "static_position_embeddings", marian)) config.positions = Seq2SeqConfig::Positions::kLearned;
}

void read_forced(const Value& json, Seq2SeqConfig& config) {
  if (const Value* forced = given(json, "forced_bos_token_id"))
    config.forced_first = static_cast<std::int32_t>(forced->as_integer());
  if (const Value* words = given(json, "bad_words_ids")) {
    for (const Value& word : words->as_array()) {
      if (word.size() == 1) config.suppressed.push_back(static_cast<std::int32_t>(word.as_array()[0].as_integer()));
    }
  }
}

}  // namespace

const Seq2SeqFamily* find_seq2seq_family(std::string_view model_type) {
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                   [&](const Seq2SeqFamily& family) { return family.model_type == model_type; });
  return found == std::end(kFamilies) ? nullptr : found;
}

std::string seq2seq_family_names() {
  std::string names;
  for (const Seq2SeqFamily& family : kFamilies) names += (names.empty() ? "" : ", ") + std::string(family.model_type);
  return names;
}

void Seq2SeqConfig::check(const std::string& origin) const {
  const auto in_range = [&](std::int64_t value, std::int64_t most, const char* what) {
    require(value >= 1 && value <= most, origin, what, static_cast<double>(value));
  };
  in_range(layers, 1024, "the number of layers");
  in_range(decoder_layers, 1024, "the number of the decoder's layers");
  in_range(width, 1 << 17, "d_model");
  in_range(feed_forward_width, 1 << 20, "the width of the feed-forward");
  in_range(decoder_feed_forward_width, 1 << 20, "the width of the decoder's feed-forward");
  in_range(heads, 4096, "the number of attention heads");
  in_range(head_width, 1024, "the width of a head");
  in_range(vocabulary, 1 << 22, "vocab_size");
  in_range(context_length, std::int64_t{1} << 24, "max_position_embeddings");
  require(decoder_heads == heads, origin, "the number of the decoder's attention heads",
          static_cast<double>(decoder_heads));
  require(distance_buckets > 0 || heads * head_width == width, origin, "d_model modulo the number of attention heads",
          static_cast<double>(width % heads));
  require(start >= 0 && start < vocabulary, origin, "decoder_start_token_id", static_cast<double>(start));
  require(!forced_first || (*forced_first >= 0 && *forced_first < vocabulary), origin, "forced_bos_token_id",
          static_cast<double>(forced_first.value_or(0)));
  for (const std::int32_t token : suppressed)
    require(token >= 0 && token < vocabulary, origin, "bad_words_ids", static_cast<double>(token));
  require(padding >= -1 && padding < vocabulary, origin, "pad_token_id", static_cast<double>(padding));
  require(norm_epsilon > 0 && norm_epsilon < 1, origin, "layer_norm_epsilon", static_cast<double>(norm_epsilon));
  require(dropout >= 0 && dropout < 1, origin, "the dropout", dropout);
  require(positions != Positions::kSinusoidal || context_length <= 1 << 16, origin, "max_position_embeddings",
          static_cast<double>(context_length));
  if (positions != Positions::kNone) return;
  require(distance_buckets >= 4 && distance_buckets <= 1 << 16 && distance_buckets % 4 == 0, origin,
          "relative_attention_num_buckets", static_cast<double>(distance_buckets));
  require(farthest_distance > distance_buckets / 2 && farthest_distance <= 1 << 16, origin,
          "relative_attention_max_distance", static_cast<double>(farthest_distance));
}

Seq2SeqConfig t5_config() {
  Seq2SeqConfig config;
  config.padding = -1;  // T5's embedding has no padding_idx
  // Distances have no end. What the models were trained with, which may be exceeded, is said by the tokenizer.
  config.context_length = std::int64_t{1} << 20;
  config.norms_before = true;
  config.centred_norms = config.biases = config.scaled_scores = false;
  return config;
}

Seq2SeqConfig seq2seq_config_from_json(const Value& json, const std::string& origin) {
  return with_origin(origin, [&] {
    Seq2SeqConfig config;
    config.architecture = json.at("model_type").as_string();
    const bool t5 = config.architecture == "t5" || config.architecture == "mt5";
    if (t5) config = read_t5(json);
    config.vocabulary = json.at("vocab_size").as_integer();
    if (given(json, "quantization_config") != nullptr)
      raise(ErrorCategory::kUnsupported, "quantization_config: this program reads f32, f16 and bf16 folders");
    if (!t5) read_bart(json, config);
    config.key_value_heads = config.heads;
    read_forced(json, config);
    return config;
  });
}

void read_generation_config(const Value& json, const std::string& origin, Seq2SeqConfig& config) {
  with_origin(origin, [&] {
    read_forced(json, config);
    config.start = static_cast<std::int32_t>(integer_or(json, "decoder_start_token_id", config.start));
    return 0;
  });
}

std::vector<std::int32_t> distance_buckets(std::int64_t buckets, std::int64_t farthest, Directions directions) {
  const std::int64_t each = directions == Directions::kBoth ? buckets / 2 : buckets;
  const std::int64_t exact = each / 2;
  const auto bucket_of = [&](std::int64_t distance) {
    std::int64_t bucket = directions == Directions::kBoth && distance > 0 ? each : 0;
    const std::int64_t away =
        directions == Directions::kBoth ? std::abs(distance) : -std::min<std::int64_t>(distance, 0);
    if (away < exact) return static_cast<std::int32_t>(bucket + away);
    // In f32, as the models were trained: the borders depend on it.
    const float share = std::log(static_cast<float>(away) / static_cast<float>(exact)) /
                        static_cast<float>(std::log(static_cast<double>(farthest) / static_cast<double>(exact)));
    bucket += std::min(exact + static_cast<std::int64_t>(share * static_cast<float>(each - exact)), each - 1);
    return static_cast<std::int32_t>(bucket);
  };
  std::vector<std::int32_t> result;
  for (std::int64_t distance = -farthest; distance <= farthest; ++distance) result.push_back(bucket_of(distance));
  return result;
}

}  // namespace instruct::models
