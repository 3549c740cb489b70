// What a training run will need, before its first step: the way rows are packed, memory, and time.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/decoder_run.h"

namespace instruct::cli {
namespace {

// What a limit leaves for a forecast, which may be a little too low; and the limit that leaves as much.
constexpr double kMargin = 0.03;
constexpr std::int64_t kMarginBytes = 8 << 20;
std::int64_t without_margin(std::int64_t limit) {
  return static_cast<std::int64_t>(static_cast<double>(limit) * (1 - kMargin)) - kMarginBytes;
}
std::int64_t with_margin(std::int64_t forecast) {
  return static_cast<std::int64_t>(static_cast<double>(forecast + kMarginBytes) / (1 - kMargin));
}

// The way that is predicted to be fastest, and what it is predicted to save.
train::Packing chosen_packing(std::span<const data::EncodedRow> rows, const train::LoopOptions& loop,
                              const models::ModelSizes& model) {
  const train::PackingChoice choice = train::choose_packing(rows, loop, train::cost_model_of(model));
  const char* name = choice.packing == train::Packing::kTree     ? "tree"
                     : choice.packing == train::Packing::kPacked ? "true"
                                                                 : "false";
  log_info("packing auto: {} (predicted cost: tree {:.0f}, true {:.0f}, false {:.0f})", name, choice.tree,
           choice.packed, choice.rows);
  return choice.packing;
}

}  // namespace

// Of a token's keys and values, as answers of evaluations keep them.
std::int64_t DecoderRun::slot_bytes() const {
  return session_->package.model->make_cache(1, session_->engine->allocator()).bytes_per_slot();
}

bench::Run DecoderRun::forecast_run() const {
  bench::Run run{.engine = *session_->engine,
                 .model = *session_->package.model,
                 .optimizer = trained_->optimizer(),
                 .adapter = trained_->is_lora() ? session_->adapter.adapter.get() : nullptr,
                 .vocabulary = session_->package.tokenizer->vocabulary_size(),
                 .rows = rows_,
                 .evaluation = {},
                 .evaluation_tokens = evaluation_->empty() ? 0 : evaluate::ScoreOptions().batch_tokens,
                 .other_bytes = evaluation_->slots() * slot_bytes()};
  for (std::int64_t i = 0; i < evaluations_left(); ++i) run.evaluation += evaluation_->cost();
  return run;
}

std::int64_t DecoderRun::evaluations_left() const {
  if (evaluation_->empty() || config_.eval_strategy == "no") return 0;
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t left = options_.total_steps(rows) - loop_->position().step;
  const std::int64_t every = config_.eval_strategy == "steps" ? config_.eval_steps : options_.steps_per_epoch(rows);
  return config_.eval_strategy == "steps" ? left / every : (left + every - 1) / every;
}

// Memory is settled before anything is written or deleted.
void DecoderRun::plan_memory() {
  options_ = TrainLoop::options_of(config_);
  if (options_.packing == train::Packing::kAuto)
    options_.packing = chosen_packing(rows_, options_, session_->package.model->sizes());
  bench::Run run = forecast_run();
  if (config_.memory_limit.empty()) {
    forecast_bytes_ = bench::forecast_peak(run, options_);
  } else {
    choose_passes(run);
  }
  check_free_memory();
}

void DecoderRun::choose_passes(const bench::Run& whole) {
  const std::int64_t limit = without_margin(config_.memory_limit_bytes());
  bench::Run run = whole;
  run.other_bytes = 0;
  const bench::MemoryPlan plan = bench::plan_memory(run, options_, limit);
  if (plan.peak_bytes > limit) refuse_limit(plan);
  if (plan.pass_rows < options_.micro_batch_rows || plan.checkpoint != options_.checkpoint) {
    log_info("memory_limit {}: rows computed at a time: {} instead of {}{}; an optimizer step keeps its {} rows",
             config_.memory_limit, plan.pass_rows, options_.micro_batch_rows,
             plan.checkpoint && !options_.checkpoint ? ", and gradient_checkpointing" : "", options_.step_rows());
  }
  options_.pass_rows = plan.pass_rows;
  options_.checkpoint = plan.checkpoint;
  forecast_bytes_ = plan.peak_bytes;
  if (evaluation_->slots() == 0) return;
  const std::int64_t room = limit - resident_bytes();
  evaluation_->limit_slots(std::max<std::int64_t>(1, room / 2 / slot_bytes()));
  run.other_bytes = forecast_run().other_bytes;
  forecast_bytes_ = bench::forecast_peak(run, options_);
}

void DecoderRun::refuse_limit(const bench::MemoryPlan& least) const {
  std::int64_t longest = 0;
  for (const data::EncodedRow& row : rows_) longest = std::max(longest, data::computed_tokens(row));
  std::string lower;
  const std::int64_t parameters = trained_->optimizer().parameter_count();
  if (config_.optim == "adamw") lower += fmt::format("optim: adamw_8bit ({} less), ", format_bytes(6 * parameters));
  if (!trained_->is_lora()) lower += "finetuning_type: lora, ";
  if (trained_->is_lora() && !config_.keep_quantised) lower += "keep_quantised: true over a quantised model, ";
  raise(ErrorCategory::kInvalidArgument,
        "memory_limit {} is too little: with one row at a time and gradient_checkpointing this run needs about {}, of "
        "which {} are there before the first step. Less need: {}a lower cutoff_len (the longest row has {} tokens), "
        "{}a smaller model",
        config_.memory_limit, format_bytes(with_margin(least.peak_bytes)), format_bytes(resident_bytes()), lower,
        longest, trained_->is_lora() ? "a lower lora_rank, " : "");
}

// More than the machine has ends in a killed process: refused. More than is free now may still find room, when other
// processes end: a warning.
void DecoderRun::check_free_memory() const {
  const std::int64_t more = forecast_bytes_ - resident_bytes();
  const char* advice = "memory_limit chooses fewer rows at a time and gradient_checkpointing to stay below a limit";
  if (forecast_bytes_ > machine_bytes()) {
    raise(ErrorCategory::kInvalidArgument, "this run needs about {}, and this machine has {}: {}",
          format_bytes(forecast_bytes_), format_bytes(machine_bytes()), advice);
  }
  if (more > available_bytes()) {
    log_warning("this run needs about {} more, and {} are free now: the system may end it. {}", format_bytes(more),
                format_bytes(available_bytes()), advice);
  }
}

void DecoderRun::forecast_time() {
  forecast_ = bench::forecast_time(forecast_run(), options_, loop_->position());
  log_info("Forecast: {} of memory at most, {} for {} steps ({:.0f} tokens a second){}", format_bytes(forecast_bytes_),
           format_duration(std::chrono::duration<double>(forecast_.seconds)),
           options_.total_steps(static_cast<std::int64_t>(rows_.size())) - loop_->position().step,
           forecast_.tokens_per_second,
           evaluation_->slots() > 0 ? ", without the answers that evaluations generate" : "");
}

Value DecoderRun::forecast_value() const {
  return Value::object({{"peak_bytes", forecast_bytes_},
                        {"seconds", forecast_.seconds},
                        {"pass_rows", options_.pass_rows > 0 ? options_.pass_rows : options_.micro_batch_rows},
                        {"gradient_checkpointing", options_.checkpoint},
                        {"measured_peak_bytes", peak_resident_bytes()},
                        {"measured_seconds", loop_->elapsed().count()}});
}

}  // namespace instruct::cli
