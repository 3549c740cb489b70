// LoRA adapters as several tools write them, read into one form. The tool is told by the keys of adapter_config.json.
//
// PEFT: `peft_type`; adapter_model.safetensors or .bin. mlx-lm: `fine_tune_type` or `lora_parameters`;
// adapters.safetensors, matrices transposed, a factor instead of alpha. AdapterHub's adapters: `config` and `version`;
// adapter.safetensors or pytorch_adapter.bin, the adapter's name within the tensors' names.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "adapters/lora.h"
#include "base/value.h"

namespace instruct::models {

using tensor::Tensor;

struct AdapterContent {
  adapters::LoraConfig config;
  std::string base_model;                                           // as the tool names it
  std::map<std::string, adapters::LoraAdapter::Weights> by_module;  // A [R, K] and B [N, R], f32
  std::map<std::string, Tensor> saved;  // weights of whole modules that were trained beside (modules_to_save), f32
  std::string origin;                   // the file of the weights
};

// Reads a folder. Raises NotFound for a missing file, saying which were looked for; BadData for anything malformed;
// Unsupported, naming it, for another kind of adapter (bottleneck, prefix, DoRA, ...) or an option that this program
// cannot honour.
AdapterContent read_adapter_folder(const std::filesystem::path& folder, tensor::Allocator& allocator);

// What adapter_config.json alone says.
struct AdapterDescription {
  enum class Tool : std::uint8_t { kPeft, kMlx, kAdapterHub };
  Tool tool = Tool::kPeft;
  adapters::LoraConfig config;
  std::string base_model;
  bool saves_modules = false;  // PEFT's modules_to_save
};
// Raises as read_adapter_folder(); `origin` names the file.
AdapterDescription adapter_description(const Value& json, const std::string& origin);

}  // namespace instruct::models
