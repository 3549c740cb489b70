#include "models/adapter_files.h"

#include <cmath>
#include <map>

#include "base/diff.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "formats/safetensors.h"
#include "ops/weights.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using adapters::LoraAdapter;
using adapters::LoraConfig;

constexpr std::string_view kPrefix = "base_model.model.";

// Short names when the adapter has every layer of that name, else full paths: PEFT makes a module for each match, and
// one without matrices would be a warning there.
std::vector<std::string> target_modules(const LoraAdapter& adapter, std::int64_t blocks) {
  std::map<std::string, std::vector<std::string>> by_part;
  for (const adapters::LoraModule& module : adapter.modules())
    by_part[module.name.substr(module.name.rfind('.') + 1)].push_back(module.name);
  std::vector<std::string> targets;
  for (const auto& [part, names] : by_part) {
    const bool everywhere = part == "lm_head" || names.size() == static_cast<std::size_t>(blocks);
    if (everywhere) targets.push_back(part);
    if (!everywhere) targets.insert(targets.end(), names.begin(), names.end());
  }
  return targets;
}

// Only keys that old PEFT versions know: an unknown one makes them fail.
Value config_value(const LoraAdapter& adapter, const AdapterOrigin& origin, std::int64_t blocks) {
  const LoraConfig& config = adapter.config();
  Value target_values = Value::array();
  for (const std::string& target : target_modules(adapter, blocks)) target_values.push(target);
  Value ranks = Value::object();
  for (const auto& [key, rank] : config.rank_pattern) ranks.set(key, rank);
  Value alphas = Value::object();
  for (const auto& [key, alpha] : config.alpha_pattern) alphas.set(key, alpha);
  const double whole = std::floor(config.alpha);
  return Value::object(
      {{"peft_type", "LORA"},
       {"task_type", "CAUSAL_LM"},
       {"base_model_name_or_path", origin.base_model},
       {"inference_mode", true},
       {"r", config.rank},
       {"lora_alpha", whole == config.alpha ? Value(static_cast<std::int64_t>(whole)) : Value(config.alpha)},
       {"lora_dropout", config.dropout},
       {"target_modules", target_values},
       {"bias", "none"},
       {"fan_in_fan_out", false},
       {"use_rslora", config.rank_stabilised},
       {"modules_to_save", Value()},
       {"rank_pattern", ranks},
       {"alpha_pattern", alphas}});
}

void refuse_unknown_kind(const Value& json, const std::string& origin) {
  if (json.find("peft_type") != nullptr) {
    const std::string& kind = json.at("peft_type").as_string();
    if (kind != "LORA")
      raise(ErrorCategory::kUnsupported, "{}: PEFT adapter of type {}: this program reads LORA", origin, kind);
    return;
  }
  if (json.find("fine_tune_type") != nullptr) {
    raise(ErrorCategory::kUnsupported, "{}: an adapter of mlx-lm (fine_tune_type): convert it to PEFT first", origin);
  }
  if (json.find("config") != nullptr && json.find("version") != nullptr) {
    raise(ErrorCategory::kUnsupported, "{}: an adapter of AdapterHub: this program reads PEFT LoRA folders", origin);
  }
  raise(ErrorCategory::kBadData, "{}: 'peft_type' is missing: is this a PEFT adapter?", origin);
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

LoraConfig config_from(const Value& json, const std::string& origin) {
  refuse_unknown_kind(json, origin);
  const auto is_set = [&](const char* key) {
    const Value* value = json.find(key);
    return value != nullptr && !value->is_null() && !(value->is_bool() && !value->as_bool()) &&
           !((value->is_array() || value->is_object()) && value->size() == 0);
  };
  for (const char* key : {"use_dora", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias",
                          "alora_invocation_tokens"}) {
    if (is_set(key)) raise(ErrorCategory::kUnsupported, "{}: option '{}' is not supported", origin, key);
  }
  if (const Value* bias = json.find("bias"); bias != nullptr && bias->is_string() && bias->as_string() != "none") {
    raise(ErrorCategory::kUnsupported, "{}: bias '{}' is not supported, only 'none'", origin, bias->as_string());
  }
  LoraConfig config;
  config.rank = json.at("r").as_integer();
  config.alpha = json.at("lora_alpha").as_double();
  if (config.rank < 1 || config.rank > 65536) raise(ErrorCategory::kBadData, "{}: r is {}", origin, config.rank);
  if (const Value* dropout = json.find("lora_dropout")) config.dropout = dropout->as_double();
  config.rank_stabilised = is_set("use_rslora");
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

}  // namespace

void write_peft_files(const fs::path& folder, const LoraAdapter& adapter,
                      const std::vector<std::pair<Tensor, Tensor>>& masters, const AdapterOrigin& origin,
                      std::int64_t blocks) {
  std::vector<formats::TensorToWrite> tensors;
  for (std::size_t i = 0; i < adapter.modules().size(); ++i) {
    const std::string name = std::string(kPrefix) + adapter.modules()[i].name;
    const auto& [a, b] = masters[i];
    tensors.push_back({name + ".lora_A.weight", a.shape(), tensor::DType::kF32, [a = a] { return a; }});
    tensors.push_back({name + ".lora_B.weight", b.shape(), tensor::DType::kF32, [b = b] { return b; }});
  }
  formats::write_safetensors(folder / "adapter_model.safetensors", tensors, Value::object({{"format", "pt"}}));
  write_file_atomic(folder / "adapter_config.json",
                    dump_json(config_value(adapter, origin, blocks), {.indent = 2}) + "\n");
  const Value ours = Value::object({{"format_version", 1},
                                    {"base_model", origin.base_model},
                                    {"base_fingerprint", origin.base_fingerprint},
                                    {"template_fingerprint", origin.template_fingerprint},
                                    {"chat_template", origin.chat_template}});
  write_file_atomic(folder / "instruct.json", dump_json(ours, {.indent = 2}) + "\n");
}

LoadedAdapter load_peft_folder(const fs::path& folder, Llama& model, tensor::Allocator& allocator) {
  const fs::path config_path = folder / "adapter_config.json";
  if (!fs::exists(config_path)) {
    raise(ErrorCategory::kNotFound, "adapter '{}': adapter_config.json is missing: expected a PEFT folder",
          folder.string());
  }
  const LoraConfig config = with_origin(config_path.string(), [&] {
    return config_from(parse_json(read_file(config_path, 16 << 20), config_path.string()), config_path.string());
  });
  if (!fs::exists(folder / "adapter_model.safetensors")) {
    raise(ErrorCategory::kNotFound, "adapter '{}': adapter_model.safetensors is missing{}", folder.string(),
          fs::exists(folder / "adapter_model.bin") ? ": adapter_model.bin is not read; save it again with PEFT" : "");
  }
  const auto file = formats::SafetensorsFile::open(folder / "adapter_model.safetensors");
  std::map<std::string, LoraAdapter::Weights> found;
  for (const std::string& name : file->names()) {
    std::string module = name;
    if (module.starts_with(kPrefix)) module = module.substr(kPrefix.size());
    const bool is_a = module.ends_with(".lora_A.weight");
    if (!is_a && !module.ends_with(".lora_B.weight")) {
      raise(ErrorCategory::kUnsupported, "{}: tensor '{}' is no LoRA matrix", file->origin(), name);
    }
    module.resize(module.size() - std::string_view(".lora_A.weight").size());
    LoraAdapter::Weights& weights = found[module];
    weights.module = module;
    (is_a ? weights.a : weights.b) = ops::converted_copy(file->tensor(name), tensor::DType::kF32, allocator);
  }
  std::vector<LoraAdapter::Weights> ordered;
  std::vector<nn::Linear*> layers = model.linears();
  for (nn::Linear* layer : layers) {
    if (const auto it = found.find(layer->name); it != found.end()) {
      ordered.push_back(it->second);
      found.erase(it);
    }
  }
  for (auto& [module, weights] : found) ordered.push_back(weights);  // refused by load(), with the nearest name
  if (ordered.empty()) raise(ErrorCategory::kBadData, "{}: no LoRA matrices", file->origin());
  for (const LoraAdapter::Weights& weights : ordered) {
    if (!weights.a.defined() || !weights.b.defined()) {
      raise(ErrorCategory::kBadData, "{}: module '{}' lacks its A or B matrix", file->origin(), weights.module);
    }
  }
  LoadedAdapter loaded;
  loaded.adapter = with_origin(folder.string(),
                               [&] { return LoraAdapter::load(config, ordered, layers, model.dtype(), allocator); });
  for (const LoraAdapter::Weights& weights : ordered) loaded.masters.emplace_back(weights.a, weights.b);
  loaded.origin.base_model = "";
  if (fs::exists(folder / "instruct.json")) {
    const Value ours = parse_json(read_file(folder / "instruct.json", 64 << 20), (folder / "instruct.json").string());
    const auto text = [&](const char* key) {
      const Value* value = ours.find(key);
      return value != nullptr && value->is_string() ? value->as_string() : std::string();
    };
    loaded.origin = {text("base_model"), text("base_fingerprint"), text("template_fingerprint"), text("chat_template")};
  }
  return loaded;
}

void check_origin(const AdapterOrigin& trained, const AdapterOrigin& given, const std::string& where) {
  if (trained.base_fingerprint.empty()) {
    log_warning(
        "adapter '{}' does not say by fingerprint which model it was trained on (it names '{}'): it fits the shapes of "
        "'{}', and nothing more is known",
        where, trained.base_model, given.base_model);
  } else if (trained.base_fingerprint != given.base_fingerprint) {
    raise(ErrorCategory::kInvalidArgument, "adapter '{}' was trained on another base model, '{}', not on '{}'", where,
          trained.base_model, given.base_model);
  }
  if (trained.template_fingerprint.empty() || trained.template_fingerprint == given.template_fingerprint) return;
  if (trained.chat_template == given.chat_template) {
    raise(ErrorCategory::kInvalidArgument, "adapter '{}' was trained with another tokenizer than this model's", where);
  }
  raise(ErrorCategory::kInvalidArgument,
        "adapter '{}' was trained with another chat template (-) than this model's (+):\n{}", where,
        template_diff(trained.chat_template, given.chat_template));
}

}  // namespace instruct::models
