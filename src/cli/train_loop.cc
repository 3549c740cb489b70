#include "cli/train_loop.h"

#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include "base/cancel.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

train::Packing packing_of(const std::string& name) {
  if (name == "auto") return train::Packing::kAuto;
  return name == "tree" ? train::Packing::kTree : name == "true" ? train::Packing::kPacked : train::Packing::kRows;
}

double epoch_of(const train::Position& position, std::int64_t rows) {
  return static_cast<double>(position.epoch) + static_cast<double>(position.row) / static_cast<double>(rows);
}

}  // namespace

TrainLoop::TrainLoop(const train::TrainConfig& config, Trainee& trainee) : config_(config), trainee_(trainee) {
  train::check_train_config(config_);
  check_output();
}

void TrainLoop::check_output() const {
  const fs::path output = config_.output_dir;
  if (!fs::exists(output)) return;
  if (!fs::is_directory(output))
    raise(ErrorCategory::kInvalidArgument, "output_dir '{}' is a file", config_.output_dir);
  if (!fs::is_empty(output) && !config_.overwrite_output_dir && config_.resume_from_checkpoint.empty()) {
    raise(ErrorCategory::kInvalidArgument,
          "output_dir '{}' is not empty: choose another, or set overwrite_output_dir: true, or "
          "resume_from_checkpoint: auto",
          config_.output_dir);
  }
}

train::AdamwConfig TrainLoop::adamw_of(const train::TrainConfig& config) {
  return {.beta1 = config.adam_beta1,
          .beta2 = config.adam_beta2,
          .epsilon = config.adam_epsilon,
          .weight_decay = config.weight_decay,
          .max_grad_norm = config.max_grad_norm,
          .moments = config.optim == "adamw_8bit" ? train::Moments::k8Bit : train::Moments::kF32};
}

train::LoopOptions TrainLoop::options_of(const train::TrainConfig& config) {
  return {.micro_batch_rows = config.per_device_train_batch_size,
          .accumulation = config.gradient_accumulation_steps,
          .packing = packing_of(config.packing),
          .shuffle = config.shuffle,
          .checkpoint = config.gradient_checkpointing,
          .seed = config.seed,
          .epochs = config.num_train_epochs,
          .max_steps = config.max_steps};
}

train::LoopOptions TrainLoop::begin(const train::LoopOptions& options) {
  options_ = options;
  std::error_code code;
  fs::create_directories(config_.output_dir, code);
  if (code) raise(ErrorCategory::kIo, "cannot create '{}': {}", config_.output_dir, code.message());
  train::remove_unfinished(config_.output_dir);
  resume();
  write_file_atomic(fs::path(config_.output_dir) / "train_config.json",
                    dump_json(train::to_value(config_), {.indent = 2}) + "\n");
  start_log();
  return options_;
}

void TrainLoop::resume() {
  if (config_.resume_from_checkpoint.empty()) {
    train::remove_checkpoints(config_.output_dir);  // of the run that is being overwritten
    fs::remove(fs::path(config_.output_dir) / "trainer_state.json");
    return;
  }
  const bool newest = config_.resume_from_checkpoint == "auto" || config_.resume_from_checkpoint == "true";
  const std::optional<fs::path> path =
      newest ? train::newest_checkpoint(config_.output_dir) : std::optional<fs::path>(config_.resume_from_checkpoint);
  if (!path) {
    log_info("No checkpoint in {}: starting from the beginning", config_.output_dir);
    return;
  }
  Value before;
  state_ = train::load_checkpoint(*path, trainee_.optimizer(), &before);
  log_info("Resuming from {} (step {})", path->string(), state_.position.step);
  if (const Value* limit = before.find("memory_limit");
      !config_.memory_limit.empty() && limit != nullptr && limit->as_string() == config_.memory_limit) {
    options_.pass_rows = state_.pass_rows;
    options_.checkpoint = state_.checkpoint;
  }
  const std::vector<std::string> changed = train::changed_keys(before, train::to_value(config_));
  if (!changed.empty())
    log_warning("the run goes on with another configuration, so not as if it had never stopped: {}",
                fmt::format("{}", fmt::join(changed, ", ")));
}

// The log as it was when the checkpoint was saved: what a killed run wrote behind that is done again.
void TrainLoop::start_log() {
  std::string lines;
  for (const Value& line : state_.log.as_array()) lines += dump_json(line) + "\n";
  const fs::path path = fs::path(config_.output_dir) / "trainer_log.jsonl";
  write_file_atomic(path, lines);
  log_file_.open(path, std::ios::app);
}

train::Schedule TrainLoop::schedule(std::int64_t total_steps) const {
  const auto warmup =
      config_.warmup_steps > 0
          ? config_.warmup_steps
          : static_cast<std::int64_t>(std::ceil(config_.warmup_ratio * static_cast<double>(total_steps)));
  return {train::schedule_from_name(config_.lr_scheduler_type), config_.learning_rate, warmup, total_steps};
}

void TrainLoop::train(ops::Engine& engine, train::Objective& objective) {
  const std::int64_t total = options_.total_steps(objective.rows());
  train::Trainer trainer(engine, objective, trainee_.optimizer(), schedule(total), options_.step_rows());
  start_ = std::chrono::steady_clock::now();
  progress_ = std::make_unique<Progress>("Training", total, "steps");
  try {
    if (evaluation_due())
      evaluate_once(epoch_of(state_.position, objective.rows()));  // a stop came in the middle of it
    if (stopped()) return progress_->finish();
    trainer.run(state_.position, observer());
  } catch (const Error& error) {
    progress_->finish();
    if (error.category() == ErrorCategory::kCancelled) raise_stopped();
    if (error.category() == ErrorCategory::kNumeric) raise_diverged(error);
    throw;
  }
  progress_->finish();
  log_info("Trained in {}, with {} of memory at most", format_duration(elapsed()), format_bytes(peak_resident_bytes()));
}

void TrainLoop::raise_stopped() {
  clear_cancel();
  save();
  raise(ErrorCategory::kCancelled, "training was stopped at step {}; continue with --resume_from_checkpoint auto",
        state_.position.step);
}

// The weights of this moment are what went wrong: the checkpoints before it are left as they are.
void TrainLoop::raise_diverged(const Error& error) const {
  const std::optional<fs::path> last = train::newest_checkpoint(config_.output_dir);
  raise(ErrorCategory::kNumeric, "{}; {}", error.what(),
        last ? "the last checkpoint is " + last->string() : "no checkpoint was saved before it");
}

train::Observer TrainLoop::observer() {
  train::Observer observer;
  observer.on_step = [this](const train::StepReport& report) {
    progress_->update(report.step, trainee_.progress_text(report));
    log_step(report);
    if (evaluation_due()) evaluate_once(report.epoch);
    if (config_.save_strategy == "steps" && report.step % config_.save_steps == 0) save();
    return stopped();
  };
  observer.on_epoch_end = [this](double epoch) {
    if (config_.eval_strategy == "epoch" || config_.eval_strategy == "auto") evaluate_once(epoch);
    if (config_.save_strategy == "epoch") save();
    return stopped();
  };
  return observer;
}

bool TrainLoop::evaluation_due() const {
  return config_.eval_strategy == "steps" && state_.position.step > 0 && state_.position.step % config_.eval_steps == 0;
}

// Early stopping; also of a run that goes on after it has stopped.
bool TrainLoop::stopped() const {
  return config_.early_stopping_patience > 0 &&
         state_.evaluations_without_improvement >= config_.early_stopping_patience;
}

void TrainLoop::log_step(const train::StepReport& report) {
  window_tokens_ += report.cost.tokens;
  window_seconds_ += report.seconds;
  if (report.step % config_.logging_steps != 0 && report.step != report.total_steps) return;
  log_line(
      Value::object({{"current_steps", report.step},
                     {"total_steps", report.total_steps},
                     {"loss", report.loss},
                     {"grad_norm", report.gradient_norm},
                     {"learning_rate", report.learning_rate},
                     {"epoch", report.epoch},
                     {"percentage", 100.0 * static_cast<double>(report.step) / static_cast<double>(report.total_steps)},
                     {"elapsed_time", format_duration(elapsed())},
                     {"throughput", static_cast<double>(window_tokens_) / window_seconds_},
                     {"total_" + trainee_.units_name(), state_.position.units}}));
  window_tokens_ = 0;
  window_seconds_ = 0;
}

void TrainLoop::log_line(const Value& line) {
  state_.log.push(line);
  log_file_ << dump_json(line) << '\n';
  log_file_.flush();
  if (!log_file_) raise(ErrorCategory::kIo, "cannot write '{}/trainer_log.jsonl'", config_.output_dir);
}

// Evaluates, logs and judges, unless this step has been evaluated.
void TrainLoop::evaluate_once(double epoch) {
  const std::optional<BestMetric> best = trainee_.best_metric();
  if (!best || state_.evaluated_step == state_.position.step) return;
  progress_->clear();
  const Evaluation found = trainee_.evaluate(state_.position.step, epoch);
  log_line(found.log);
  if (log_enabled(LogLevel::kInfo)) std::cerr << found.table_lines << std::flush;
  if (state_.judge(found.metric, best->better) && config_.load_best_model_at_end) save();
  if (stopped()) log_info("Stopping early: {} has not improved since step {}", best->name, state_.best_step);
}

// The checkpoint of this step; once.
void TrainLoop::save() {
  if (saved_step_ == state_.position.step) return;
  state_.pass_rows = options_.pass_rows;
  state_.checkpoint = options_.checkpoint;
  const fs::path path =
      train::save_checkpoint(config_.output_dir, state_, trainee_.optimizer(), train::to_value(config_),
                             [this](const fs::path& folder) { trainee_.write(folder); });
  saved_step_ = state_.position.step;
  train::prune_checkpoints(config_.output_dir, config_.save_total_limit,
                           config_.load_best_model_at_end ? state_.best_step : -1);
  log_debug("saved {}", path.string());
}

void TrainLoop::take_best() {
  if (!config_.load_best_model_at_end || !state_.has_best || state_.best_step == state_.position.step) return;
  const fs::path best = fs::path(config_.output_dir) / fmt::format("checkpoint-{}", state_.best_step);
  if (!fs::exists(best)) {
    log_warning("the best step {} was not saved: keeping the last one; save_strategy should match eval_strategy",
                state_.best_step);
    return;
  }
  train::load_checkpoint(best, trainee_.optimizer());
  const std::optional<BestMetric> metric = trainee_.best_metric();
  log_info("Taking the best checkpoint, step {} ({} {:.4f})", state_.best_step, metric ? metric->name : "metric",
           state_.best_metric);
}

void TrainLoop::finish(const Value& forecast) {
  take_best();
  trainee_.write(config_.output_dir);
  write_file_atomic(fs::path(config_.output_dir) / "trainer_state.json",
                    dump_json(Value::object({{"global_step", state_.position.step},
                                             {"best_metric", state_.has_best ? Value(state_.best_metric) : Value()},
                                             {"best_step", state_.has_best ? Value(state_.best_step) : Value()},
                                             {"forecast", forecast},
                                             {"log_history", state_.log}}),
                              {.indent = 2}) +
                        "\n");
}

Value TrainLoop::summary() const {
  return Value::object({{"output_dir", config_.output_dir},
                        {"global_step", state_.position.step},
                        {"trained_" + trainee_.units_name(), state_.position.units},
                        {"best_step", state_.has_best ? Value(state_.best_step) : Value()},
                        {"best_metric", state_.has_best ? Value(state_.best_metric) : Value()}});
}

}  // namespace instruct::cli
