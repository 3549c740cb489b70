// `instruct train`: wires configuration, data, model, trainer, checkpoints, logs and evaluation together.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/yaml.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/encode.h"
#include "data/sampler.h"
#include "evaluate/score.h"
#include "models/export.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/trainer.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;
using train::TrainConfig;

train::Packing packing_of(const std::string& name) {
  return name == "tree" ? train::Packing::kTree : name == "true" ? train::Packing::kPacked : train::Packing::kRows;
}

// One training run, from configuration to results.
class Run {
 public:
  explicit Run(TrainConfig config) : config_(std::move(config)) {}

  void execute() {
    check();
    if (fs::exists(config_.output_dir) && !fs::is_empty(config_.output_dir) && !config_.overwrite_output_dir &&
        config_.resume_from_checkpoint.empty()) {
      raise(ErrorCategory::kInvalidArgument,
            "output_dir '{}' is not empty: choose another, or set overwrite_output_dir: true, or "
            "resume_from_checkpoint: auto",
            config_.output_dir);
    }
    open();
    prepare_rows();
    prepare_optimizer();
    train();
    finish();
  }

 private:
  void check() const {
    for (const auto& [key, value] : {std::pair{"model_name_or_path", config_.model_name_or_path},
                                     {"dataset", config_.dataset},
                                     {"output_dir", config_.output_dir}}) {
      if (value.empty())
        raise(ErrorCategory::kInvalidArgument, "'{}' is missing: give it in the configuration or as --{}", key, key);
    }
    if (config_.finetuning_type == "full" && !config_.adapter_name_or_path.empty()) {
      raise(ErrorCategory::kInvalidArgument,
            "finetuning_type full starts from the model: adapter_name_or_path cannot be given");
    }
  }

  bool is_lora() const { return config_.finetuning_type == "lora"; }

  void open() {
    log_info("Opening {}", config_.model_name_or_path);
    session_ = open_session({.model = config_.model_name_or_path,
                             .adapter = config_.adapter_name_or_path,
                             .instructions = config_.instructions,
                             .chat_template = config_.chat_template,
                             .dtype = config_.dtype,
                             .threads = static_cast<int>(config_.threads),
                             .seed = config_.seed},
                            {.keep_quantised = config_.keep_quantised, .trainable = !is_lora()});
    vocabulary_ = session_->package.tokenizer->vocabulary_size();
  }

  data::EncodeOptions encode_options(std::int64_t epoch) const {
    return {.cutoff = std::min(config_.cutoff_len, session_->package.config.context_length),
            .overflow = data::overflow_from_name(config_.overflow),
            .mask = {.train_on_prompt = config_.train_on_prompt, .mask_history = config_.mask_history},
            .shots = config_.shots,
            .seed = config_.seed,
            .epoch = epoch};
  }

  void prepare_rows() {
    dataset_ = data::open_dataset(config_.dataset, config_.dataset_dir);
    train_indices_.resize(dataset_.examples.size());
    std::iota(train_indices_.begin(), train_indices_.end(), std::int64_t{0});
    encoder_ = std::make_unique<data::RowEncoder>(*session_->dialogue, session_->instruction_set());
    std::vector<std::int64_t> held;
    if (config_.val_size > 0)
      std::tie(train_indices_, held) =
          data::hold_out(static_cast<std::int64_t>(dataset_.examples.size()), config_.val_size, config_.seed);
    data::EncodeReport report;
    rows_ = encoder_->encode_all(dataset_, train_indices_, encode_options(0), report);
    report_rows(report);
    if (!config_.eval_dataset.empty()) {
      eval_dataset_ = data::open_dataset(config_.eval_dataset, config_.dataset_dir);
      held.resize(eval_dataset_.examples.size());
      std::iota(held.begin(), held.end(), std::int64_t{0});
    } else if (!held.empty()) {
      eval_dataset_ = dataset_;
    }
    if (config_.max_eval_rows > 0 && static_cast<std::int64_t>(held.size()) > config_.max_eval_rows)
      held.resize(static_cast<std::size_t>(config_.max_eval_rows));
    if (!held.empty()) {
      data::EncodeReport eval_report;
      eval_rows_ = encoder_->encode_all(eval_dataset_, held, encode_options(0), eval_report);
    }
  }

  void report_rows(const data::EncodeReport& report) const {
    log_info("{} rows, {} tokens, {} of them trained", report.rows, report.tokens, report.trained_tokens);
    if (!report.too_long.empty())
      log_warning("{} rows are longer than cutoff_len {} (policy: {}), first: row {}", report.too_long.size(),
                  config_.cutoff_len, config_.overflow, report.too_long.front());
    if (!report.no_end.empty() && config_.overflow != "split") {
      raise(ErrorCategory::kBadData,
            "{} rows train no end-of-turn token, first: row {}: the model would not learn to stop",
            report.no_end.size(), report.no_end.front());
    }
  }

  void prepare_optimizer() {
    std::vector<train::Optimizer::Named> parameters;
    models::Llama& model = *session_->package.model;
    if (is_lora()) {
      auto& loaded = session_->adapter;
      if (loaded.adapter == nullptr) {
        const std::vector<nn::Linear*> layers = model.linears();
        loaded.adapter =
            adapters::LoraAdapter::create({.rank = config_.lora_rank,
                                           .alpha = config_.alpha(),
                                           .dropout = config_.lora_dropout,
                                           .rank_stabilised = config_.use_rslora,
                                           .target_modules = config_.lora_target},
                                          layers, model.dtype(), config_.seed, session_->engine->allocator());
      }
      for (std::size_t i = 0; i < loaded.adapter->modules().size(); ++i) {
        const adapters::LoraModule& module = loaded.adapter->modules()[i];
        const bool stored = i < loaded.masters.size();
        parameters.push_back({module.name + ".lora_A", module.a, stored ? loaded.masters[i].first : tensor::Tensor()});
        parameters.push_back({module.name + ".lora_B", module.b, stored ? loaded.masters[i].second : tensor::Tensor()});
      }
    } else {
      for (const models::NamedWeight& weight : model.weights())
        parameters.push_back({weight.name, weight.variable, {}});
    }
    optimizer_ = std::make_unique<train::Optimizer>(train::AdamwConfig{.beta1 = config_.adam_beta1,
                                                                       .beta2 = config_.adam_beta2,
                                                                       .epsilon = config_.adam_epsilon,
                                                                       .weight_decay = config_.weight_decay,
                                                                       .max_grad_norm = config_.max_grad_norm},
                                                    std::move(parameters), session_->engine->allocator());
    log_info("{} trained parameters", optimizer_->parameter_count());
  }

  // A and B of each module as the optimizer holds them.
  std::vector<std::pair<tensor::Tensor, tensor::Tensor>> masters() const {
    std::vector<std::pair<tensor::Tensor, tensor::Tensor>> result;
    const auto& parameters = optimizer_->parameters();
    for (std::size_t i = 0; i + 1 < parameters.size(); i += 2)
      result.emplace_back(parameters[i].master, parameters[i + 1].master);
    return result;
  }

  void write_model(const fs::path& folder) const {
    if (is_lora()) {
      models::write_peft_files(folder, *session_->adapter.adapter, masters(), session_->origin());
    } else {
      models::write_hugging_face_files(folder, session_->package, session_->dialogue->template_source(), full_weights(),
                                       tensor::DType::kF32);
    }
  }
  models::WeightLookup full_weights() const {
    return [this](const std::string& name) -> tensor::Tensor {
      for (const train::TrainedParameter& parameter : optimizer_->parameters()) {
        if (parameter.name == name) return parameter.master;
      }
      raise(ErrorCategory::kInternal, "no weight '{}'", name);
    };
  }

  double evaluate() {
    double sum = 0;
    std::int64_t tokens = 0;
    for (const evaluate::RowScore& score :
         evaluate::score_rows(*session_->engine, *session_->package.model, eval_rows_, vocabulary_)) {
      sum -= score.log_probability;
      tokens += score.tokens;
    }
    return sum / static_cast<double>(std::max<std::int64_t>(1, tokens));
  }

  void log_line(const Value& line) {
    state_.log.push(line);
    log_file_ << dump_json(line) << '\n';
    log_file_.flush();
    if (!log_file_) raise(ErrorCategory::kIo, "cannot write '{}/trainer_log.jsonl'", config_.output_dir);
  }

  void on_report(const train::StepReport& report) {
    window_tokens_ += report.tokens;
    window_seconds_ += report.seconds;
    if (report.step % config_.logging_steps != 0 && report.step != report.total_steps) return;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    log_line(Value::object(
        {{"current_steps", report.step},
         {"total_steps", report.total_steps},
         {"loss", report.loss},
         {"grad_norm", report.gradient_norm},
         {"learning_rate", report.learning_rate},
         {"epoch", report.epoch},
         {"percentage", 100.0 * static_cast<double>(report.step) / static_cast<double>(report.total_steps)},
         {"elapsed_time", format_duration(elapsed)},
         {"throughput", static_cast<double>(window_tokens_) / window_seconds_},
         {"total_tokens", state_.position.trained_tokens}}));
    window_tokens_ = 0;
    window_seconds_ = 0;
  }

  // Evaluates, logs, keeps the best; true when training should stop.
  bool evaluate_and_judge() {
    if (eval_rows_.empty()) return false;
    const double loss = evaluate();
    log_line(Value::object({{"current_steps", state_.position.step}, {"eval_loss", loss}}));
    progress_->clear();
    log_info("step {}: eval_loss {:.4f}", state_.position.step, loss);
    if (!state_.has_best || loss < state_.best_metric) {
      state_.best_metric = loss;
      state_.has_best = true;
      state_.best_step = state_.position.step;
      state_.evaluations_without_improvement = 0;
    } else {
      ++state_.evaluations_without_improvement;
    }
    return config_.early_stopping_patience > 0 &&
           state_.evaluations_without_improvement >= config_.early_stopping_patience;
  }

  void save() {
    const fs::path path = train::save_checkpoint(config_.output_dir, state_, *optimizer_, train::to_value(config_),
                                                 [this](const fs::path& folder) { write_model(folder); });
    saved_step_ = state_.position.step;
    train::prune_checkpoints(config_.output_dir, config_.save_total_limit,
                             config_.load_best_model_at_end ? state_.best_step : -1);
    log_debug("saved {}", path.string());
  }

  void resume() {
    if (config_.resume_from_checkpoint.empty()) return;
    const bool newest = config_.resume_from_checkpoint == "auto" || config_.resume_from_checkpoint == "true";
    const std::optional<fs::path> path =
        newest ? train::newest_checkpoint(config_.output_dir) : std::optional<fs::path>(config_.resume_from_checkpoint);
    if (!path) {
      log_info("No checkpoint in {}: starting from the beginning", config_.output_dir);
      return;
    }
    state_ = train::load_checkpoint(*path, *optimizer_, session_->engine->context());
    saved_step_ = state_.position.step;
    log_info("Resuming from {} (step {})", path->string(), state_.position.step);
  }

  void train() {
    std::error_code code;
    fs::create_directories(config_.output_dir, code);
    if (code) raise(ErrorCategory::kIo, "cannot create '{}': {}", config_.output_dir, code.message());
    resume();
    write_file_atomic(fs::path(config_.output_dir) / "train_config.json",
                      dump_json(train::to_value(config_), {.indent = 2}) + "\n");
    log_file_.open(fs::path(config_.output_dir) / "trainer_log.jsonl",
                   state_.position.step > 0 ? std::ios::app : std::ios::trunc);
    const auto row_count = static_cast<std::int64_t>(rows_.size());
    const train::LoopOptions loop{.micro_batch_rows = config_.per_device_train_batch_size,
                                  .accumulation = config_.gradient_accumulation_steps,
                                  .packing = packing_of(config_.packing),
                                  .shuffle = config_.shuffle,
                                  .seed = config_.seed,
                                  .epochs = config_.num_train_epochs,
                                  .max_steps = config_.max_steps};
    const std::int64_t total = train::Trainer::total_steps(row_count, loop);
    const auto warmup = config_.warmup_steps > 0
                            ? config_.warmup_steps
                            : static_cast<std::int64_t>(std::ceil(config_.warmup_ratio * static_cast<double>(total)));
    const train::Schedule schedule{train::schedule_from_name(config_.lr_scheduler_type), config_.learning_rate, warmup,
                                   total};
    train::Trainer trainer(*session_->engine, *session_->package.model, *optimizer_, schedule, loop, vocabulary_);
    start_ = std::chrono::steady_clock::now();
    progress_ = std::make_unique<Progress>("Training", total, "steps");
    try {
      trainer.run([this](std::int64_t epoch) -> const std::vector<data::EncodedRow>& { return rows_of(epoch); },
                  row_count, state_.position, observer());
    } catch (const Error& error) {
      progress_->finish();
      if (error.category() != ErrorCategory::kCancelled) throw;
      clear_cancel();
      save();
      raise(ErrorCategory::kCancelled, "training was stopped at step {}; continue with --resume_from_checkpoint auto",
            state_.position.step);
    }
    progress_->finish();
  }

  train::Observer observer() {
    train::Observer observer;
    observer.before_pass = [this](std::int64_t step, std::int64_t micro_batch) {
      if (is_lora() && config_.lora_dropout > 0)
        session_->adapter.adapter->attach(
            config_.seed, static_cast<std::uint64_t>(step) << 12 | static_cast<std::uint64_t>(micro_batch));
    };
    observer.on_step = [this](const train::StepReport& report) {
      on_report(report);
      progress_->update(report.step, fmt::format("loss {:.4f}, {:.0f} tokens/s", report.loss,
                                                 static_cast<double>(report.tokens) / report.seconds));
      bool stop = false;
      if (config_.eval_strategy == "steps" && config_.eval_steps > 0 && report.step % config_.eval_steps == 0)
        stop = evaluate_and_judge();
      if (config_.save_strategy == "steps" && config_.save_steps > 0 && report.step % config_.save_steps == 0) save();
      return stop;
    };
    observer.on_epoch_end = [this](std::int64_t) {
      const bool stop = config_.eval_strategy == "epoch" && evaluate_and_judge();
      if (config_.save_strategy == "epoch") save();
      return stop;
    };
    return observer;
  }

  // Rows of an epoch: encoded anew when templates are sampled.
  const std::vector<data::EncodedRow>& rows_of(std::int64_t epoch) {
    const instructions::InstructionSet* set = session_->instruction_set();
    const bool sampled = set != nullptr && std::any_of(set->instructions.begin(), set->instructions.end(),
                                                       [](const auto& i) { return i.templates.size() > 1; });
    if (sampled && epoch != rows_epoch_) {
      data::EncodeReport report;
      rows_ = encoder_->encode_all(dataset_, train_indices_, encode_options(epoch), report);
      rows_epoch_ = epoch;
    }
    return rows_;
  }

  void finish() {
    if (config_.load_best_model_at_end && state_.has_best && state_.best_step != state_.position.step) {
      const fs::path best = fs::path(config_.output_dir) / fmt::format("checkpoint-{}", state_.best_step);
      if (fs::exists(best)) {
        const train::TrainingState keep = state_;
        train::load_checkpoint(best, *optimizer_, session_->engine->context());
        state_ = keep;
        log_info("Taking the best checkpoint, step {} (eval_loss {:.4f})", state_.best_step, state_.best_metric);
      } else {
        log_warning("the best step {} was not saved: keeping the last one; save_strategy should match eval_strategy",
                    state_.best_step);
      }
    }
    write_model(config_.output_dir);
    write_file_atomic(fs::path(config_.output_dir) / "trainer_state.json",
                      dump_json(Value::object({{"global_step", state_.position.step},
                                               {"best_metric", state_.has_best ? Value(state_.best_metric) : Value()},
                                               {"log_history", state_.log}}),
                                {.indent = 2}) +
                          "\n");
    log_info("Done: {}", config_.output_dir);
  }

  TrainConfig config_;
  std::unique_ptr<Session> session_;
  std::int64_t vocabulary_ = 0;
  data::Dataset dataset_, eval_dataset_;
  std::unique_ptr<data::RowEncoder> encoder_;
  std::vector<std::int64_t> train_indices_;
  std::vector<data::EncodedRow> rows_, eval_rows_;
  std::int64_t rows_epoch_ = 0;
  std::unique_ptr<train::Optimizer> optimizer_;
  train::TrainingState state_;
  std::int64_t saved_step_ = -1;
  std::ofstream log_file_;
  std::unique_ptr<Progress> progress_;
  std::chrono::steady_clock::time_point start_;
  std::int64_t window_tokens_ = 0;
  double window_seconds_ = 0;
};

// "--key value" and "--key=value" to pairs.
std::vector<std::pair<std::string, std::string>> overrides_of(const std::vector<std::string>& arguments) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    const bool dashes = name.starts_with("--");
    if (dashes) name = name.substr(2);
    const std::size_t equals = name.find('=');
    if (equals != std::string::npos) {
      pairs.emplace_back(name.substr(0, equals), name.substr(equals + 1));
    } else if (dashes && i + 1 < arguments.size()) {
      pairs.emplace_back(name, arguments[++i]);
    } else {
      raise(ErrorCategory::kInvalidArgument, "'{}' is no 'key=value' and no '--key value'", arguments[i]);
    }
  }
  return pairs;
}

std::string key_table() {
  std::string text = "\nKeys (in the file, or as --key value; the command line wins):\n";
  for (const train::KeyHelp& key : train::train_key_help()) {
    text +=
        fmt::format("  {:<30} {}{}{}\n", key.key, key.meaning, key.standard.empty() ? "" : " [" + key.standard + "]",
                    key.aliases.empty() ? "" : "; also " + key.aliases);
  }
  return text + "\nExample:\n  instruct train train.yaml --learning_rate 5e-4 --output_dir runs/notes\n";
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("train", "Tune a model on your rows, LoRA or full: train [CONFIG.yaml] [--key value ...]");
  // The keys are the configuration's, not options of the parser: everything behind the command is read here.
  command->prefix_command();
  command->fallthrough(false);
  command->footer(key_table);
  command->callback([command] {
    std::vector<std::string> arguments = command->remaining();
    if (std::find(arguments.begin(), arguments.end(), "--help") != arguments.end()) {
      std::cout << command->help();
      return;
    }
    std::string path;
    if (!arguments.empty() && !arguments.front().starts_with("--") &&
        arguments.front().find('=') == std::string::npos) {
      path = arguments.front();
      arguments.erase(arguments.begin());
    }
    if (path.empty() && arguments.empty())
      raise(ErrorCategory::kInvalidArgument,
            "train needs a configuration file or --key value pairs; see instruct train --help");
    Value config;
    if (!path.empty()) config = parse_yaml(read_file(path, 64 << 20), path);
    Run(train::parse_train_config(config, path, overrides_of(arguments))).execute();
  });
}

}  // namespace instruct::cli
