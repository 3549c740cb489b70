// What adapter_config.json says of a LoRA adapter, in the words of several tools.
#pragma once

#include <cstdint>
#include <string>

#include "adapters/lora.h"
#include "base/value.h"

namespace instruct::models {

struct AdapterDescription {
  enum class Tool : std::uint8_t { kPeft, kMlx, kAdapterHub };
  Tool tool = Tool::kPeft;
  adapters::LoraConfig config;
  std::string base_model;
  bool saves_modules = false;  // PEFT's modules_to_save
};
// Told apart by their keys (adapter_readers.h). Raises BadData for anything malformed and Unsupported, naming it, for
// another kind of adapter or an option that this program cannot honour; `origin` names the file.
AdapterDescription adapter_description(const Value& json, const std::string& origin);

}  // namespace instruct::models
