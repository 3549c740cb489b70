#include "models/adapter_readers.h"

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
using tensor::Tensor;
using Tool = AdapterDescription::Tool;

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

Tensor matrix_of(const formats::TensorFile& file, const std::string& name, const Names& names,
                 tensor::Allocator& allocator) {
  const Tensor stored = file.tensor(name);
  if (stored.rank() != 2 || stored.elements() == 0)
    raise(ErrorCategory::kBadData, "{}: tensor '{}' has shape {}: a LoRA matrix has two dimensions", file.origin(),
          name, stored.shape().text());
  const Tensor matrix = ops::converted_copy(stored, tensor::DType::kF32, allocator);
  return names.transposed ? ops::transposed_copy(matrix, allocator) : matrix;
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
