// LoRA adapters as several tools write them, read into one form. The tool is told by the keys of adapter_config.json.
//
// PEFT: `peft_type`; adapter_model.safetensors or .bin. mlx-lm: `fine_tune_type` or `lora_parameters`;
// adapters.safetensors, matrices transposed, a factor instead of alpha. AdapterHub's adapters: `config` and `version`;
// adapter.safetensors or pytorch_adapter.bin, the adapter's name within the tensors' names.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "models/adapter_description.h"

namespace instruct::models {

struct AdapterContent {
  adapters::LoraConfig config;
  std::string base_model;                                           // as the tool names it
  std::map<std::string, adapters::LoraAdapter::Weights> by_module;  // A [R, K] and B [N, R], f32
  // Weights of whole modules that were trained beside (PEFT's modules_to_save), f32, by name.
  std::map<std::string, tensor::Tensor> saved;
  std::string origin;  // the file of the weights
};

// Reads a folder. Raises NotFound for a missing file, saying which were looked for; BadData for anything malformed;
// Unsupported, naming it, for another kind of adapter (bottleneck, prefix, DoRA, ...) or an option that this program
// cannot honour.
AdapterContent read_adapter_folder(const std::filesystem::path& folder, tensor::Allocator& allocator);

}  // namespace instruct::models
