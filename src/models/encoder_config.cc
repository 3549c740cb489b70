#include "models/encoder_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/activations.h"
#include "models/config_check.h"
#include "models/json_fields.h"

namespace instruct::models {
namespace {

using ops::Activation;

// BERT's names, which those that came after it kept.
constexpr EncoderNames bert_names(std::string_view prefix) {
  return {.prefix = prefix,
          .words = "embeddings.word_embeddings.weight",
          .positions = "embeddings.position_embeddings.weight",
          .types = "embeddings.token_type_embeddings.weight",
          .embedding_norm = "embeddings.LayerNorm",
          .block = "encoder.layer.",
          .query = "attention.self.query",
          .key = "attention.self.key",
          .value = "attention.self.value",
          .output = "attention.output.dense",
          .attention_norm = "attention.output.LayerNorm",
          .up = "intermediate.dense",
          .down = "output.dense",
          .feed_forward_norm = "output.LayerNorm",
          .final_norm = "",
          .pooler = "pooler.dense"};
}

constexpr EncoderNames with_pooler(EncoderNames names, std::string_view pooler) {
  names.pooler = pooler;
  return names;
}

constexpr HeadNames kRobertaHeads{.dense = "classifier.dense",
                                  .norm = "",
                                  .out = "classifier.out_proj",
                                  .token_dense = "",
                                  .token_norm = "",
                                  .token_out = "classifier",
                                  .masked_dense = "lm_head.dense",
                                  .masked_norm = "lm_head.layer_norm",
                                  .masked_out = "lm_head.decoder",
                                  .masked_bias = "lm_head.bias"};

constexpr EncoderFamily kFamilies[] = {
    {.model_type = "bert",
     .architecture = "Bert",
     .names = bert_names("bert."),
     .heads = {.dense = "bert.pooler.dense",
               .norm = "",
               .out = "classifier",
               .token_dense = "",
               .token_norm = "",
               .token_out = "classifier",
               .masked_dense = "cls.predictions.transform.dense",
               .masked_norm = "cls.predictions.transform.LayerNorm",
               .masked_out = "cls.predictions.decoder",
               .masked_bias = "cls.predictions.bias"}},
    {.model_type = "big_bird",
     .architecture = "BigBird",
     .names = with_pooler(bert_names("bert."), "pooler"),
     .heads = {.dense = "classifier.dense",
               .norm = "",
               .out = "classifier.out_proj",
               .token_dense = "",
               .token_norm = "",
               .token_out = "classifier",
               .span_out = "",
               .masked_dense = "cls.predictions.transform.dense",
               .masked_norm = "cls.predictions.transform.LayerNorm",
               .masked_out = "cls.predictions.decoder",
               .masked_bias = "cls.predictions.bias"},
     .block_sparse = true,
     .drops_before_norm = true,
     .head_by_config = true},
    {.model_type = "roberta",
     .architecture = "Roberta",
     .names = bert_names("roberta."),
     .heads = kRobertaHeads,
     .offset_positions = true},
    {.model_type = "xlm-roberta",
     .architecture = "XLMRoberta",
     .names = bert_names("roberta."),
     .heads = kRobertaHeads,
     .offset_positions = true},
    {.model_type = "distilbert",
     .architecture = "DistilBert",
     .names = {.prefix = "distilbert.",
               .words = "embeddings.word_embeddings.weight",
               .positions = "embeddings.position_embeddings.weight",
               .types = "",
               .embedding_norm = "embeddings.LayerNorm",
               .block = "transformer.layer.",
               .query = "attention.q_lin",
               .key = "attention.k_lin",
               .value = "attention.v_lin",
               .output = "attention.out_lin",
               .attention_norm = "sa_layer_norm",
               .up = "ffn.lin1",
               .down = "ffn.lin2",
               .feed_forward_norm = "output_layer_norm",
               .final_norm = "",
               .pooler = ""},
     .heads = {.dense = "pre_classifier",
               .norm = "",
               .out = "classifier",
               .token_dense = "",
               .token_norm = "",
               .token_out = "classifier",
               .masked_dense = "vocab_transform",
               .masked_norm = "vocab_layer_norm",
               .masked_out = "vocab_projector",
               .masked_bias = "vocab_projector.bias"},
     .head_activation = Activation::kRelu},
    {.model_type = "modernbert",
     .architecture = "ModernBert",
     .names = {.prefix = "model.",
               .words = "embeddings.tok_embeddings.weight",
               .positions = "",
               .types = "",
               .embedding_norm = "embeddings.norm",
               .block = "layers.",
               .query = "attn.Wqkv",
               .key = "",
               .value = "",
               .output = "attn.Wo",
               .attention_norm = "attn_norm",
               .up = "mlp.Wi",
               .down = "mlp.Wo",
               .feed_forward_norm = "mlp_norm",
               .final_norm = "final_norm",
               .pooler = ""},
     .heads = {.dense = "head.dense",
               .norm = "head.norm",
               .out = "classifier",
               .token_dense = "head.dense",
               .token_norm = "head.norm",
               .token_out = "classifier",
               .span_out = "classifier",
               .masked_dense = "head.dense",
               .masked_norm = "head.norm",
               .masked_out = "decoder",
               .masked_bias = "decoder.bias"},
     .head_activation = Activation::kGelu,
     .norms_before = true,
     .gated = true,
     .rotary = true,
     .pools_by_config = true},
};

// What would be computed wrongly without a word.
void refuse_variants(const Value& json) {
  if (const Value* kind = given(json, "position_embedding_type"); kind != nullptr && kind->as_string() != "absolute")
    raise(ErrorCategory::kUnsupported, "position_embedding_type '{}': this program knows absolute", kind->as_string());
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    if (boolean_or(json, key, false)) raise(ErrorCategory::kUnsupported, "{}: encoders alone are supported", key);
  }
  if (given(json, "quantization_config") != nullptr)
    raise(ErrorCategory::kUnsupported, "quantization_config: this program reads f32, f16 and bf16 folders");
}

EncoderConfig bert_config(const Value& json) {
  EncoderConfig config;
  config.layers = json.at("num_hidden_layers").as_integer();
  config.width = json.at("hidden_size").as_integer();
  config.feed_forward_width = json.at("intermediate_size").as_integer();
  config.heads = json.at("num_attention_heads").as_integer();
  config.types = integer_or(json, "type_vocab_size", 2);
  config.norm_epsilon = static_cast<float>(number_or(json, "layer_norm_eps", 1e-12));
  config.activation = activation_or(json, "hidden_act", Activation::kGelu);
  config.dropout = number_or(json, "hidden_dropout_prob", 0.1);
  config.position_rows = integer_or(json, "max_position_embeddings", 512);
  return config;
}

EncoderConfig big_bird_config(const Value& json) {
  for (const auto& [key, usual] : {std::pair{"use_bias", true}, std::pair{"rescale_embeddings", false}}) {
    if (boolean_or(json, key, usual) != usual)
      raise(ErrorCategory::kUnsupported, "{}: this program computes {} for big_bird", key, usual);
  }
  EncoderConfig config = bert_config(json);
  config.activation = activation_or(json, "hidden_act", Activation::kGeluTanh);
  config.position_rows = integer_or(json, "max_position_embeddings", 4096);
  const Value* type = given(json, "attention_type");
  const std::string name = type == nullptr ? "block_sparse" : type->as_string();
  if (name != "block_sparse" && name != "original_full")
    raise(ErrorCategory::kUnsupported, "attention_type '{}': this program knows block_sparse and original_full", name);
  if (name == "original_full") return config;
  config.blocks = {.block = integer_or(json, "block_size", 64),
                   .drawn = integer_or(json, "num_random_blocks", 3),
                   .longest = config.position_rows};
  if (config.blocks.block < 1 || config.blocks.block > 1 << 16)
    raise(ErrorCategory::kBadData, "block_size is {}, expected 1 to 65536", config.blocks.block);
  if (config.blocks.drawn < 0 || config.blocks.drawn > 1024)
    raise(ErrorCategory::kBadData, "num_random_blocks is {}, expected 0 to 1024", config.blocks.drawn);
  if (config.position_rows % config.blocks.block != 0)
    raise(ErrorCategory::kBadData, "max_position_embeddings is {}, no multiple of block_size {}", config.position_rows,
          config.blocks.block);
  return config;
}

EncoderConfig distilbert_config(const Value& json) {
  EncoderConfig config;
  config.layers = integer_or(json, "n_layers", 6);
  config.width = integer_or(json, "dim", 768);
  config.feed_forward_width = integer_or(json, "hidden_dim", 4 * 768);
  config.heads = integer_or(json, "n_heads", 12);
  config.activation = activation_or(json, "activation", Activation::kGelu);
  config.dropout = number_or(json, "dropout", 0.1);
  config.position_rows = integer_or(json, "max_position_embeddings", 512);
  return config;
}

nn::RotaryConfig rotary_of(const Value* parameters, double theta, const EncoderConfig& config) {
  if (parameters != nullptr) {
    theta = number_or(*parameters, "rope_theta", theta);
    const Value* type = given(*parameters, "rope_type");
    if (type != nullptr && type->as_string() != "default")
      raise(ErrorCategory::kUnsupported, "rope_type '{}': this program knows default for modernbert",
            type->as_string());
  }
  return {.theta = theta,
          .width = config.heads > 0 ? config.head_width() : 0,
          .original_context = static_cast<double>(config.context_length)};
}

EncoderConfig modernbert_config(const Value& json) {
  EncoderConfig config;
  config.layers = json.at("num_hidden_layers").as_integer();
  config.width = json.at("hidden_size").as_integer();
  config.feed_forward_width = json.at("intermediate_size").as_integer();
  config.heads = json.at("num_attention_heads").as_integer();
  config.norm_epsilon = static_cast<float>(number_or(json, "norm_eps", 1e-5));
  config.norm_bias = boolean_or(json, "norm_bias", false);
  config.biases = boolean_or(json, "attention_bias", false);
  config.feed_forward_biases = boolean_or(json, "mlp_bias", false);
  config.head_bias = boolean_or(json, "classifier_bias", false);
  config.activation = activation_or(json, "hidden_activation", Activation::kGelu);
  config.dropout = number_or(json, "mlp_dropout", 0);
  config.context_length = integer_or(json, "max_position_embeddings", 8192);
  // local_attention keys on both sides together, and the query's own.
  config.window = integer_or(json, "local_attention", 128) / 2 + 1;
  const std::int64_t layers = std::clamp<std::int64_t>(config.layers, 0, 1024);
  if (const Value* types = given(json, "layer_types")) {
    for (const Value& type : types->as_array()) config.windowed.push_back(type.as_string() == "sliding_attention");
  } else {
    const std::int64_t interval = integer_or(json, "global_attn_every_n_layers", 3);
    if (interval < 1)
      raise(ErrorCategory::kBadData, "global_attn_every_n_layers is {}, at least 1 is needed", interval);
    for (std::int64_t layer = 0; layer < layers; ++layer) config.windowed.push_back(layer % interval != 0);
  }
  const Value* parameters = given(json, "rope_parameters");
  const auto kind = [&](const char* name) { return parameters == nullptr ? nullptr : given(*parameters, name); };
  config.rotary = rotary_of(kind("full_attention"), number_or(json, "global_rope_theta", 160000), config);
  config.window_rotary = rotary_of(kind("sliding_attention"), number_or(json, "local_rope_theta", 10000), config);
  return config;
}

}  // namespace

const EncoderFamily* find_encoder_family(std::string_view model_type) {
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                   [&](const EncoderFamily& family) { return family.model_type == model_type; });
  return found == std::end(kFamilies) ? nullptr : found;
}

const EncoderFamily& encoder_family_of(std::string_view model_type) {
  const EncoderFamily* family = find_encoder_family(model_type);
  INSTRUCT_CHECK(family != nullptr);
  return *family;
}

std::string encoder_family_names() {
  std::string names;
  for (const EncoderFamily& family : kFamilies) names += (names.empty() ? "" : ", ") + std::string(family.model_type);
  return names;
}

void EncoderConfig::check(const std::string& origin) const {
  const auto in_range = [&](std::int64_t value, std::int64_t most, const char* what) {
    require(value >= 1 && value <= most, origin, what, static_cast<double>(value));
  };
  in_range(layers, 1024, "the number of layers");
  in_range(width, 1 << 17, "the hidden size");
  in_range(feed_forward_width, 1 << 20, "the intermediate size");
  in_range(heads, 4096, "the number of attention heads");
  in_range(vocabulary, 1 << 22, "vocab_size");
  in_range(context_length, std::int64_t{1} << 24, "max_position_embeddings");
  require(types >= 0 && types <= 1 << 16, origin, "type_vocab_size", static_cast<double>(types));
  require(padding >= -1 && padding < vocabulary, origin, "pad_token_id", static_cast<double>(padding));
  require(width % heads == 0, origin, "the hidden size modulo the number of attention heads",
          static_cast<double>(width % heads));
  require(head_width() <= 1024 && (!rotary || head_width() % 2 == 0), origin, "the width of a head",
          static_cast<double>(head_width()));
  require(norm_epsilon > 0 && norm_epsilon < 1, origin, "the norms' epsilon", static_cast<double>(norm_epsilon));
  require(dropout >= 0 && dropout < 1, origin, "the dropout", dropout);
  require(initial_deviation >= 0 && initial_deviation < 100, origin, "initializer_range",
          static_cast<double>(initial_deviation));
  require(window >= 0, origin, "local_attention", static_cast<double>(window));
  require(windowed.empty() || static_cast<std::int64_t>(windowed.size()) == layers, origin, "the number of layer_types",
          static_cast<double>(windowed.size()));
  for (const auto& turned : {rotary, window_rotary})
    require(!turned || (turned->theta > 1 && std::isfinite(turned->theta)), origin, "rope_theta",
            turned ? turned->theta : 0);
}

EncoderConfig encoder_config_from_json(const Value& json, const std::string& origin) {
  return with_origin(origin, [&] {
    const EncoderFamily& family = encoder_family_of(json.at("model_type").as_string());
    refuse_variants(json);
    EncoderConfig config = family.rotary                       ? modernbert_config(json)
                           : family.block_sparse               ? big_bird_config(json)
                           : family.model_type == "distilbert" ? distilbert_config(json)
                                                               : bert_config(json);
    config.architecture = family.model_type;
    config.vocabulary = json.at("vocab_size").as_integer();
    config.padding = integer_or(json, "pad_token_id", family.offset_positions ? 1 : 0);
    if (config.position_rows > 0) {
      config.first_position = family.offset_positions ? config.padding + 1 : 0;
      config.context_length = config.position_rows - config.first_position;
    }
    config.initial_deviation = static_cast<float>(number_or(json, "initializer_range", 0.02));
    return config;
  });
}

}  // namespace instruct::models
