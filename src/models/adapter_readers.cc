#include "models/adapter_readers.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "formats/pytorch.h"
#include "formats/safetensors.h"
#include "ops/weights.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using adapters::LoraAdapter;
using adapters::LoraConfig;
using tensor::Tensor;
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

// How a tool names its files and matrices.
struct Names {
  std::array<std::string_view, 2> files;  // the second may be empty
  std::string_view prefix;
  std::string_view a, b;    // ends of names
  std::string_view before;  // what ends a module's name instead, where more stands between it and the end
  bool transposed = false;
};

Names names_of(Tool tool) {
  switch (tool) {
    case Tool::kMlx:
      return {{"adapters.safetensors"}, "", ".lora_a", ".lora_b", "", true};
    case Tool::kAdapterHub:
      return {{"adapter.safetensors", "pytorch_adapter.bin"}, "", ".lora_A", ".lora_B", ".loras."};
    default:
      return {{"adapter_model.safetensors", "adapter_model.bin"},
              "base_model.model.",
              ".lora_A.weight",
              ".lora_B.weight",
              ""};
  }
}

std::shared_ptr<const formats::TensorFile> open_weights(const fs::path& folder, const Names& names) {
  for (const std::string_view name : names.files) {
    const fs::path path = folder / name;
    if (name.empty() || !fs::exists(path)) continue;
    if (name.ends_with(".bin")) return formats::PytorchFile::open(path);
    return formats::SafetensorsFile::open(path);
  }
  raise(ErrorCategory::kNotFound, "adapter '{}': {} is missing{}", folder.string(), names.files[0],
        names.files[1].empty() ? "" : fmt::format(", and {} too", names.files[1]));
}

Tensor transposed(const Tensor& matrix, tensor::Allocator& allocator) {
  Tensor result = Tensor::empty({matrix.dim(1), matrix.dim(0)}, tensor::DType::kF32, allocator);
  for (std::int64_t i = 0; i < matrix.dim(0); ++i) {
    for (std::int64_t j = 0; j < matrix.dim(1); ++j)
      result.data<float>()[j * matrix.dim(0) + i] = matrix.data<float>()[i * matrix.dim(1) + j];
  }
  return result;
}

Tensor matrix_of(const formats::TensorFile& file, const std::string& name, const Names& names,
                 tensor::Allocator& allocator) {
  const Tensor stored = file.tensor(name);
  if (stored.rank() != 2 || stored.elements() == 0)
    raise(ErrorCategory::kBadData, "{}: tensor '{}' has shape {}: a LoRA matrix has two dimensions", file.origin(),
          name, stored.shape().text());
  const Tensor matrix = ops::converted_copy(stored, tensor::DType::kF32, allocator);
  return names.transposed ? transposed(matrix, allocator) : matrix;
}

// The module that a tensor belongs to; empty where the name is not one of a LoRA matrix.
std::string module_of(const std::string& name, const Names& names) {
  std::string_view module = name;
  if (module.starts_with(names.prefix)) module.remove_prefix(names.prefix.size());
  if (!module.ends_with(names.a) && !module.ends_with(names.b)) return "";
  module.remove_suffix(names.a.size());
  if (names.before.empty()) return std::string(module);
  const std::size_t end = module.rfind(names.before);
  return std::string(module.substr(0, end == std::string_view::npos ? 0 : end));
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

AdapterContent read_adapter_folder(const fs::path& folder, tensor::Allocator& allocator) {
  const fs::path path = folder / "adapter_config.json";
  if (!fs::exists(path)) {
    raise(ErrorCategory::kNotFound,
          "adapter '{}': adapter_config.json is missing: expected a folder of PEFT, mlx-lm or AdapterHub",
          folder.string());
  }
  const AdapterDescription described =
      adapter_description(parse_json(read_file(path, 16 << 20), path.string()), path.string());
  const Names names = names_of(described.tool);
  const auto file = open_weights(folder, names);
  AdapterContent content{.config = described.config, .base_model = described.base_model, .origin = file->origin()};
  for (const std::string& name : file->names()) {
    const std::string module = module_of(name, names);
    if (module.empty() && described.saves_modules && name.starts_with(names.prefix)) {
      content.saved[name.substr(names.prefix.size())] =
          ops::converted_copy(file->tensor(name), tensor::DType::kF32, allocator);
      continue;
    }
    if (module.empty()) raise(ErrorCategory::kUnsupported, "{}: tensor '{}' is no LoRA matrix", file->origin(), name);
    LoraAdapter::Weights& weights = content.by_module[module];
    weights.module = module;
    (name.ends_with(names.a) ? weights.a : weights.b) = matrix_of(*file, name, names, allocator);
  }
  if (content.by_module.empty()) raise(ErrorCategory::kBadData, "{}: no LoRA matrices", file->origin());
  for (const auto& [module, weights] : content.by_module) {
    if (!weights.a.defined() || !weights.b.defined())
      raise(ErrorCategory::kBadData, "{}: module '{}' lacks its A or B matrix", file->origin(), module);
  }
  if (fs::exists(folder / "pytorch_model_head.bin") || fs::exists(folder / "model_head.safetensors"))
    log_warning("adapter '{}' has a head of its own, which is not read: it is right where that was not trained",
                folder.string());
  return content;
}

}  // namespace instruct::models
