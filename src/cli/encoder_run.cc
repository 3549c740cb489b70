#include "cli/encoder_run.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/sampler.h"
#include "evaluate/text_task.h"
#include "train/head_objective.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

void EncoderRun::execute() {
  loop_ = std::make_unique<TrainLoop>(config_, *this);
  open();
  prepare_rows();
  make_optimizer();
  log_info("{} trained parameters", optimizer_->parameter_count());
  const train::LoopOptions options = loop_->begin(TrainLoop::options_of(config_));
  const double dropout = config_.dropout.value_or(session_->package.encoder->config().dropout);
  train::HeadObjective objective(
      {.engine = *session_->engine,
       .model = *session_->model,
       .tasks = session_->tasks,
       .rows = [this](std::int64_t epoch) -> const std::vector<data::TextRow>& { return rows_of(epoch); },
       .dropout = static_cast<float>(dropout),
       .before_pass = [this](std::int64_t step, std::int64_t pass) { before_pass(step, pass); }},
      options);
  loop_->train(*session_->engine, objective);
  loop_->finish(Value());
  const Value tested = test();
  if (results_ == Results::kJson) {
    Value summary = loop_->summary();
    summary.set("test", tested);
    std::cout << dump_json(summary) << '\n';
  }
  say_what_next();
}

void EncoderRun::open() {
  if (!config_.adapter_name_or_path.empty())
    raise(ErrorCategory::kUnsupported, "adapter_name_or_path: adapters of encoders start anew so far");
  log_info("Opening {}", config_.model_name_or_path);
  session_ = open_text_session({.model = config_.model_name_or_path,
                                .instructions = config_.instructions,
                                .dtype = config_.dtype,
                                .threads = static_cast<int>(config_.threads),
                                .seed = config_.seed,
                                .pooling = config_.pooling,
                                .draw = models::Draw::kMissing,
                                .trainable = !is_lora(),
                                .without = TextSessionOptions::Without::kMasks});
}

void EncoderRun::encode(Rows& rows, std::int64_t epoch, Use use) const {
  const instructions::InstructionSet none;
  const data::TextEncoder encoder(*session_->package.tokenizer, is_masked_lm() ? none : *session_->set);
  data::TextOptions options = session_->text_options();
  options.cutoff = std::min(options.cutoff, config_.cutoff_len);
  options.overflow = data::overflow_from_name(config_.overflow);
  options.windows = use == Use::kJudged;
  options.seed = config_.seed;
  options.epoch = epoch;
  data::TextReport report;
  if (is_masked_lm()) {
    rows.texts = encoder.encode_texts(rows.dataset, rows.indices, options, report);
    mask(rows, epoch);
  } else {
    rows.rows = encoder.encode_all(rows.dataset, rows.indices, options, report);
  }
  if (epoch > 0) return;
  log_info("{}: {} rows, {} tokens", rows.dataset.origin, rows.rows.size(), report.tokens);
  if (!report.too_long.empty())
    log_warning("{} rows are longer than {} tokens (policy: {}), first: row {}", report.too_long.size(), options.cutoff,
                config_.overflow, report.too_long.front());
  if (!report.dropped.empty())
    log_warning("{} rows were left out, first: row {}", report.dropped.size(), report.dropped.front());
}

// Each epoch leaves out other tokens.
void EncoderRun::mask(Rows& rows, std::int64_t epoch) const {
  rows.rows = session_->masked(rows.texts, {.rate = config_.mlm_probability,
                                            .whole_words = config_.whole_word_masking,
                                            .seed = config_.seed,
                                            .epoch = epoch});
}

void EncoderRun::prepare_rows() {
  train_.dataset = data::open_dataset(config_.dataset, config_.dataset_dir);
  train_.indices = data::row_indices(train_.dataset);
  if (!config_.eval_dataset.empty()) {
    development_.dataset = data::open_dataset(config_.eval_dataset, config_.dataset_dir);
    development_.indices = data::row_indices(development_.dataset);
  } else if (config_.val_size > 0) {
    development_.dataset = train_.dataset;
    std::tie(train_.indices, development_.indices) =
        data::hold_out(static_cast<std::int64_t>(train_.dataset.examples.size()), config_.val_size, config_.seed);
  }
  if (config_.max_eval_rows > 0 && static_cast<std::int64_t>(development_.indices.size()) > config_.max_eval_rows)
    development_.indices.resize(static_cast<std::size_t>(config_.max_eval_rows));
  if (!config_.test_dataset.empty()) {
    test_.dataset = data::open_dataset(config_.test_dataset, config_.dataset_dir);
    test_.indices = data::row_indices(test_.dataset);
  }
  encode(train_, 0, Use::kTrained);
  for (const data::TextRow& row : train_.rows) {
    const data::Example& example = train_.dataset.examples[static_cast<std::size_t>(row.example)];
    if (row.truth.empty()) raise(ErrorCategory::kBadData, "{}: there is no output", train_.dataset.where(example));
  }
  for (Rows* rows : {&development_, &test_}) {
    if (!rows->indices.empty()) encode(*rows, 0, Use::kJudged);
  }
  if (development_.empty()) return;
  const std::map<std::string, std::vector<std::string>> masked{{evaluate::kMaskedVerb, {}}};
  table_ = EvaluationTable(
      config_, is_masked_lm() ? masked : evaluate::text_metrics_by_verb(*session_->set, development_.dataset, {}), "");
}

// Rows of an epoch: encoded anew when templates are sampled, masked anew without them.
const std::vector<data::TextRow>& EncoderRun::rows_of(std::int64_t epoch) {
  if (epoch == rows_epoch_) return train_.rows;
  if (is_masked_lm()) {
    mask(train_, epoch);
  } else {
    const auto& verbs = session_->set->instructions;
    const bool sampled = std::any_of(verbs.begin(), verbs.end(), [](const auto& i) { return i.templates.size() > 1; });
    if (sampled) encode(train_, epoch, Use::kTrained);
  }
  rows_epoch_ = epoch;
  return train_.rows;
}

// With LoRA the adapter's matrices and the heads, which are trained whole.
void EncoderRun::make_optimizer() {
  std::vector<train::Optimizer::Named> parameters;
  if (is_lora()) {
    const std::vector<nn::Linear*> layers = session_->package.encoder->linears();
    session_->adapter.adapter = adapters::LoraAdapter::create({.rank = config_.lora_rank,
                                                               .alpha = config_.alpha(),
                                                               .dropout = config_.lora_dropout,
                                                               .rank_stabilised = config_.use_rslora,
                                                               .target_modules = config_.lora_target},
                                                              layers, session_->package.encoder->dtype(), config_.seed,
                                                              session_->engine->allocator());
    for (const adapters::LoraModule& module : session_->adapter.adapter->modules()) {
      parameters.push_back({module.name + ".lora_A", module.a, {}});
      parameters.push_back({module.name + ".lora_B", module.b, {}});
    }
  }
  for (const models::NamedWeight& weight : is_lora() ? session_->model->head_weights() : session_->model->weights())
    parameters.push_back({weight.name, weight.variable, {}});
  optimizer_ = std::make_unique<train::Optimizer>(TrainLoop::adamw_of(config_), std::move(parameters),
                                                  session_->engine->allocator());
}

void EncoderRun::before_pass(std::int64_t step, std::int64_t pass) {
  if (is_lora() && config_.lora_dropout > 0)
    session_->adapter.adapter->attach(config_.seed,
                                      static_cast<std::uint64_t>(step) << 12 | static_cast<std::uint64_t>(pass));
}

// A weight as the optimizer holds it.
tensor::Tensor EncoderRun::trained(const std::string& name) const {
  for (const train::TrainedParameter& parameter : optimizer_->parameters()) {
    if (parameter.name == name) return optimizer_->master(parameter);
  }
  raise(ErrorCategory::kInternal, "no weight '{}'", name);
}

void EncoderRun::write(const fs::path& folder) const {
  if (!is_lora()) {
    models::write_text_model(folder, session_->package, *session_->model, session_->mean_pooling,
                             [this](const std::string& name) { return trained(name); });
    return;
  }
  std::vector<std::pair<tensor::Tensor, tensor::Tensor>> masters;
  for (const adapters::LoraModule& module : std::as_const(*session_->adapter.adapter).modules())
    masters.emplace_back(trained(module.name + ".lora_A"), trained(module.name + ".lora_B"));
  models::AdapterHeads heads{.description = models::text_model_description(*session_->model, session_->mean_pooling),
                             .task_type = models::peft_task_type(*session_->model)};
  for (const models::NamedWeight& weight : session_->model->head_weights())
    heads.weights.emplace_back(weight.name, trained(weight.name));
  models::write_peft_files(folder, *session_->adapter.adapter, masters, session_->origin(),
                           session_->package.config.layers, heads);
}

std::optional<BestMetric> EncoderRun::best_metric() const {
  return development_.empty() ? std::nullopt : std::optional(table_.best());
}

evaluate::TaskReport EncoderRun::measure(const Rows& rows, const char* title, std::int64_t bootstrap) const {
  Progress progress(title, static_cast<std::int64_t>(rows.rows.size()), "rows");
  const auto on_done = [&](std::int64_t done) { progress.update(done); };
  evaluate::TaskReport report =
      is_masked_lm()
          ? evaluate::evaluate_masked(*session_->engine, *session_->model, session_->tasks.front(), rows.rows, on_done)
          : evaluate::evaluate_texts(session_->answerer(), rows.dataset, rows.rows,
                                     {.bootstrap = bootstrap, .seed = config_.seed}, on_done);
  progress.drop();
  return report;
}

Evaluation EncoderRun::evaluate(std::int64_t step, double epoch) {
  return table_.of(measure(development_, "Evaluating", 0), step, epoch);
}

std::string EncoderRun::progress_text(const train::StepReport& report) const {
  return fmt::format("loss {:.4f}, {:.0f} rows/s, {:.0f} tokens/s", report.loss,
                     static_cast<double>(report.cost.segments) / report.seconds,
                     static_cast<double>(report.cost.tokens) / report.seconds);
}

// The final table, from the weights that were written. Null where there are no rows for it.
Value EncoderRun::test() {
  if (test_.empty()) return {};
  const evaluate::TaskReport report = measure(test_, "Testing", evaluate::TaskOptions{}.bootstrap);
  if (results_ == Results::kText) std::cout << evaluate::report_table(report) << std::flush;
  const fs::path folder = config_.output_dir;
  Value results = evaluate::report_value(report);
  if (!is_masked_lm()) write_predictions(folder / "generated_predictions.jsonl", report, &*session_->set);
  write_file_atomic(folder / "test_results.json", dump_json(results, {.indent = 2}) + "\n");
  return results;
}

void EncoderRun::say_what_next() const {
  const std::string& output = config_.output_dir;
  const std::string model = is_lora() ? fmt::format("{} --adapter {}", config_.model_name_or_path, output) : output;
  log_info("{} in {} after {} steps. Next, for instance:", is_lora() ? "Adapter and heads" : "Model", output,
           loop_->position().step);
  const std::string instructions = is_masked_lm() ? "" : " --instructions " + config_.instructions;
  log_info("  instruct eval --model {}{} --data TEST.jsonl", model, instructions);
}

}  // namespace instruct::cli
