#include "models/adapter_files.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/diff.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "formats/safetensors.h"
#include "models/adapter_readers.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using adapters::LoraAdapter;
using adapters::LoraConfig;

constexpr std::string_view kPrefix = "base_model.model.";

// Short names when the adapter has every layer of that name, else full paths: PEFT makes a module for each match, and
// one without matrices would be a warning there. Where a block has several of a name (GPT-2's attn.c_proj and
// mlp.c_proj), the part before it stands with it.
std::vector<std::string> target_modules(const LoraAdapter& adapter, std::int64_t blocks) {
  std::map<std::string, std::map<std::string, std::vector<std::string>>> by_end;  // by one part, by two
  for (const adapters::LoraModule& module : adapter.modules()) {
    const std::size_t last = module.name.rfind('.');
    const std::size_t before = last == std::string::npos ? last : module.name.rfind('.', last - 1);
    by_end[module.name.substr(last + 1)][module.name.substr(before + 1)].push_back(module.name);
  }
  std::vector<std::string> targets;
  for (const auto& [part, by_two] : by_end) {
    for (const auto& [two, names] : by_two) {
      const bool everywhere = names.size() == static_cast<std::size_t>(blocks);
      if (everywhere) targets.push_back(by_two.size() == 1 ? part : two);
      if (!everywhere) targets.insert(targets.end(), names.begin(), names.end());
    }
  }
  return targets;
}

// Only keys that old PEFT versions know: an unknown one makes them fail.
Value config_value(const LoraAdapter& adapter, const AdapterOrigin& origin, std::int64_t blocks,
                   const AdapterHeads& heads) {
  Value saved = heads.weights.empty() ? Value() : Value::array();
  for (const auto& [name, weight] : heads.weights) {
    const Value module(name.substr(0, name.find('.')));
    const auto& known = saved.as_array();
    if (std::find(known.begin(), known.end(), module) == known.end()) saved.push(module);
  }
  const LoraConfig& config = adapter.config();
  Value target_values = Value::array();
  for (const std::string& target : target_modules(adapter, blocks)) target_values.push(target);
  Value ranks = Value::object();
  for (const auto& [key, rank] : config.rank_pattern) ranks.set(key, rank);
  Value alphas = Value::object();
  for (const auto& [key, alpha] : config.alpha_pattern) alphas.set(key, alpha);
  const double whole = std::floor(config.alpha);
  const bool inputs_first = std::any_of(adapter.modules().begin(), adapter.modules().end(),
                                        [](const auto& module) { return module.layer->inputs_first; });
  return Value::object(
      {{"peft_type", "LORA"},
       {"task_type", heads.task_type.empty() ? Value() : Value(heads.task_type)},
       {"base_model_name_or_path", origin.base_model},
       {"inference_mode", true},
       {"r", config.rank},
       {"lora_alpha", whole == config.alpha ? Value(static_cast<std::int64_t>(whole)) : Value(config.alpha)},
       {"lora_dropout", config.dropout},
       {"target_modules", target_values},
       {"bias", "none"},
       {"fan_in_fan_out", inputs_first},
       {"use_rslora", config.rank_stabilised},
       {"modules_to_save", saved},
       {"rank_pattern", ranks},
       {"alpha_pattern", alphas}});
}

}  // namespace

void write_peft_files(const fs::path& folder, const LoraAdapter& adapter,
                      const std::vector<std::pair<Tensor, Tensor>>& masters, const AdapterOrigin& origin,
                      std::int64_t blocks, const AdapterHeads& heads) {
  std::vector<formats::TensorToWrite> tensors;
  for (std::size_t i = 0; i < adapter.modules().size(); ++i) {
    const std::string name = std::string(kPrefix) + adapter.modules()[i].name;
    const auto& [a, b] = masters[i];
    tensors.push_back({name + ".lora_A.weight", a.shape(), tensor::DType::kF32, [a = a] { return a; }});
    tensors.push_back({name + ".lora_B.weight", b.shape(), tensor::DType::kF32, [b = b] { return b; }});
  }
  for (const auto& [name, weight] : heads.weights) {
    tensors.push_back(
        {std::string(kPrefix) + name, weight.shape(), tensor::DType::kF32, [weight = weight] { return weight; }});
  }
  formats::write_safetensors(folder / "adapter_model.safetensors", tensors, Value::object({{"format", "pt"}}));
  write_file_atomic(folder / "adapter_config.json",
                    dump_json(config_value(adapter, origin, blocks, heads), {.indent = 2}) + "\n");
  Value ours = Value::object({{"format_version", 1},
                              {"base_model", origin.base_model},
                              {"base_fingerprint", origin.base_fingerprint},
                              {"template_fingerprint", origin.template_fingerprint},
                              {"chat_template", origin.chat_template}});
  if (heads.description.is_object()) {
    for (const auto& [key, value] : heads.description.as_object()) ours.set(key, value);
  }
  write_file_atomic(folder / "instruct.json", dump_json(ours, {.indent = 2}) + "\n");
}

namespace {

LoadedAdapter attached(const fs::path& folder, AdapterContent content, const std::vector<nn::Linear*>& layers,
                       tensor::DType dtype, tensor::Allocator& allocator) {
  std::vector<LoraAdapter::Weights> ordered;
  for (nn::Linear* layer : layers) {
    if (const auto it = content.by_module.find(layer->name); it != content.by_module.end()) {
      ordered.push_back(it->second);
      content.by_module.erase(it);
    }
  }
  for (auto& [module, weights] : content.by_module)
    ordered.push_back(weights);  // refused by load(), with the nearest name
  LoadedAdapter loaded;
  loaded.adapter = with_origin(folder.string(),
                               [&] { return LoraAdapter::load(content.config, ordered, layers, dtype, allocator); });
  for (const LoraAdapter::Weights& weights : ordered) loaded.masters.emplace_back(weights.a, weights.b);
  loaded.origin.base_model = content.base_model;
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

}  // namespace

LoadedAdapter load_adapter_folder(const fs::path& folder, LanguageModel& model, tensor::Allocator& allocator) {
  AdapterContent content = read_adapter_folder(folder, allocator);
  if (!content.saved.empty())
    raise(ErrorCategory::kUnsupported, "{}: option 'modules_to_save' is not supported for decoders (it holds '{}')",
          content.origin, content.saved.begin()->first);
  return attached(folder, std::move(content), model.linears(), model.dtype(), allocator);
}

LoadedAdapter load_adapter_folder(const fs::path& folder, Encoder& model, tensor::Allocator& allocator,
                                  std::map<std::string, Tensor>& heads) {
  AdapterContent content = read_adapter_folder(folder, allocator);
  heads = std::move(content.saved);
  return attached(folder, std::move(content), model.linears(), model.dtype(), allocator);
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
