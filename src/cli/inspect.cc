// `instruct inspect`: what a file or folder is, and whether it fits a model.
#include <CLI/CLI.hpp>
#include <algorithm>

#include <iostream>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/lint.h"
#include "instructions/describe.h"
#include "models/text_model.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path;
  std::string model;
  std::string instructions;
  std::string dataset_dir;
  bool json = false;
};

// Nested values as indented lines; short lists in one line.
std::string text_of(const Value& value, int depth = 0) {
  std::size_t width = 0;
  for (const auto& [key, item] : value.as_object()) width = std::max(width, key.size());
  std::string text;
  for (const auto& [key, item] : value.as_object()) {
    if (item.is_null()) continue;
    text += std::string(static_cast<std::size_t>(depth) * 2, ' ');
    if (item.is_object()) {
      text += key + "\n" + text_of(item, depth + 1);
    } else {
      text += fmt::format("{:<{}}  {}\n", key, width, item.is_string() ? item.as_string() : dump_json(item));
    }
  }
  return text;
}

std::string token_name(const tokenizers::Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? fmt::format("{} ({})", tokenizer.token_bytes(*id), *id) : "none";
}

Value tokenizer_value(const tokenizers::Tokenizer& tokenizer) {
  Value ends = Value::array();
  for (const std::int32_t id : tokenizer.end_of_generation()) ends.push(token_name(tokenizer, id));
  return Value::object({{"tokens", tokenizer.vocabulary_size()},
                        {"bos", token_name(tokenizer, tokenizer.bos())},
                        {"bos added", tokenizer.add_bos()},
                        {"eos", token_name(tokenizer, tokenizer.eos())},
                        {"pad", token_name(tokenizer, tokenizer.pad())},
                        {"ends an answer", ends},
                        {"fingerprint", tokenizer.fingerprint().substr(0, 16)}});
}

std::string rotary_text(const nn::RotaryConfig& rotary) {
  using Scaling = nn::RotaryConfig::Scaling;
  const std::map<Scaling, std::string> names = {{Scaling::kNone, "none"},       {Scaling::kLinear, "linear"},
                                                {Scaling::kDynamic, "dynamic"}, {Scaling::kYarn, "yarn"},
                                                {Scaling::kLlama3, "llama3"},   {Scaling::kLong, "longrope"}};
  std::string text = fmt::format("base {}, scaling {}", rotary.theta, names.at(rotary.scaling));
  if (rotary.scaling != Scaling::kNone) text += fmt::format(" by {}", rotary.factor);
  return text;
}

// How many weights there are, and of which types.
struct Weights {
  std::int64_t parameters = 0;
  Value types = Value::object();
};

Weights weights_of(const std::vector<models::NamedWeight>& weights) {
  Weights found;
  for (const models::NamedWeight& weight : weights) {
    const tensor::Tensor& tensor = weight.variable.value();
    found.parameters += tensor.elements();
    const std::string type(tensor::info(tensor.dtype()).name);
    const Value* before = found.types.find(type);
    found.types.set(type, (before == nullptr ? 0 : before->as_integer()) + tensor.elements());
  }
  return found;
}

const char* file_kind(const models::Package& package) {
  return package.gguf != nullptr ? "GGUF" : "Hugging Face folder";
}

Value encoder_value(const models::Package& package) {
  const models::EncoderConfig& config = package.encoder->config();
  const Weights weights = weights_of(package.encoder->weights());
  Value verbs = Value::array();
  for (const models::TextTask& task : models::stored_tasks(package)) {
    const std::string verb = task.verb.empty() ? "any verb" : task.verb;
    const std::string kind(models::kind_name(task.kind));
    verbs.push(task.labels.empty() ? fmt::format("{}: {}", verb, kind)
                                   : fmt::format("{}: {} {}", verb, task.labels.size(),
                                                 task.kind == models::TextKind::kTags ? "tags" : "labels"));
  }
  return Value::object({{"kind", "encoder"},
                        {"file", file_kind(package)},
                        {"architecture", config.architecture},
                        {"parameters", weights.parameters},
                        {"layers", config.layers},
                        {"width", config.width},
                        {"feed-forward width", config.feed_forward_width},
                        {"heads", fmt::format("{} of {}", config.heads, config.head_width())},
                        {"context", config.context_length},
                        {"vocabulary", config.vocabulary},
                        {"pooling", models::stored_mean_pooling(package) ? "mean" : "first"},
                        {"heads of verbs", verbs.size() == 0 ? Value("none: not tuned") : verbs},
                        {"fingerprint", package.encoder->fingerprint().substr(0, 16)},
                        {"parameters by type", weights.types},
                        {"tokenizer", tokenizer_value(*package.tokenizer)}});
}

Value seq2seq_value(const models::Package& package) {
  using Positions = models::Seq2SeqConfig::Positions;
  const models::Seq2SeqConfig& config = *package.seq2seq;
  const Weights weights = weights_of(package.model->weights());
  const auto token = [&](std::int32_t id) { return fmt::format("{} ({})", package.tokenizer->token_bytes(id), id); };
  return Value::object(
      {{"kind", "encoder-decoder"},
       {"file", file_kind(package)},
       {"architecture", config.architecture},
       {"parameters", weights.parameters},
       {"layers", fmt::format("{} that read, {} that write", config.layers, config.decoder_layers)},
       {"width", config.width},
       {"feed-forward width", config.feed_forward_width},
       {"heads", fmt::format("{} of {}", config.heads, config.head_width)},
       {"vocabulary", config.vocabulary},
       {"positions", config.positions == Positions::kNone
                         ? fmt::format("distances in {} buckets", config.distance_buckets)
                         : fmt::format("{} {}", config.context_length,
                                       config.positions == Positions::kLearned ? "learned" : "sinusoidal")},
       {"answers start from", token(config.start)},
       {"and begin with", config.forced_first ? Value(token(*config.forced_first)) : Value("what the model chooses")},
       {"fingerprint", package.model->fingerprint().substr(0, 16)},
       {"parameters by type", weights.types},
       {"tokenizer", tokenizer_value(*package.tokenizer)}});
}

Value model_value(const fs::path& path) {
  const auto allocator = tensor::make_host_allocator();
  // Quantised weights stay where they are: nothing is converted for a look.
  const models::Package package =
      models::open_package(path, models::PackageParts::kAll, {.keep_quantised = true}, *allocator);
  if (package.encoder != nullptr) return encoder_value(package);
  if (package.seq2seq) return seq2seq_value(package);
  const Weights weights = weights_of(package.model->weights());
  const models::LlamaConfig& config = package.config;
  Value value =
      Value::object({{"kind", "model"},
                     {"file", file_kind(package)},
                     {"architecture", config.architecture},
                     {"parameters", weights.parameters},
                     {"layers", config.layers},
                     {"width", config.width},
                     {"feed-forward width", config.feed_forward_width},
                     {"heads", fmt::format("{} of {}, {} for keys and values", config.heads, config.head_width,
                                           config.key_value_heads)},
                     {"context", config.context_length},
                     {"vocabulary", config.vocabulary},
                     {"rotary", config.learned_positions ? "none: positions are learned" : rotary_text(config.rotary)},
                     {"embeddings", config.tied_embeddings ? "tied" : "untied"},
                     {"fingerprint", package.model->fingerprint().substr(0, 16)},
                     {"parameters by type", weights.types},
                     {"tokenizer", tokenizer_value(*package.tokenizer)}});
  const auto count = [](const std::vector<bool>& layers) {
    return std::int64_t{std::count(layers.begin(), layers.end(), true)};
  };
  if (config.sliding_window > 0) {
    value.set("sliding window", config.sliding_window);
    value.set("layers with it", config.windowed.empty() ? config.layers : count(config.windowed));
    if (config.window_rotary) value.set("rotary of these", rotary_text(*config.window_rotary));
  }
  if (!config.unrotated.empty()) value.set("layers without rotary positions", count(config.unrotated));
  value.set("chat template",
            package.chat_template.empty() ? Value("none: a base model") : Value(package.chat_template));
  return value;
}

Value adapter_value(const fs::path& path, const std::string& model) {
  const Value config =
      parse_json(read_file(path / "adapter_config.json", 16 << 20), (path / "adapter_config.json").string());
  Value value = Value::object({{"kind", "adapter"}});
  for (const char* key :
       {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules"}) {
    if (const Value* item = config.find(key)) value.set(key, *item);
  }
  if (model.empty()) {
    value.set("fits", "give --model to see");
    return value;
  }
  const auto session = open_session({.model = model, .adapter = path.string()});  // raises where it does not fit
  std::int64_t parameters = 0;
  for (const auto& [a, b] : session->adapter.masters) parameters += a.elements() + b.elements();
  value.set("modules", static_cast<std::int64_t>(session->adapter.masters.size()));
  value.set("parameters", parameters);
  value.set("fits", session->adapter.origin.base_fingerprint.empty()
                        ? "the shapes of " + model + "; it does not say what base it was trained on"
                        : model);
  return value;
}

Value run_value(const fs::path& path) {
  Value value = Value::object({{"kind", "training run"}});
  const Value config =
      parse_json(read_file(path / "train_config.json", 64 << 20), (path / "train_config.json").string());
  for (const char* key :
       {"model_name_or_path", "finetuning_type", "dataset", "instructions", "learning_rate", "num_train_epochs"}) {
    const Value* item = config.find(key);
    if (item != nullptr && !(item->is_string() && item->as_string().empty())) value.set(key, *item);
  }
  Value checkpoints = Value::array();
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().filename().string().starts_with("checkpoint-")) checkpoints.push(entry.path().filename().string());
  }
  value.set("checkpoints", checkpoints);
  const bool done = fs::exists(path / "trainer_state.json");
  value.set("state", done ? "finished" : "not finished: continue with --resume_from_checkpoint auto");
  if (!fs::exists(path / "trainer_log.jsonl")) return value;
  const std::string log = read_file(path / "trainer_log.jsonl", 1 << 30);
  Value last;
  for_each_line(log, [&](std::string_view line, std::int64_t) {
    if (line.find("\"loss\"") != std::string_view::npos) last = parse_json(line, "trainer_log.jsonl");
  });
  if (last.is_object()) {
    for (const char* key : {"current_steps", "total_steps", "loss", "elapsed_time", "throughput"}) {
      if (const Value* item = last.find(key)) value.set(key, *item);
    }
  }
  return value;
}

void show(const Value& value, const Options& options) {
  std::cout << (options.json ? dump_json(value, {.indent = 2}) + "\n" : text_of(value));
}

void inspect_set(const Options& options) {
  const instructions::InstructionSet set = instructions::load_instruction_set(options.path);
  if (options.model.empty()) {
    std::cout << instructions::describe(set, nullptr);
    return;
  }
  const auto allocator = tensor::make_host_allocator();
  const models::Package package = models::open_package(options.model, models::PackageParts::kTokenizer, {}, *allocator);
  const instructions::DialogueEncoder encoder(*package.tokenizer, package.chat_template, options.model);
  std::cout << instructions::describe(set, &encoder);
}

void inspect_data(const Options& options) {
  std::vector<data::RowProblem> problems;
  const data::Dataset dataset = data::open_dataset(options.path, options.dataset_dir, &problems);
  const data::LintReport report = data::lint(dataset, problems, nullptr, nullptr, {});
  std::cout << (options.json ? dump_json(data::lint_value(report)) + "\n" : data::lint_text(report));
}

void run(const Options& options) {
  const fs::path path = options.path;
  if (!fs::exists(path) && options.dataset_dir.empty())
    raise(ErrorCategory::kNotFound, "'{}' does not exist", options.path);
  const std::string extension = path.extension().string();
  if (extension == ".yaml" || extension == ".yml") return inspect_set(options);
  if (extension == ".jsonl" || extension == ".json" || extension == ".csv" || !options.dataset_dir.empty())
    return inspect_data(options);
  if (!fs::is_directory(path)) return show(model_value(path), options);
  const bool run = fs::exists(path / "train_config.json");
  const bool adapter = fs::exists(path / "adapter_config.json");
  const bool model = fs::exists(path / "config.json");
  if (run) {
    Value value = run_value(path);
    if (adapter) value.set("adapter", adapter_value(path, options.model));
    if (model) value.set("model", model_value(path));
    show(value, options);
  } else if (adapter) {
    show(adapter_value(path, options.model), options);
  } else if (model) {
    show(model_value(path), options);
  } else {
    raise(ErrorCategory::kBadData,
          "'{}' is no model (config.json), adapter (adapter_config.json) or training run (train_config.json)",
          options.path);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "What a model, adapter, run, data set or instruction set is, and whether it fits");
  command->add_option("path", options->path, "file or folder, or a name of dataset_info.json")->required();
  command->add_option("--model,-m", options->model,
                      "model an adapter is checked against, or whose template shows an instruction set's example");
  command->add_option("--dataset-dir", options->dataset_dir, "folder of dataset_info.json");
  command->add_flag("--json", options->json, "print JSON (models, adapters, runs and data)");
  command->footer(
      "\nExamples:\n  instruct inspect notes.iset.yaml --model M.gguf\n  instruct inspect M.gguf\n"
      "  instruct inspect runs/notes --model M.gguf");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
