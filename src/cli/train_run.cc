#include "cli/train_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/limits.h"
#include "bench/work.h"
#include "cli/results.h"
#include "data/sampler.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

train::Packing packing_of(const std::string& name) {
  if (name == "auto") return train::Packing::kAuto;
  return name == "tree" ? train::Packing::kTree : name == "true" ? train::Packing::kPacked : train::Packing::kRows;
}

std::vector<std::int64_t> all_of(const data::Dataset& dataset) {
  std::vector<std::int64_t> indices(dataset.examples.size());
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

}  // namespace

void TrainRun::execute() {
  train::check_train_config(config_);
  check_output();
  open();
  prepare_rows();
  trained_ = std::make_unique<TrainedModel>(config_, *session_);
  log_info("{} trained parameters", trained_->optimizer().parameter_count());
  plan_memory();
  measure_limit();
  train();
  take_best();
  write_results();
  const Value tested = test();
  if (results_ == Results::kJson) {
    std::cout << dump_json(Value::object({{"output_dir", config_.output_dir},
                                          {"global_step", state_.position.step},
                                          {"trained_tokens", state_.position.units},
                                          {"best_step", state_.has_best ? Value(state_.best_step) : Value()},
                                          {"best_metric", state_.has_best ? Value(state_.best_metric) : Value()},
                                          {"forecast", forecast_value()},
                                          {"test", tested}}))
              << '\n';
  }
  say_what_next();
}

void TrainRun::check_output() const {
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

void TrainRun::open() {
  log_info("Opening {}", config_.model_name_or_path);
  session_ = open_session({.model = config_.model_name_or_path,
                           .adapter = config_.adapter_name_or_path,
                           .instructions = config_.instructions,
                           .chat_template = config_.chat_template,
                           .dtype = config_.dtype,
                           .base_compute = config_.base_compute,
                           .threads = static_cast<int>(config_.threads),
                           .seed = config_.seed},
                          {.keep_quantised = config_.keep_quantised,
                           .trainable = config_.finetuning_type == "full",
                           .integers = ops::IntegerUse::kGradients8});
}

std::int64_t TrainRun::cutoff() const {
  return std::min(config_.cutoff_len, session_->package.config.context_length);
}

data::EncodeOptions TrainRun::encode_options(std::int64_t epoch) const {
  return {.cutoff = cutoff(),
          .overflow = data::overflow_from_name(config_.overflow),
          .mask = {.train_on_prompt = config_.train_on_prompt, .mask_history = config_.mask_history},
          .shots = config_.shots,
          .seed = config_.seed,
          .epoch = epoch};
}

void TrainRun::prepare_rows() {
  dataset_ = data::open_dataset(config_.dataset, config_.dataset_dir);
  train_indices_ = all_of(dataset_);
  encoder_ = std::make_unique<data::RowEncoder>(*session_->dialogue, session_->instruction_set());
  std::vector<std::int64_t> held;
  if (config_.val_size > 0)
    std::tie(train_indices_, held) =
        data::hold_out(static_cast<std::int64_t>(dataset_.examples.size()), config_.val_size, config_.seed);
  data::EncodeReport report;
  rows_ = encoder_->encode_all(dataset_, train_indices_, encode_options(0), report);
  report_rows(report);
  evaluation_ = std::make_unique<TrainEvaluation>(config_, *session_, development_rows(held), cutoff());
  // Opened now, so that a wrong path does not show after hours of training.
  if (!config_.test_dataset.empty()) test_dataset_ = data::open_dataset(config_.test_dataset, config_.dataset_dir);
}

// Rows of eval_dataset, else those held out.
data::Dataset TrainRun::development_rows(const std::vector<std::int64_t>& held) const {
  if (!config_.eval_dataset.empty()) return data::open_dataset(config_.eval_dataset, config_.dataset_dir);
  data::Dataset rows = dataset_;
  rows.examples.clear();
  for (const std::int64_t index : held) rows.examples.push_back(dataset_.examples[static_cast<std::size_t>(index)]);
  return rows;
}

void TrainRun::report_rows(const data::EncodeReport& report) const {
  log_info("{} rows, {} tokens, {} of them trained", report.rows, report.tokens, report.trained_tokens);
  if (!report.too_long.empty())
    log_warning("{} rows are longer than cutoff_len {} (policy: {}), first: row {}", report.too_long.size(), cutoff(),
                config_.overflow, report.too_long.front());
  if (!report.no_end.empty() && config_.overflow != "split") {
    raise(ErrorCategory::kBadData,
          "{} rows train no end-of-turn token, first: row {}: the model would not learn to stop", report.no_end.size(),
          report.no_end.front());
  }
}

// What the progress bar's share is a share of.
void TrainRun::measure_limit() {
  product_limit_ = bench::peak_product_rate(*session_->engine, session_->package.model->dtype(), 0.1);
  log_debug("large matrix products: {:.0f} GFLOP/s", product_limit_ / 1e9);
}

train::LoopOptions TrainRun::loop_options() const {
  return {.micro_batch_rows = config_.per_device_train_batch_size,
          .accumulation = config_.gradient_accumulation_steps,
          .packing = packing_of(config_.packing),
          .shuffle = config_.shuffle,
          .checkpoint = config_.gradient_checkpointing,
          .seed = config_.seed,
          .epochs = config_.num_train_epochs,
          .max_steps = config_.max_steps};
}

void TrainRun::resume() {
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
  state_ = train::load_checkpoint(*path, trained_->optimizer(), &before);
  log_info("Resuming from {} (step {})", path->string(), state_.position.step);
  if (const Value* limit = before.find("memory_limit");
      !config_.memory_limit.empty() && limit != nullptr && limit->as_string() == config_.memory_limit) {
    const bool same = loop_.pass_rows == state_.pass_rows && loop_.checkpoint == state_.checkpoint;
    loop_.pass_rows = state_.pass_rows;  // as before, so that sums are added in the same order
    loop_.checkpoint = state_.checkpoint;
    if (!same) forecast_bytes_ = bench::forecast_peak(forecast_run(), loop_);
  }
  const std::vector<std::string> changed = train::changed_keys(before, train::to_value(config_));
  if (!changed.empty())
    log_warning("the run goes on with another configuration, so not as if it had never stopped: {}",
                fmt::format("{}", fmt::join(changed, ", ")));
}

// The log as it was when the checkpoint was saved: what a killed run wrote behind that is done again.
void TrainRun::start_log() {
  std::string lines;
  for (const Value& line : state_.log.as_array()) lines += dump_json(line) + "\n";
  const fs::path path = fs::path(config_.output_dir) / "trainer_log.jsonl";
  write_file_atomic(path, lines);
  log_file_.open(path, std::ios::app);
}

void TrainRun::train() {
  std::error_code code;
  fs::create_directories(config_.output_dir, code);
  if (code) raise(ErrorCategory::kIo, "cannot create '{}': {}", config_.output_dir, code.message());
  train::remove_unfinished(config_.output_dir);
  resume();
  write_file_atomic(fs::path(config_.output_dir) / "train_config.json",
                    dump_json(train::to_value(config_), {.indent = 2}) + "\n");
  start_log();
  const auto row_count = static_cast<std::int64_t>(rows_.size());
  const std::int64_t total = loop_.total_steps(row_count);
  const auto warmup = config_.warmup_steps > 0
                          ? config_.warmup_steps
                          : static_cast<std::int64_t>(std::ceil(config_.warmup_ratio * static_cast<double>(total)));
  const train::Schedule schedule{train::schedule_from_name(config_.lr_scheduler_type), config_.learning_rate, warmup,
                                 total};
  train::TokenObjective objective(
      {.engine = *session_->engine,
       .model = *session_->package.model,
       .vocabulary = session_->package.tokenizer->vocabulary_size(),
       .rows = [this](std::int64_t epoch) -> const std::vector<data::EncodedRow>& { return rows_of(epoch); },
       .before_pass = [this](std::int64_t step, std::int64_t pass) { before_pass(step, pass); }},
      loop_);
  train::Trainer trainer(*session_->engine, objective, trained_->optimizer(), schedule, loop_.step_rows());
  forecast_time();
  start_ = std::chrono::steady_clock::now();
  progress_ = std::make_unique<Progress>("Training", total, "steps");
  try {
    if (evaluation_due())
      evaluate_once(static_cast<double>(state_.position.epoch) +
                    static_cast<double>(state_.position.row) /
                        static_cast<double>(row_count));  // a stop came in the middle of it
    if (stopped()) return progress_->finish();
    trainer.run(state_.position, observer());
  } catch (const Error& error) {
    progress_->finish();
    if (error.category() == ErrorCategory::kCancelled) {
      clear_cancel();
      save();
      raise(ErrorCategory::kCancelled, "training was stopped at step {}; continue with --resume_from_checkpoint auto",
            state_.position.step);
    }
    if (error.category() == ErrorCategory::kNumeric) {
      // The weights of this moment are what went wrong: the checkpoints before it are left as they are.
      const std::optional<fs::path> last = train::newest_checkpoint(config_.output_dir);
      raise(ErrorCategory::kNumeric, "{}; {}", error.what(),
            last ? "the last checkpoint is " + last->string() : "no checkpoint was saved before it");
    }
    throw;
  }
  progress_->finish();
  log_info("Trained in {}, with {} of memory at most", format_duration(std::chrono::steady_clock::now() - start_),
           format_bytes(peak_resident_bytes()));
}

void TrainRun::before_pass(std::int64_t step, std::int64_t pass) {
  if (trained_->is_lora() && config_.lora_dropout > 0)
    session_->adapter.adapter->attach(config_.seed,
                                      static_cast<std::uint64_t>(step) << 12 | static_cast<std::uint64_t>(pass));
}

train::Observer TrainRun::observer() {
  train::Observer observer;
  observer.on_step = [this](const train::StepReport& report) {
    on_step(report);
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

bool TrainRun::evaluation_due() const {
  return config_.eval_strategy == "steps" && state_.position.step > 0 && state_.position.step % config_.eval_steps == 0;
}

// Early stopping; also of a run that goes on after it has stopped.
bool TrainRun::stopped() const {
  return config_.early_stopping_patience > 0 &&
         state_.evaluations_without_improvement >= config_.early_stopping_patience;
}

// Rows of an epoch: encoded anew when templates are sampled.
const std::vector<data::EncodedRow>& TrainRun::rows_of(std::int64_t epoch) {
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

void TrainRun::on_step(const train::StepReport& report) {
  const bench::Work work = bench::work_of(*session_->package.model, session_->adapter.adapter.get(), report.cost,
                                          trained_->is_lora() ? bench::Purpose::kLora : bench::Purpose::kFull);
  progress_->update(report.step, fmt::format("loss {:.4f}, {:.0f} tokens/s, {:.0f}% of limit", report.loss,
                                             static_cast<double>(report.cost.tokens) / report.seconds,
                                             100 * work.total() / (report.seconds * product_limit_)));
  log_step(report);
}

void TrainRun::log_step(const train::StepReport& report) {
  window_tokens_ += report.cost.tokens;
  window_seconds_ += report.seconds;
  if (report.step % config_.logging_steps != 0 && report.step != report.total_steps) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  log_line(
      Value::object({{"current_steps", report.step},
                     {"total_steps", report.total_steps},
                     {"loss", report.loss},
                     {"grad_norm", report.gradient_norm},
                     {"learning_rate", report.learning_rate},
                     {"epoch", report.epoch},
                     {"percentage", 100.0 * static_cast<double>(report.step) / static_cast<double>(report.total_steps)},
                     {"elapsed_time", format_duration(elapsed)},
                     {"throughput", static_cast<double>(window_tokens_) / window_seconds_},
                     {"total_tokens", state_.position.units}}));
  window_tokens_ = 0;
  window_seconds_ = 0;
}

void TrainRun::log_line(const Value& line) {
  state_.log.push(line);
  log_file_ << dump_json(line) << '\n';
  log_file_.flush();
  if (!log_file_) raise(ErrorCategory::kIo, "cannot write '{}/trainer_log.jsonl'", config_.output_dir);
}

// Evaluates, logs and judges, unless this step has been evaluated.
void TrainRun::evaluate_once(double epoch) {
  if (evaluation_->empty() || state_.evaluated_step == state_.position.step) return;
  progress_->clear();
  const Evaluation found = evaluation_->run(state_.position.step, epoch);
  log_line(found.log);
  if (log_enabled(LogLevel::kInfo)) std::cerr << found.table_lines << std::flush;
  if (state_.judge(found.metric, evaluation_->direction()) && config_.load_best_model_at_end) save();
  if (stopped())
    log_info("Stopping early: {} has not improved since step {}", evaluation_->metric_name(), state_.best_step);
}

// The checkpoint of this step; once.
void TrainRun::save() {
  if (saved_step_ == state_.position.step) return;
  state_.pass_rows = loop_.pass_rows;
  state_.checkpoint = loop_.checkpoint;
  const fs::path path =
      train::save_checkpoint(config_.output_dir, state_, trained_->optimizer(), train::to_value(config_),
                             [this](const fs::path& folder) { trained_->write(folder); });
  saved_step_ = state_.position.step;
  train::prune_checkpoints(config_.output_dir, config_.save_total_limit,
                           config_.load_best_model_at_end ? state_.best_step : -1);
  log_debug("saved {}", path.string());
}

void TrainRun::take_best() {
  if (!config_.load_best_model_at_end || !state_.has_best || state_.best_step == state_.position.step) return;
  const fs::path best = fs::path(config_.output_dir) / fmt::format("checkpoint-{}", state_.best_step);
  if (!fs::exists(best)) {
    log_warning("the best step {} was not saved: keeping the last one; save_strategy should match eval_strategy",
                state_.best_step);
    return;
  }
  train::load_checkpoint(best, trained_->optimizer());
  log_info("Taking the best checkpoint, step {} ({} {:.4f})", state_.best_step, evaluation_->metric_name(),
           state_.best_metric);
}

void TrainRun::write_results() const {
  trained_->write(config_.output_dir);
  write_file_atomic(fs::path(config_.output_dir) / "trainer_state.json",
                    dump_json(Value::object({{"global_step", state_.position.step},
                                             {"best_metric", state_.has_best ? Value(state_.best_metric) : Value()},
                                             {"best_step", state_.has_best ? Value(state_.best_step) : Value()},
                                             {"forecast", forecast_value()},
                                             {"log_history", state_.log}}),
                              {.indent = 2}) +
                        "\n");
}

// The final table, from the weights that were written. Null where there are no rows for it.
Value TrainRun::test() {
  if (test_dataset_.examples.empty()) return {};
  evaluate::TaskOptions options{.shots = config_.shots,
                                .generate = test_dataset_.format != data::RowFormat::kText,
                                .likelihood = true,
                                .seed = config_.seed};
  Progress progress("Testing", static_cast<std::int64_t>(test_dataset_.examples.size()), "rows");
  const evaluate::TaskReport report = evaluate::evaluate_rows(
      *session_->engine, *session_->package.model, *session_->dialogue, session_->instruction_set(), test_dataset_,
      options, [&](std::int64_t done) { progress.update(done); });
  progress.finish();
  if (results_ == Results::kText) std::cout << evaluate::report_table(report) << std::flush;
  const fs::path folder = config_.output_dir;
  Value results = evaluate::report_value(report);
  write_predictions(folder / "generated_predictions.jsonl", report, session_->instruction_set());
  write_file_atomic(folder / "test_results.json", dump_json(results, {.indent = 2}) + "\n");
  return results;
}

void TrainRun::say_what_next() const {
  const std::string& output = config_.output_dir;
  const std::string model =
      trained_->is_lora() ? fmt::format("{} --adapter {}", config_.model_name_or_path, output) : output;
  const std::string set = config_.instructions.empty() ? "" : " --instructions " + config_.instructions;
  log_info("{} in {} after {} steps. Next, for instance:", trained_->is_lora() ? "Adapter" : "Model", output,
           state_.position.step);
  log_info("  instruct eval --model {}{} --data TEST.jsonl", model, set);
  if (set.empty()) {
    log_info("  instruct chat --model {}", model);
  } else {
    log_info("  instruct run --model {}{} --input FILE", model, set);
  }
  log_info("  instruct export --model {} --format gguf --output {}.gguf", model, output);
}

}  // namespace instruct::cli
