// Configurations of decoders from config.json and from the metadata of GGUF files.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/activations.h"
#include "models/families.h"
#include "models/json_fields.h"
#include "models/rotary_files.h"
#include "models/sources.h"

namespace instruct::models {
namespace {

using formats::GgufFile;

// What would be computed wrongly without a word.
void refuse_variants(const Value& json, const Family& family) {
  const auto refuse = [](const std::string& what) { raise(ErrorCategory::kUnsupported, "{}", what); };
  for (const char* key : {"hidden_act", "hidden_activation"}) {
    const Value* activation = given(json, key);
    if (activation != nullptr && activation->as_string() != family.activation)
      refuse(fmt::format("{} '{}': this program knows {} for {}", key, activation->as_string(), family.activation,
                         family.model_type));
  }
  if (boolean_or(json, "use_bidirectional_attention", false))
    refuse("use_bidirectional_attention: this program computes causal attention");
  if (boolean_or(json, "mlp_bias", false)) refuse("mlp_bias: feed-forward layers with a bias are not supported");
  if (given(json, "quantization_config") != nullptr)
    refuse("quantization_config: this program reads f32, f16 and bf16 folders, and quantised models as GGUF");
}

std::vector<bool> every(std::int64_t interval, std::int64_t layers) {
  std::vector<bool> chosen;
  for (std::int64_t layer = 1; layer <= std::clamp<std::int64_t>(layers, 0, 1024); ++layer)
    chosen.push_back(layer % interval == 0);
  return chosen;
}

// Which layers no_rope_layers (a 1 for each layer with rotary positions, a 0 for each without) or an interval means.
std::vector<bool> unrotated_layers(const Value& json, std::int64_t layers, const Family& family) {
  if (const Value* listed = given(json, "no_rope_layers")) {
    std::vector<bool> chosen;
    for (const Value& rotated : listed->as_array()) chosen.push_back(rotated.as_integer() == 0);
    return chosen;
  }
  const std::int64_t interval = integer_or(json, "no_rope_layer_interval", family.unrotated_interval);
  if (interval < 1) raise(ErrorCategory::kBadData, "no_rope_layer_interval is {}, at least 1 is needed", interval);
  return every(interval, layers);
}

// No list where the window holds for all layers, no window where it holds for none.
void settle_windows(LlamaConfig& config) {
  const auto count = std::count(config.windowed.begin(), config.windowed.end(), true);
  const bool none = !config.windowed.empty() && count == 0;
  if (none) config.sliding_window = 0;
  if (none || count == static_cast<std::ptrdiff_t>(config.windowed.size())) config.windowed.clear();
}

// Newer folders list layer_types; older ones leave it to the family.
void choose_windowed_layers(const Value& json, const Family& family, LlamaConfig& config) {
  if (config.sliding_window == 0) {
    if (family.full_interval > 0) raise(ErrorCategory::kBadData, "sliding_window is missing or 0");
    return;
  }
  if (const Value* types = given(json, "layer_types")) {
    for (const Value& type : types->as_array()) {
      const std::string& name = type.as_string();
      if (name != "sliding_attention" && name != "full_attention")
        raise(ErrorCategory::kUnsupported, "layer_types: '{}': this program knows sliding_attention and full_attention",
              name);
      config.windowed.push_back(name == "sliding_attention");
    }
  } else if (family.window_of_unrotated) {
    config.windowed = config.unrotated;
  } else if (family.full_interval > 0) {
    const std::int64_t interval = integer_or(json, "sliding_window_pattern", family.full_interval);
    if (interval < 1) raise(ErrorCategory::kBadData, "sliding_window_pattern is {}, at least 1 is needed", interval);
    config.windowed = every(interval, config.layers);
    config.windowed.flip();
  } else if (family.unwindowed_layers > 0) {
    const std::int64_t first = integer_or(json, "max_window_layers", family.unwindowed_layers);
    for (std::int64_t layer = 0; layer < std::clamp<std::int64_t>(config.layers, 0, 1024); ++layer)
      config.windowed.push_back(layer >= first);
  }
  settle_windows(config);
}

// What no field says. Needs the sizes.
void set_family(const Family& family, LlamaConfig& config) {
  config.architecture = family.model_type;
  config.head_norms = family.head_norms;
  config.fused_projections = family.fused_projections;
  config.layer_norms = family.layer_norms;
  config.learned_positions = family.learned_positions;
  config.gated = family.gated;
  config.out_norms = family.out_norms;
  config.norm_offset = family.norm_offset;
  if (family.activation != "silu") config.activation = ops::Activation::kGeluTanh;
  if (family.scaled_embeddings)
    config.embedding_scale =
        static_cast<float>(std::sqrt(static_cast<double>(std::max<std::int64_t>(0, config.width))));
}

// Layers without experts: those listed, and those between every so many.
std::vector<bool> dense_layers(const Value& json, std::int64_t layers) {
  const std::int64_t step = integer_or(json, "decoder_sparse_step", 1);
  if (step < 1) raise(ErrorCategory::kBadData, "decoder_sparse_step is {}, at least 1 is needed", step);
  std::vector<bool> dense = every(step, layers);
  dense.flip();
  if (const Value* listed = given(json, "mlp_only_layers")) {
    for (const Value& value : listed->as_array()) {
      const std::int64_t layer = value.as_integer();
      if (layer < 0 || layer >= static_cast<std::int64_t>(dense.size()))
        raise(ErrorCategory::kBadData, "mlp_only_layers names layer {} of {}", layer, layers);
      dense[static_cast<std::size_t>(layer)] = true;
    }
  }
  return dense;
}

void read_experts(const Value& json, const Family& family, LlamaConfig& config) {
  if (family.experts_module.empty()) return;
  config.experts = integer_or(json, "num_local_experts", integer_or(json, "num_experts", family.default_experts));
  config.chosen_experts = integer_or(json, "num_experts_per_tok", family.default_chosen);
  config.expert_width = family.default_expert_width > 0
                            ? integer_or(json, "moe_intermediate_size", family.default_expert_width)
                            : config.feed_forward_width;
  config.renormalise_experts = boolean_or(json, "norm_topk_prob", family.renormalises);
  if (boolean_or(json, "output_router_logits", false))
    config.balance_weight = number_or(json, "router_aux_loss_coef", 0.001);
  if (number_or(json, "router_jitter_noise", 0) != 0)
    raise(ErrorCategory::kUnsupported, "router_jitter_noise: noise on what the router reads is not supported");
  config.dense = dense_layers(json, config.layers);
  const auto dense = std::count(config.dense.begin(), config.dense.end(), true);
  if (dense == static_cast<std::ptrdiff_t>(config.dense.size())) config.experts = 0;
  if (dense == 0 || config.experts == 0) config.dense.clear();
}

LlamaConfig sizes_from_json(const Value& json, const Family& family) {
  LlamaConfig config;
  config.layers = json.at("num_hidden_layers").as_integer();
  config.width = json.at("hidden_size").as_integer();
  config.feed_forward_width = json.at("intermediate_size").as_integer();
  config.heads = json.at("num_attention_heads").as_integer();
  config.key_value_heads = integer_or(json, "num_key_value_heads", config.heads);
  const std::int64_t even = config.heads > 0 ? config.width / config.heads : 0;
  config.head_width = integer_or(json, "head_dim", family.default_head_width > 0 ? family.default_head_width : even);
  config.vocabulary = json.at("vocab_size").as_integer();
  config.context_length = integer_or(json, "max_position_embeddings", 2048);
  config.norm_epsilon = static_cast<float>(number_or(json, "rms_norm_eps", 1e-6));
  config.tied_embeddings = boolean_or(json, "tie_word_embeddings", family.tied_by_default);
  config.padding = integer_or(json, "pad_token_id", -1);
  config.attention_bias = family.projections_biased || boolean_or(json, "attention_bias", false);
  config.output_bias = config.attention_bias && !family.projections_biased;
  set_family(family, config);
  config.query_scalar = integer_or(json, "query_pre_attn_scalar", family.default_query_scalar);
  const auto soft_cap = [&](const char* key, float otherwise) {  // null says that there is none
    return json.find(key) == nullptr ? otherwise : static_cast<float>(number_or(json, key, 0));
  };
  config.attention_soft_cap = soft_cap("attn_logit_softcapping", family.attention_soft_cap);
  config.logit_soft_cap = soft_cap("final_logit_softcapping", family.logit_soft_cap);
  // Mistral names a window to use it; Qwen names one always and says beside it whether, and from which layer on.
  if (family.window_always || boolean_or(json, "use_sliding_window", false))
    config.sliding_window = integer_or(json, "sliding_window", 0);
  if (family.unrotated_interval > 0) config.unrotated = unrotated_layers(json, config.layers, family);
  choose_windowed_layers(json, family, config);
  read_experts(json, family, config);
  return config;
}

// GPT-2 has keys of its own, all of which may be missing.
LlamaConfig gpt2_from_json(const Value& json, const Family& family) {
  LlamaConfig config;
  config.layers = integer_or(json, "n_layer", 12);
  config.width = integer_or(json, "n_embd", 768);
  config.feed_forward_width = integer_or(json, "n_inner", 4 * std::clamp<std::int64_t>(config.width, 0, 1 << 20));
  config.heads = config.key_value_heads = integer_or(json, "n_head", 12);
  if (config.heads < 1 || config.width % config.heads != 0)
    raise(ErrorCategory::kBadData, "n_embd is {}, which {} heads (n_head) do not divide", config.width, config.heads);
  config.head_width = config.width / config.heads;
  config.vocabulary = integer_or(json, "vocab_size", 50257);
  config.context_length = integer_or(json, "n_positions", integer_or(json, "n_ctx", 1024));
  config.norm_epsilon = static_cast<float>(number_or(json, "layer_norm_epsilon", 1e-5));
  config.tied_embeddings = boolean_or(json, "tie_word_embeddings", family.tied_by_default);
  config.attention_bias = config.output_bias = true;
  set_family(family, config);
  config.activation = activation_or(json, "activation_function", config.activation);
  if (!boolean_or(json, "scale_attn_weights", true)) config.query_scalar = 1;
  config.scores_by_layer = boolean_or(json, "scale_attn_by_inverse_layer_idx", false);
  // reorder_and_upcast_attn is about rounding: scores and their softmax are f32 here whatever it says.
  if (boolean_or(json, "add_cross_attention", false))
    raise(ErrorCategory::kUnsupported, "add_cross_attention: a decoder that reads an encoder is not supported");
  return config;
}

// Which layers the window holds for: as the file says, or as llama.cpp takes it.
void choose_windowed_layers(const GgufFile& file, const std::string& prefix, const Family& family,
                            LlamaConfig& config) {
  if (config.sliding_window == 0)
    raise(ErrorCategory::kBadData, "{}: {}attention.sliding_window is missing or 0", file.origin(), prefix);
  const std::int64_t interval = file.integer_or(prefix + "attention.sliding_window_pattern", family.full_interval);
  if (interval < 1)
    raise(ErrorCategory::kBadData, "{}: {}attention.sliding_window_pattern is {}, at least 1 is needed", file.origin(),
          prefix, interval);
  config.windowed = every(interval, config.layers);
  config.windowed.flip();
  settle_windows(config);
}

}  // namespace

std::string_view epsilon_key(const Family& family) {
  return family.layer_norms ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
}

LlamaConfig config_from_gguf(const GgufFile& file) {
  LlamaConfig config;
  const std::string& architecture = file.text("general.architecture");
  const std::string prefix = architecture + ".";
  const std::int64_t experts = file.integer_or(prefix + "expert_count", 0);
  const Family& family =
      family_of_gguf(architecture, file.origin(), experts > 0 ? FeedForward::kExperts : FeedForward::kOne);
  config.layers = file.integer(prefix + "block_count");
  config.width = file.integer(prefix + "embedding_length");
  config.feed_forward_width = file.integer(prefix + "feed_forward_length");
  config.heads = file.integer(prefix + "attention.head_count");
  config.key_value_heads = file.integer_or(prefix + "attention.head_count_kv", config.heads);
  config.head_width =
      file.integer_or(prefix + "attention.key_length", config.heads > 0 ? config.width / config.heads : 0);
  config.context_length = file.integer(prefix + "context_length");
  config.sliding_window = file.integer_or(prefix + "attention.sliding_window", 0);
  config.norm_epsilon = static_cast<float>(file.number(prefix + std::string(epsilon_key(family))));
  config.tied_embeddings = !file.has_tensor("output.weight");
  config.attention_bias = family.layer_norms || file.has_tensor("blk.0.attn_q.bias");
  config.output_bias = family.layer_norms || file.has_tensor("blk.0.attn_output.bias");
  set_family(family, config);
  if (config.heads > 0) config.query_scalar = gguf_query_scalar(config);
  const auto soft_cap = [&](const char* key, float otherwise) {
    return static_cast<float>(file.number_or(prefix + key, static_cast<double>(otherwise)));
  };
  config.attention_soft_cap = soft_cap("attn_logit_softcapping", family.attention_soft_cap);
  config.logit_soft_cap = soft_cap("final_logit_softcapping", family.logit_soft_cap);
  if (family.full_interval > 0) choose_windowed_layers(file, prefix, family, config);
  if (family.unrotated_interval > 0) config.unrotated = every(family.unrotated_interval, config.layers);
  config.vocabulary = file.has_tensor("token_embd.weight") ? file.tensor("token_embd.weight").dim(0) : 0;
  config.padding = file.integer_or("tokenizer.ggml.padding_token_id", -1);
  if (!family.learned_positions) read_rotary(file, prefix, family, config);
  if (experts > 0) {
    config.experts = experts;
    config.chosen_experts = file.integer(prefix + "expert_used_count");
    config.expert_width = file.integer_or(prefix + "expert_feed_forward_length", config.feed_forward_width);
    config.renormalise_experts = true;  // as llama.cpp does for these architectures
  }
  if (const std::int64_t width = file.integer_or(prefix + "attention.value_length", config.head_width);
      width != config.head_width) {
    raise(ErrorCategory::kUnsupported, "{}: values of width {} beside keys of width {}", file.origin(), width,
          config.head_width);
  }
  return config;
}

LlamaConfig config_from_json(const Value& json, const std::string& origin) {
  return with_origin(origin, [&] {
    const Family& family = family_of(json.at("model_type").as_string(), origin);
    refuse_variants(json, family);
    if (family.layer_norms) return gpt2_from_json(json, family);
    LlamaConfig config = sizes_from_json(json, family);
    read_rotary(json, family, origin, config);
    return config;
  });
}

}  // namespace instruct::models
