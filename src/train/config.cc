// One table describes every key: its names, where its value lives, its bounds and its meaning. Parsing, saving and help
// all read that table.
#include "train/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <tuple>
#include <variant>

#include <fmt/format.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "train/foreign_keys.h"

namespace instruct::train {
namespace {

using Field = std::variant<std::string TrainConfig::*, bool TrainConfig::*, std::int64_t TrainConfig::*,
                           double TrainConfig::*, std::uint64_t TrainConfig::*, std::optional<double> TrainConfig::*,
                           std::optional<bool> TrainConfig::*, std::vector<std::string> TrainConfig::*>;

struct Key {
  std::string name;
  std::vector<std::string> aliases;
  Field field;
  std::string meaning;
  std::vector<std::string> choices;  // allowed texts; empty for any
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
};

std::vector<Key> data_keys() {
  using C = TrainConfig;
  return {
      {"model_name_or_path", {"model", "base_model"}, &C::model_name_or_path, "GGUF file or Hugging Face folder", {}},
      {"adapter_name_or_path",
       {"adapter", "lora_model_dir", "resume_adapter_file"},
       &C::adapter_name_or_path,
       "LoRA adapter to start from",
       {}},
      {"instructions", {}, &C::instructions, "instruction set (*.iset.yaml)", {}},
      {"dataset",
       {"data", "train_dataset", "train_file"},
       &C::dataset,
       "training rows: path, or a name in dataset_info.json",
       {}},
      {"dataset_dir", {}, &C::dataset_dir, "folder of dataset_info.json", {}},
      {"eval_dataset", {"validation_file"}, &C::eval_dataset, "rows evaluated during training", {}},
      {"test_dataset", {"test_file"}, &C::test_dataset, "rows of the final table", {}},
      {"val_size", {"val_set_size"}, &C::val_size, "training rows held out: fraction below 1, or count", {}, 0},
      {"chat_template", {"template"}, &C::chat_template, "template file used instead of the model's own", {}},
      {"cutoff_len",
       {"max_length", "sequence_len", "max_seq_length", "max_seq_len"},
       &C::cutoff_len,
       "longest row in tokens",
       {},
       1,
       1 << 24},
      {"overflow",
       {"overflow_policy"},
       &C::overflow,
       "what happens to longer rows",
       {"drop", "split", "left", "raise", "right"}},
      {"packing",
       {"neat_packing", "sample_packing"},
       &C::packing,
       "rows side by side (true), one after another (false), shared prefixes once (tree), or what is predicted to "
       "be fastest (auto)",
       {"true", "false", "tree", "auto"}},
      {"shuffle", {}, &C::shuffle, "new order every epoch", {}},
      {"train_on_prompt", {"train_on_inputs"}, &C::train_on_prompt, "train on all tokens, not on answers alone", {}},
      {"mask_history", {}, &C::mask_history, "train on the last answer of a dialogue only", {}},
      {"pooling",
       {"classifier_pooling"},
       &C::pooling,
       "of an encoder, what labels are read off: the first token (first), the mean over all (mean), or auto: what the "
       "model was made with",
       {"auto", "first", "mean"}},
      {"dropout",
       {"hidden_dropout_prob"},
       &C::dropout,
       "of an encoder, of hidden states (default: the model's own)",
       {},
       0,
       0.999},
      {"mlm_probability", {}, &C::mlm_probability, "share of plain texts to mask, or to leave out", {}, 0, 1},
      {"mean_noise_span_length",
       {},
       &C::mean_noise_span_length,
       "mean length of the spans left out of an encoder-decoder's texts, tokens",
       {},
       1,
       1000},
      {"whole_word_masking", {"whole_word_mask", "wwm"}, &C::whole_word_masking, "mask whole words", {}},
      {"shots", {"num_fewshot"}, &C::shots, "examples of the instruction set before each row", {}, 0, 1000},
  };
}

std::vector<Key> optimiser_keys() {
  using C = TrainConfig;
  return {
      {"finetuning_type", {"fine_tune_type", "adapter_type"}, &C::finetuning_type, "what is trained", {"lora", "full"}},
      {"keep_quantised",
       {"keep_quantized", "load_in_4bit", "load_in_8bit"},
       &C::keep_quantised,
       "leave a quantised base as it is and convert by tile",
       {}},
      {"base_compute",
       {},
       &C::base_compute,
       "products with a frozen base: dtype, or int8 (8-bit integers, faster)",
       {"dtype", "int8"}},
      {"gradient_checkpointing",
       {"activation_checkpointing", "grad_checkpoint"},
       &C::gradient_checkpointing,
       "keep only the input of each block: less memory, about a third more time",
       {}},
      {"lora_rank", {"lora_r", "r", "rank"}, &C::lora_rank, "LoRA rank", {}, 1, 65536},
      {"lora_alpha", {}, &C::lora_alpha, "LoRA alpha (default twice the rank)", {}, 0},
      {"lora_dropout", {}, &C::lora_dropout, "dropout on the LoRA input", {}, 0, 0.999},
      {"lora_target",
       {"target_modules", "lora_target_modules", "lora_target_linear"},
       &C::lora_target,
       "modules: all-linear, or names such as q_proj,v_proj",
       {}},
      {"use_rslora", {"peft_use_rslora"}, &C::use_rslora, "scale alpha/sqrt(r) instead of alpha/r", {}},
      {"per_device_train_batch_size",
       {"micro_batch_size", "batch_size"},
       &C::per_device_train_batch_size,
       "rows a micro-batch",
       {},
       1,
       1 << 20},
      {"gradient_accumulation_steps",
       {"grad_accumulation_steps"},
       &C::gradient_accumulation_steps,
       "micro-batches an optimizer step",
       {},
       1,
       1 << 20},
      {"per_device_eval_batch_size",
       {"eval_batch_size"},
       &C::per_device_eval_batch_size,
       "rows an evaluation batch",
       {},
       1,
       1 << 20},
      {"optim",
       {"optimizer"},
       &C::optim,
       "optimizer: AdamW with moments in f32 or, for less memory, in 8 bits",
       {"adamw", "adamw_8bit"}},
      {"learning_rate", {"lr"}, &C::learning_rate, "peak learning rate", {}, 0, 1e6},
      {"num_train_epochs", {"num_epochs", "epochs"}, &C::num_train_epochs, "passes over the rows", {}, 0, 1e6},
      {"max_steps", {"iters"}, &C::max_steps, "optimizer steps; above 0 it overrides num_train_epochs", {}, -1},
      {"lr_scheduler_type",
       {"lr_scheduler"},
       &C::lr_scheduler_type,
       "schedule",
       {"cosine", "linear", "constant", "constant_with_warmup"}},
      {"warmup_steps", {"num_warmup_steps"}, &C::warmup_steps, "steps of linear warm-up", {}, 0},
      {"warmup_ratio", {}, &C::warmup_ratio, "warm-up as a share of all steps", {}, 0, 1},
      {"weight_decay", {}, &C::weight_decay, "decoupled L2 decay of matrices", {}, 0, 1e3},
      {"adam_beta1", {}, &C::adam_beta1, "decay of the first moment", {}, 0, 0.999999},
      {"adam_beta2", {}, &C::adam_beta2, "decay of the second moment", {}, 0, 0.999999},
      {"adam_epsilon", {}, &C::adam_epsilon, "added to the root of the second moment", {}, 0},
      {"max_grad_norm", {"gradient_clipping"}, &C::max_grad_norm, "clips the global gradient norm; 0 for none", {}, 0},
      {"dtype", {}, &C::dtype, "compute type", {"auto", "bf16", "f32"}},
      {"threads", {}, &C::threads, "threads; 0 takes all processors", {}, 0, 4096},
      {"memory_limit",
       {},
       &C::memory_limit,
       "most memory of the process (1.5G, 900M, 2GiB): rows a pass and gradient_checkpointing are chosen to stay below",
       {}},
      {"seed", {}, &C::seed, "of shuffling, dropout and fresh weights", {}, 0},
  };
}

std::vector<Key> run_keys() {
  using C = TrainConfig;
  return {
      {"logging_steps", {"steps_per_report"}, &C::logging_steps, "optimizer steps between log lines", {}, 1},
      {"eval_strategy",
       {"evaluation_strategy"},
       &C::eval_strategy,
       "when to evaluate; auto: each epoch when there are rows for it",
       {"auto", "no", "steps", "epoch"}},
      {"eval_steps", {"steps_per_eval"}, &C::eval_steps, "with eval_strategy steps", {}, 0},
      {"save_strategy", {}, &C::save_strategy, "when to save checkpoints", {"no", "steps", "epoch"}},
      {"save_steps", {"save_every"}, &C::save_steps, "with save_strategy steps", {}, 0},
      {"save_total_limit", {}, &C::save_total_limit, "checkpoints kept; 0 for all", {}, 0},
      {"predict_with_generate",
       {},
       &C::predict_with_generate,
       "metrics of generated answers in evaluations (default: each epoch, where a verb names metrics)",
       {}},
      {"max_eval_rows", {"max_eval_samples"}, &C::max_eval_rows, "rows evaluated; 0 for all", {}, 0},
      {"load_best_model_at_end", {}, &C::load_best_model_at_end, "finish with the best checkpoint", {}},
      {"metric_for_best_model", {}, &C::metric_for_best_model, "eval_loss, or a metric such as eval_rougeL", {}},
      {"greater_is_better", {}, &C::greater_is_better, "direction of that metric (default by name)", {}},
      {"early_stopping_patience",
       {"early_stopping_steps"},
       &C::early_stopping_patience,
       "evaluations without improvement before stopping; 0 for never",
       {},
       0},
      {"output_dir", {"output", "adapter_path"}, &C::output_dir, "folder of results", {}},
      {"overwrite_output_dir", {}, &C::overwrite_output_dir, "replace existing results", {}},
      {"resume_from_checkpoint", {"resume"}, &C::resume_from_checkpoint, "checkpoint folder, or auto", {}},
  };
}

std::vector<Key> all_keys() {
  std::vector<Key> keys = data_keys();
  for (auto more : {optimiser_keys(), run_keys()}) keys.insert(keys.end(), more.begin(), more.end());
  return keys;
}

// Where a value came from, for messages.
struct Source {
  std::string where;  // "train.yaml:12" or "command line"
  std::string key;
};

[[noreturn]] void refuse(const Source& source, const std::string& expected, const std::string& received) {
  raise(ErrorCategory::kInvalidArgument, "{}: key '{}' expects {}, got '{}'", source.where, source.key, expected,
        received);
}

std::string as_text(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kBool:
      return value.as_bool() ? "true" : "false";
    case Value::Kind::kInteger:
      return fmt::format("{}", value.as_integer());
    case Value::Kind::kFloat:
      return fmt::format("{}", value.as_double());
    case Value::Kind::kString:
      return value.as_string();
    default:
      return std::string(kind_name(value.kind()));
  }
}

double number(const Source& source, const Value& value, const Key& key) {
  double result = 0;
  const std::string text = as_text(value);
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), result);
  if (status != std::errc() || end != text.data() + text.size() || !std::isfinite(result)) {
    refuse(source, "a number", text);
  }
  if (result < key.least || result > key.most) {
    refuse(source,
           std::isinf(key.most) ? fmt::format("at least {}", key.least) : fmt::format("{} to {}", key.least, key.most),
           text);
  }
  return result;
}

std::int64_t integer(const Source& source, const Value& value, const Key& key) {
  const double result = number(source, value, key);
  if (result != std::floor(result) || std::abs(result) > 9e15) refuse(source, "a whole number", as_text(value));
  return static_cast<std::int64_t>(result);
}

bool boolean(const Source& source, const Value& value) {
  const std::string text = to_lower_ascii(as_text(value));
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  refuse(source, "true or false", text);
}

std::vector<std::string> names(const Value& value) {
  std::vector<std::string> result;
  if (value.is_array()) {
    for (const Value& item : value.as_array()) result.push_back(as_text(item));
    return result;
  }
  const std::string text = as_text(value);
  for (const std::string_view part : split(text, ',')) result.emplace_back(trim(part));
  return result;
}

void assign(TrainConfig& config, const Key& key, const Value& value, const Source& source) {
  std::visit(
      [&](auto member) {
        auto& target = config.*member;
        using T = std::remove_cvref_t<decltype(target)>;
        if constexpr (std::is_same_v<T, std::string>) {
          target = as_text(value);
          if (!key.choices.empty() && std::find(key.choices.begin(), key.choices.end(), target) == key.choices.end()) {
            refuse(source, "one of " + fmt::format("{}", fmt::join(key.choices, ", ")), target);
          }
        } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>) {
          target = boolean(source, value);
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          target = integer(source, value, key);
        } else if constexpr (std::is_same_v<T, std::uint64_t>) {
          target = static_cast<std::uint64_t>(integer(source, value, key));
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          target = names(value);
        } else {
          target = number(source, value, key);
        }
      },
      key.field);
}

const Key* find_key(const std::vector<Key>& keys, const std::string& name) {
  for (const Key& key : keys) {
    if (key.name == name || std::find(key.aliases.begin(), key.aliases.end(), name) != key.aliases.end()) return &key;
  }
  return nullptr;
}

// A key that is not ours: fine where it asks for what is done anyway, else an error that says what is done instead.
void take_foreign(const std::vector<Key>& keys, const Source& source, const Value& value) {
  const std::string text = value.is_null()    ? ""
                           : value.is_array() ? fmt::format("{}", fmt::join(names(value), ","))
                                              : as_text(value);
  const ForeignAnswer answer = foreign_key(source.key, to_lower_ascii(text));
  if (answer.kind == ForeignKey::kIgnored) log_info("{}: '{}' is not used: {}", source.where, source.key, answer.why);
  if (answer.kind == ForeignKey::kUnsupported) {
    raise(ErrorCategory::kUnsupported, "{}: '{}: {}' is not supported yet: {}", source.where, source.key, text,
          answer.why);
  }
  if (answer.kind != ForeignKey::kUnknown) return;
  std::vector<std::string> known;
  for (const Key& key : keys) {
    known.push_back(key.name);
    known.insert(known.end(), key.aliases.begin(), key.aliases.end());
  }
  raise(ErrorCategory::kInvalidArgument, "{}: unknown key '{}'{}", source.where, source.key,
        did_you_mean(source.key, known));
}

// AdamW under the names of others. On one processor fused is what it is anyway, and nothing is paged.
std::string optimizer_name(const std::string& name) {
  for (const char* same : {"adamw_torch", "adamw_torch_fused", "adamw_hf"}) {
    if (name == same) return "adamw";
  }
  return name == "adamw_bnb_8bit" || name == "paged_adamw_8bit" ? "adamw_8bit" : name;
}

// Reads the values of one source after the other; knows which keys were given.
class Reader {
 public:
  explicit Reader(TrainConfig& config) : keys_(all_keys()), config_(config) {}

  void take(const std::string& given_name, const Value& given_value, const std::string& where, bool may_repeat) {
    std::string name = given_name;
    Value value = given_value;
    if ((name == "bf16" || name == "pure_bf16") && !value.is_null()) {  // how others spell dtype
      if (!boolean({where, name}, value)) return;
      std::tie(name, value) = std::pair("dtype", Value("bf16"));
    }
    if ((name == "optim" || name == "optimizer") && !value.is_null()) value = Value(optimizer_name(as_text(value)));
    const Key* key = find_key(keys_, name);
    if (key == nullptr) return take_foreign(keys_, {where, name}, value);
    if (!may_repeat && given(key->name))
      raise(ErrorCategory::kInvalidArgument, "{}: key '{}' repeats '{}' under another name", where, given_name,
            key->name);
    if (value.is_null()) return;
    seen_.push_back(key->name);
    assign(config_, *key, value, {where, given_name});
  }

  bool given(std::string_view key) const { return std::find(seen_.begin(), seen_.end(), key) != seen_.end(); }

 private:
  std::vector<Key> keys_;
  TrainConfig& config_;
  std::vector<std::string> seen_;
};

Value value_of(const TrainConfig& config, const Key& key) {
  return std::visit(
      [&](auto member) -> Value {
        const auto& target = config.*member;
        using T = std::remove_cvref_t<decltype(target)>;
        if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          Value list = Value::array();
          for (const std::string& item : target) list.push(item);
          return list;
        } else if constexpr (std::is_same_v<T, std::optional<double>> || std::is_same_v<T, std::optional<bool>>) {
          return target.has_value() ? Value(*target) : Value();
        } else if constexpr (std::is_same_v<T, std::uint64_t>) {
          return Value(static_cast<std::int64_t>(target));
        } else {
          return Value(target);
        }
      },
      key.field);
}

}  // namespace

TrainConfig parse_train_config(const Value& file, std::string_view origin,
                               const std::vector<std::pair<std::string, std::string>>& overrides) {
  TrainConfig config;
  Reader reader(config);
  if (!file.is_null() && !file.is_object()) {
    raise(ErrorCategory::kBadData, "{}: expected 'key: value' lines, got {}", origin, kind_name(file.kind()));
  }
  if (file.is_object()) {
    for (const auto& [name, value] : file.as_object())
      reader.take(name, value, fmt::format("{}:{}", origin, value.mark().line), false);
  }
  for (const auto& [name, value] : overrides) reader.take(name, Value(value), "command line", true);
  // A number of steps alone says that steps are meant.
  if (config.save_steps > 0 && !reader.given("save_strategy")) config.save_strategy = "steps";
  if (config.eval_steps > 0 && !reader.given("eval_strategy")) config.eval_strategy = "steps";
  return config;
}

std::int64_t TrainConfig::memory_limit_bytes() const {
  if (memory_limit.empty()) return 0;
  const std::optional<std::int64_t> bytes = bytes_from_text(memory_limit);
  if (!bytes) {
    raise(ErrorCategory::kInvalidArgument,
          "memory_limit expects a size above 0 such as 1.5G, 900M or 2GiB (G is 1,000 M, GiB 1,024 MiB), got '{}'",
          memory_limit);
  }
  if (*bytes > machine_bytes()) {
    raise(ErrorCategory::kInvalidArgument, "memory_limit {}: this machine has {}", memory_limit,
          format_bytes(machine_bytes()));
  }
  return *bytes;
}

void check_train_config(const TrainConfig& config) {
  config.memory_limit_bytes();
  for (const auto& [key, value] : {std::pair{"model_name_or_path", config.model_name_or_path},
                                   {"dataset", config.dataset},
                                   {"output_dir", config.output_dir}}) {
    if (value.empty())
      raise(ErrorCategory::kInvalidArgument, "'{}' is missing: give it in the configuration or as --{}", key, key);
  }
  if (config.finetuning_type == "full" && !config.adapter_name_or_path.empty()) {
    raise(ErrorCategory::kInvalidArgument,
          "finetuning_type full starts from the model: adapter_name_or_path cannot be given");
  }
  const bool judged = config.eval_strategy == "steps" || config.eval_strategy == "epoch" ||
                      config.load_best_model_at_end || config.early_stopping_patience > 0;
  if (judged && config.eval_dataset.empty() && config.val_size <= 0) {
    raise(ErrorCategory::kInvalidArgument,
          "eval_strategy, load_best_model_at_end and early_stopping_patience need rows to judge by: give eval_dataset "
          "or val_size");
  }
  if ((config.load_best_model_at_end || config.early_stopping_patience > 0) && config.eval_strategy == "no")
    raise(ErrorCategory::kInvalidArgument,
          "load_best_model_at_end and early_stopping_patience need evaluations: eval_strategy is no");
  if (config.eval_strategy == "steps" && config.eval_steps < 1)
    raise(ErrorCategory::kInvalidArgument, "eval_strategy steps needs eval_steps of at least 1");
  if (config.save_strategy == "steps" && config.save_steps < 1)
    raise(ErrorCategory::kInvalidArgument, "save_strategy steps needs save_steps of at least 1");
}

std::vector<std::string> changed_keys(const Value& before, const Value& now) {
  // These change what is written and how fast, not what is learnt.
  static const std::vector<std::string> free{"output_dir",    "overwrite_output_dir", "resume_from_checkpoint",
                                             "threads",       "memory_limit",         "logging_steps",
                                             "save_strategy", "save_steps",           "save_total_limit",
                                             "test_dataset",  "dataset_dir",          "per_device_eval_batch_size"};
  std::vector<std::string> changed;
  for (const auto& [key, value] : now.as_object()) {
    const Value* old = before.find(key);
    if (old != nullptr && !(dump_json(*old) == dump_json(value)) &&
        std::find(free.begin(), free.end(), key) == free.end())
      changed.push_back(fmt::format("{} (was {})", key, dump_json(*old)));
  }
  return changed;
}

Value to_value(const TrainConfig& config) {
  Value result = Value::object();
  for (const Key& key : all_keys()) result.set(key.name, value_of(config, key));
  return result;
}

std::vector<KeyHelp> train_key_help() {
  std::vector<KeyHelp> help;
  const TrainConfig standard;
  for (const Key& key : all_keys()) {
    const Value value = value_of(standard, key);
    std::string text = value.is_null() ? "" : as_text(value);
    if (value.is_array()) text = value.as_array().front().as_string();
    help.push_back(
        {key.name, fmt::format("{}", fmt::join(key.aliases, ", ")), text,
         key.choices.empty() ? key.meaning : fmt::format("{} ({})", key.meaning, fmt::join(key.choices, " | "))});
  }
  return help;
}

}  // namespace instruct::train
