#include "cli/decoder_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "bench/limits.h"
#include "bench/work.h"
#include "data/sampler.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

void DecoderRun::execute() {
  loop_ = std::make_unique<TrainLoop>(config_, *this);
  open();
  prepare_rows();
  trained_ = std::make_unique<TrainedModel>(config_, *session_);
  log_info("{} trained parameters", trained_->optimizer().parameter_count());
  plan_memory();
  measure_limit();
  train();
  const Value forecast = forecast_value();
  loop_->finish(forecast);
  const Value tested = test();
  if (results_ == Results::kJson) {
    Value summary = loop_->summary();
    summary.set("forecast", forecast);
    summary.set("test", tested);
    std::cout << dump_json(summary) << '\n';
  }
  say_what_next();
}

void DecoderRun::open() {
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

std::int64_t DecoderRun::cutoff() const {
  return std::min(config_.cutoff_len, session_->package.config.context_length);
}

data::EncodeOptions DecoderRun::encode_options(std::int64_t epoch) const {
  return {.cutoff = cutoff(),
          .overflow = data::overflow_from_name(config_.overflow),
          .mask = {.train_on_prompt = config_.train_on_prompt, .mask_history = config_.mask_history},
          .shots = config_.shots,
          .seed = config_.seed,
          .epoch = epoch,
          .denoise = {.rate = config_.mlm_probability, .mean_length = config_.mean_noise_span_length}};
}

void DecoderRun::prepare_rows() {
  dataset_ = data::open_dataset(config_.dataset, config_.dataset_dir);
  train_indices_ = data::row_indices(dataset_);
  encoder_ = std::make_unique<data::RowEncoder>(*session_->dialogue, session_->instruction_set());
  std::vector<std::int64_t> held;
  if (config_.val_size > 0)
    std::tie(train_indices_, held) =
        data::hold_out(static_cast<std::int64_t>(dataset_.examples.size()), config_.val_size, config_.seed);
  data::EncodeReport report;
  rows_ = encoder_->encode_all(dataset_, train_indices_, encode_options(0), report);
  report_rows(report);
  evaluation_ = std::make_unique<DecoderEvaluation>(config_, *session_, development_rows(held), cutoff());
  // Opened now, so that a wrong path does not show after hours of training.
  if (!config_.test_dataset.empty()) test_dataset_ = data::open_dataset(config_.test_dataset, config_.dataset_dir);
}

// Rows of eval_dataset, else those held out.
data::Dataset DecoderRun::development_rows(const std::vector<std::int64_t>& held) const {
  if (!config_.eval_dataset.empty()) return data::open_dataset(config_.eval_dataset, config_.dataset_dir);
  data::Dataset rows = dataset_;
  rows.examples.clear();
  for (const std::int64_t index : held) rows.examples.push_back(dataset_.examples[static_cast<std::size_t>(index)]);
  return rows;
}

void DecoderRun::report_rows(const data::EncodeReport& report) const {
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
void DecoderRun::measure_limit() {
  product_limit_ = bench::peak_product_rate(*session_->engine, session_->package.model->dtype(), 0.1);
  log_debug("large matrix products: {:.0f} GFLOP/s", product_limit_ / 1e9);
}

void DecoderRun::train() {
  begin();
  train::TokenObjective objective(
      {.engine = *session_->engine,
       .model = *session_->package.model,
       .vocabulary = session_->package.tokenizer->vocabulary_size(),
       .rows = [this](std::int64_t epoch) -> const std::vector<data::EncodedRow>& { return rows_of(epoch); },
       .before_pass = [this](std::int64_t step, std::int64_t pass) { before_pass(step, pass); }},
      options_);
  forecast_time();
  loop_->train(*session_->engine, objective);
}

void DecoderRun::begin() {
  const train::LoopOptions planned = options_;
  options_ = loop_->begin(planned);
  if (options_.pass_rows != planned.pass_rows || options_.checkpoint != planned.checkpoint)
    forecast_bytes_ = bench::forecast_peak(forecast_run(), options_);
}

void DecoderRun::before_pass(std::int64_t step, std::int64_t pass) {
  if (trained_->is_lora() && config_.lora_dropout > 0)
    session_->adapter.adapter->attach(config_.seed,
                                      static_cast<std::uint64_t>(step) << 12 | static_cast<std::uint64_t>(pass));
}

// Rows of an epoch: encoded anew when templates are sampled.
const std::vector<data::EncodedRow>& DecoderRun::rows_of(std::int64_t epoch) {
  const instructions::InstructionSet* set = session_->instruction_set();
  const bool sampled = set != nullptr && std::any_of(set->instructions.begin(), set->instructions.end(),
                                                     [](const auto& i) { return i.templates.size() > 1; });
  const bool denoised =
      session_->dialogue->is_text_to_text() &&
      std::any_of(dataset_.examples.begin(), dataset_.examples.end(),
                  [](const data::Example& example) { return example.format == data::RowFormat::kText; });
  if ((sampled || denoised) && epoch != rows_epoch_) {
    data::EncodeReport report;
    rows_ = encoder_->encode_all(dataset_, train_indices_, encode_options(epoch), report);
    rows_epoch_ = epoch;
  }
  return rows_;
}

std::optional<BestMetric> DecoderRun::best_metric() const {
  if (evaluation_->empty()) return std::nullopt;
  return evaluation_->best_metric();
}

std::string DecoderRun::progress_text(const train::StepReport& report) const {
  const bench::Work work = bench::work_of(*session_->package.model, session_->adapter.adapter.get(), report.cost,
                                          trained_->is_lora() ? bench::Purpose::kLora : bench::Purpose::kFull);
  return fmt::format("loss {:.4f}, {:.0f} tokens/s, {:.0f}% of limit", report.loss,
                     static_cast<double>(report.cost.tokens) / report.seconds,
                     100 * work.total() / (report.seconds * product_limit_));
}

// The final table, from the weights that were written. Null where there are no rows for it.
Value DecoderRun::test() {
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

void DecoderRun::say_what_next() const {
  const std::string& output = config_.output_dir;
  const std::string model =
      trained_->is_lora() ? fmt::format("{} --adapter {}", config_.model_name_or_path, output) : output;
  const std::string set = config_.instructions.empty() ? "" : " --instructions " + config_.instructions;
  log_info("{} in {} after {} steps. Next, for instance:", trained_->is_lora() ? "Adapter" : "Model", output,
           loop_->position().step);
  log_info("  instruct eval --model {}{} --data TEST.jsonl", model, set);
  if (set.empty()) {
    log_info("  instruct chat --model {}", model);
  } else {
    log_info("  instruct run --model {}{} --input FILE", model, set);
  }
  log_info("  instruct export --model {} --format gguf --output {}.gguf", model, output);
}

}  // namespace instruct::cli
