#include "models/adapter_description.h"

#include <initializer_list>

#include "base/error.h"

namespace instruct::models {
namespace {

using adapters::LoraConfig;
using Tool = AdapterDescription::Tool;

// Whether a key has a value that means something: not null, false, or empty.
bool is_set(const Value& json, std::string_view key) {
  const Value* value = json.find(key);
  return value != nullptr && !value->is_null() && !(value->is_bool() && !value->as_bool()) &&
         !((value->is_array() || value->is_object()) && value->size() == 0);
}

std::string text_or_empty(const Value& json, std::string_view key) {
  const Value* value = json.find(key);
  return value != nullptr && value->is_string() ? value->as_string() : std::string();
}

void refuse_options(const Value& json, std::initializer_list<std::string_view> keys, const std::string& origin) {
  for (const std::string_view key : keys) {
    if (is_set(json, key)) raise(ErrorCategory::kUnsupported, "{}: option '{}' is not supported", origin, key);
  }
}

std::int64_t rank_from(const Value& json, std::string_view key, const std::string& origin) {
  const std::int64_t rank = json.at(key).as_integer();
  if (rank < 1 || rank > 65536) raise(ErrorCategory::kBadData, "{}: {} is {}", origin, key, rank);
  return rank;
}

// PEFT reads pattern keys as regular expressions. Ends of module names, perhaps after "^", are what people write; any
// other expression is refused, for a module with the wrong scale would go unnoticed.
std::string pattern_suffix(const std::string& key, const std::string& origin) {
  const std::string suffix = key.starts_with('^') ? key.substr(1) : key;
  if (suffix.find_first_of("^$*+?()[]{}|\\") != std::string::npos) {
    raise(ErrorCategory::kUnsupported,
          "{}: pattern '{}': expected the end of a module name, as \"layers.0.mlp.up_proj\"", origin, key);
  }
  return suffix;
}

LoraConfig peft_config(const Value& json, const std::string& origin) {
  if (const std::string& kind = json.at("peft_type").as_string(); kind != "LORA")
    raise(ErrorCategory::kUnsupported, "{}: PEFT adapter of type {}: this program reads LORA", origin, kind);
  refuse_options(json,
                 {"use_dora", "layer_replication", "trainable_token_indices", "target_parameters", "lora_bias",
                  "alora_invocation_tokens"},
                 origin);
  if (const std::string bias = text_or_empty(json, "bias"); !bias.empty() && bias != "none")
    raise(ErrorCategory::kUnsupported, "{}: bias '{}' is not supported, only 'none'", origin, bias);
  LoraConfig config;
  config.rank = rank_from(json, "r", origin);
  config.alpha = json.at("lora_alpha").as_double();
  if (const Value* dropout = json.find("lora_dropout")) config.dropout = dropout->as_double();
  config.rank_stabilised = is_set(json, "use_rslora");
  if (const Value* ranks = json.find("rank_pattern"); ranks != nullptr && ranks->is_object()) {
    for (const auto& [key, rank] : ranks->as_object())
      config.rank_pattern.emplace_back(pattern_suffix(key, origin), rank.as_integer());
  }
  if (const Value* alphas = json.find("alpha_pattern"); alphas != nullptr && alphas->is_object()) {
    for (const auto& [key, alpha] : alphas->as_object())
      config.alpha_pattern.emplace_back(pattern_suffix(key, origin), alpha.as_double());
  }
  return config;
}

// `scale` multiplies B A as it is: an alpha of scale * rank.
LoraConfig mlx_config(const Value& json, const std::string& origin) {
  const std::string kind = text_or_empty(json, "fine_tune_type");
  if (kind == "dora")
    raise(ErrorCategory::kUnsupported, "{}: a DoRA adapter of mlx-lm: this program computes LoRA; fuse it there",
          origin);
  if (kind == "full")
    raise(ErrorCategory::kUnsupported, "{}: mlx-lm tuned the whole model here: fuse it there, and use that folder",
          origin);
  if (!kind.empty() && kind != "lora")
    raise(ErrorCategory::kUnsupported, "{}: fine_tune_type '{}' of mlx-lm: this program reads lora", origin, kind);
  const Value& parameters = json.at("lora_parameters");
  parameters.as_object();
  LoraConfig config;
  config.rank = rank_from(parameters, "rank", origin);
  config.alpha = parameters.at("scale").as_double() * static_cast<double>(config.rank);
  if (const Value* dropout = parameters.find("dropout")) config.dropout = dropout->as_double();
  return config;
}

LoraConfig adapterhub_config(const Value& json, const std::string& origin) {
  const Value& inner = json.at("config");
  inner.as_object();
  const std::string kind = text_or_empty(inner, "architecture");
  if (kind.empty()) {
    raise(ErrorCategory::kUnsupported, "{}: a bottleneck adapter of AdapterHub: this program computes LoRA", origin);
  }
  if (kind != "lora")
    raise(ErrorCategory::kUnsupported, "{}: an adapter of AdapterHub of architecture '{}': this program reads lora",
          origin, kind);
  refuse_options(inner, {"use_dora", "use_gating", "vera_d", "vera_b"}, origin);
  if (const std::string mode = text_or_empty(inner, "composition_mode"); !mode.empty() && mode != "add")
    raise(ErrorCategory::kUnsupported, "{}: composition_mode '{}' (IA3 has that): this program reads add", origin,
          mode);
  LoraConfig config;
  config.rank = rank_from(inner, "r", origin);
  config.alpha = inner.at("alpha").as_double();
  if (const Value* dropout = inner.find("dropout")) config.dropout = dropout->as_double();
  return config;
}

}  // namespace

AdapterDescription adapter_description(const Value& json, const std::string& origin) {
  return with_origin(origin, [&]() -> AdapterDescription {
    if (is_set(json, "peft_type"))
      return {Tool::kPeft, peft_config(json, origin), text_or_empty(json, "base_model_name_or_path"),
              is_set(json, "modules_to_save")};
    if (is_set(json, "fine_tune_type") || is_set(json, "lora_parameters"))
      return {Tool::kMlx, mlx_config(json, origin), text_or_empty(json, "model")};
    if (is_set(json, "config") && is_set(json, "version"))
      return {Tool::kAdapterHub, adapterhub_config(json, origin), text_or_empty(json, "model_name")};
    raise(ErrorCategory::kBadData,
          "{}: is this a LoRA adapter? PEFT writes 'peft_type', mlx-lm 'fine_tune_type', AdapterHub 'config' and "
          "'version'",
          origin);
  });
}

}  // namespace instruct::models
