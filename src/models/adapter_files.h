// LoRA adapters as folders: written as PEFT does, adapter_config.json and adapter_model.safetensors, and beside them
// our instruct.json; read as other tools write them too (adapter_readers.h).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "adapters/lora.h"
#include "models/encoder.h"
#include "models/language_model.h"

namespace instruct::models {

// What an adapter was trained with; checked when it is loaded.
struct AdapterOrigin {
  std::string base_model;            // path or name as the user gave it
  std::string base_fingerprint;      // Llama::fingerprint(); empty when unknown
  std::string template_fingerprint;  // of chat template and tokenizer; empty when unknown
  std::string chat_template;         // to show a difference
};

// What was trained beside an adapter of an encoder.
struct AdapterHeads {
  std::vector<std::pair<std::string, Tensor>> weights = {};  // f32, by name: PEFT's modules_to_save
  Value description = {};                                    // members of instruct.json
  std::string task_type = "CAUSAL_LM";                       // as PEFT has it; empty: none
};

// Writes the folder's files into an existing folder (usually the temporary one of an AtomicFolder). `masters` are A and
// B in f32, in the order of the adapter's modules; `blocks` is how many the model has.
void write_peft_files(const std::filesystem::path& folder, const adapters::LoraAdapter& adapter,
                      const std::vector<std::pair<Tensor, Tensor>>& masters, const AdapterOrigin& origin,
                      std::int64_t blocks, const AdapterHeads& heads = {});

struct LoadedAdapter {
  std::unique_ptr<adapters::LoraAdapter> adapter;  // attached to the model's layers
  std::vector<std::pair<Tensor, Tensor>> masters;  // A and B in f32, by module
  AdapterOrigin origin;
};

// Reads a LoRA folder of PEFT, mlx-lm or AdapterHub and attaches it. Raises NotFound for a wrong path; Unsupported for
// another adapter kind or an option this program cannot honour, naming it; InvalidArgument when it belongs to another
// base model.
LoadedAdapter load_adapter_folder(const std::filesystem::path& folder, LanguageModel& model,
                                  tensor::Allocator& allocator);
// The same for an encoder; `heads` gets what was trained beside the adapter.
LoadedAdapter load_adapter_folder(const std::filesystem::path& folder, Encoder& model, tensor::Allocator& allocator,
                                  std::map<std::string, Tensor>& heads);

// Raises InvalidArgument when an adapter whose origin is known was trained with another base model, or with another
// chat template or tokenizer; with the first difference of the two templates.
void check_origin(const AdapterOrigin& trained, const AdapterOrigin& given, const std::string& where);

}  // namespace instruct::models
