#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include "base/cancel.h"
#include "base/error.h"
#include "data/grouping.h"
#include "data/sampler.h"

namespace instruct::train {
namespace {

using Clock = std::chrono::steady_clock;
using Rows = std::span<const data::EncodedRow* const>;

data::Layout layout_of(const LoopOptions& options) {
  return options.packing == Packing::kTree ? data::Layout::kTree : data::Layout::kRows;
}

// Micro-batches of a step: rows together, or one by one.
std::vector<data::Batch> batches_of(Rows rows, const LoopOptions& options) {
  const std::int64_t most = options.pass_rows > 0 ? options.pass_rows : options.micro_batch_rows;
  const std::int64_t size = options.packing == Packing::kRows ? 1 : most;
  std::vector<data::Batch> batches;
  for (const std::vector<std::size_t>& members : data::micro_batches(rows, layout_of(options), {.max_rows = size})) {
    std::vector<const data::EncodedRow*> chosen;
    for (const std::size_t member : members) chosen.push_back(rows[member]);
    batches.push_back(data::make_batch(chosen, layout_of(options)));
  }
  return batches;
}

// The order of an epoch. For a tree, rows that share much stay together.
std::vector<std::int64_t> order_of(std::span<const data::EncodedRow> rows, const LoopOptions& options,
                                   std::int64_t epoch) {
  if (options.packing != Packing::kTree)
    return data::epoch_order(static_cast<std::int64_t>(rows.size()), options.shuffle, options.seed, epoch);
  const std::vector<std::int64_t> groups =
      data::share_groups(rows, {.max_rows = options.micro_batch_rows * options.accumulation});
  return data::epoch_order(groups, options.shuffle, options.seed, epoch);
}

// Rows of the step at `begin` in an epoch's order.
std::vector<const data::EncodedRow*> step_rows(std::span<const data::EncodedRow> rows,
                                               std::span<const std::int64_t> order, std::int64_t begin,
                                               const LoopOptions& options) {
  const std::int64_t window = options.micro_batch_rows * options.accumulation;
  const std::int64_t end = std::min(static_cast<std::int64_t>(order.size()), begin + window);
  std::vector<const data::EncodedRow*> chosen;
  for (std::int64_t i = begin; i < end; ++i)
    chosen.push_back(&rows[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
  return chosen;
}

}  // namespace

data::CostModel cost_model_of(const models::LlamaConfig& config) {
  // Attention's products reach about half the rate of the layers'.
  constexpr double kAttention = 2;
  const auto heads = static_cast<double>(config.heads * config.head_width);
  const auto keys = static_cast<double>(config.key_value_heads * config.head_width);
  const auto width = static_cast<double>(config.width);
  const double layer = width * (2 * heads + 2 * keys + 3 * static_cast<double>(config.feed_forward_width));
  return {.pair = kAttention * 2 * heads / layer,
          .prediction = width * static_cast<double>(config.vocabulary) / (layer * static_cast<double>(config.layers))};
}

PackingChoice choose_packing(std::span<const data::EncodedRow> rows, const LoopOptions& options,
                             const data::CostModel& model) {
  constexpr std::size_t kSteps = 64;  // enough to tell: rows of an epoch are alike
  const auto window = static_cast<std::size_t>(options.micro_batch_rows * options.accumulation);
  PackingChoice choice;
  for (auto [packing, cost] : {std::pair{Packing::kTree, &choice.tree}, std::pair{Packing::kPacked, &choice.packed},
                               std::pair{Packing::kRows, &choice.rows}}) {
    LoopOptions way = options;
    way.packing = packing;
    const std::vector<std::int64_t> order = order_of(rows, way, 0);
    for (std::size_t begin = 0; begin < std::min(order.size(), kSteps * window); begin += window) {
      std::vector<const data::EncodedRow*> step;
      for (std::size_t i = begin; i < std::min(order.size(), begin + window); ++i)
        step.push_back(&rows[static_cast<std::size_t>(order[i])]);
      for (const data::Batch& batch : batches_of(step, way)) *cost += data::predicted_cost(data::cost_of(batch), model);
    }
  }
  // A tree keeps rows that share much in one step, another order than asked for: it has to be worth that.
  constexpr double kWorth = 0.95;
  if (choice.rows < choice.packed) choice.packing = Packing::kRows;
  if (choice.tree < kWorth * std::min(choice.rows, choice.packed)) choice.packing = Packing::kTree;
  return choice;
}

void for_each_step(std::span<const data::EncodedRow> rows, const LoopOptions& options, Position position,
                   const std::function<bool(const std::vector<data::Batch>& step)>& body) {
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int64_t total = Trainer::total_steps(count, options);
  for (; position.step < total; ++position.epoch, position.row = 0) {
    const std::vector<std::int64_t> order = order_of(rows, options, position.epoch);
    while (position.row < count && position.step < total) {
      const std::vector<const data::EncodedRow*> chosen = step_rows(rows, order, position.row, options);
      if (!body(batches_of(chosen, options))) return;
      position.row += static_cast<std::int64_t>(chosen.size());
      ++position.step;
    }
  }
}

double batch_loss(ops::Engine& engine, models::Llama& model, const data::Batch& batch, float weight,
                  std::int64_t vocabulary, bool checkpoint) {
  const data::Outputs outputs = data::outputs_of(batch);
  if (outputs.tokens.empty()) return 0;
  const std::vector<float> weights(outputs.targets.size(), weight);
  autograd::Tape tape;
  const models::Pass pass{.tokens = batch.tokens,
                          .positions = batch.positions,
                          .plan = &batch.plan,
                          .rows = outputs.tokens,
                          .checkpoint = checkpoint};
  const std::vector<float> log_probabilities =
      model.log_probabilities(engine.context(weight > 0 ? &tape : nullptr), pass,
                              {.targets = outputs.targets, .weights = weights, .rows = outputs.places}, vocabulary);
  tape.backward();
  double sum = 0;
  for (const float value : log_probabilities) sum -= static_cast<double>(value);
  return sum;
}

Trainer::Trainer(ops::Engine& engine, models::Llama& model, Optimizer& optimizer, const Schedule& schedule,
                 const LoopOptions& options, std::int64_t vocabulary)
    : engine_(engine),
      model_(model),
      optimizer_(optimizer),
      schedule_(schedule),
      options_(options),
      vocabulary_(vocabulary) {}

std::int64_t Trainer::steps_per_epoch(std::int64_t rows, const LoopOptions& options) {
  const std::int64_t window = options.micro_batch_rows * options.accumulation;
  return std::max<std::int64_t>(1, (rows + window - 1) / window);
}

std::int64_t Trainer::total_steps(std::int64_t rows, const LoopOptions& options) {
  if (options.max_steps > 0) return options.max_steps;
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(options.epochs * static_cast<double>(steps_per_epoch(rows, options)))));
}

void Trainer::run(const RowSource& source, std::int64_t row_count, Position& position, const Observer& observer) {
  const std::int64_t total = total_steps(row_count, options_);
  for (;;) {
    const std::vector<data::EncodedRow>& rows = source(position.epoch);
    const auto count = static_cast<std::int64_t>(rows.size());
    const std::vector<std::int64_t> order = order_of(rows, options_, position.epoch);
    const auto epoch = [&] {
      return static_cast<double>(position.epoch) + static_cast<double>(position.row) / static_cast<double>(count);
    };
    while (position.row < count && position.step < total) {
      throw_if_cancelled("training");
      const std::vector<const data::EncodedRow*> chosen = step_rows(rows, order, position.row, options_);
      StepReport report = step(chosen, position, observer);
      position.row += static_cast<std::int64_t>(chosen.size());
      ++position.step;
      position.trained_tokens += report.trained_tokens;
      report.step = position.step;
      report.total_steps = total;
      report.epoch = epoch();
      if (observer.on_step && observer.on_step(report)) return;
    }
    // The position stays at the end of the epoch until its observers are done, so that a run that is stopped in them
    // begins with them when it goes on.
    if (observer.on_epoch_end && observer.on_epoch_end(epoch())) return;
    if (position.step >= total) return;
    ++position.epoch;
    position.row = 0;
  }
}

StepReport Trainer::step(Rows rows, const Position& position, const Observer& observer) {
  const auto start = Clock::now();
  StepReport report;
  for (const data::EncodedRow* row : rows) report.trained_tokens += row->trained_tokens();
  INSTRUCT_CHECK(report.trained_tokens > 0);
  const auto weight = static_cast<float>(1.0 / static_cast<double>(report.trained_tokens));
  double sum = 0;
  std::int64_t micro_batch = 0;
  for (const data::Batch& batch : batches_of(rows, options_)) {
    if (observer.before_pass) observer.before_pass(position.step, micro_batch++);
    sum += batch_loss(engine_, model_, batch, weight, vocabulary_, options_.checkpoint);
    const data::BatchCost cost = data::cost_of(batch);
    report.cost += cost;
  }
  report.loss = sum / static_cast<double>(report.trained_tokens);
  report.gradient_norm = optimizer_.gradient_norm(engine_.context());
  report.learning_rate = schedule_.rate(position.step);
  // Activations that overflow need not end in NaN: a norm divides them by infinity, and what is behind it is zero,
  // gradients included, at the loss of a guess. Exact zeros with a loss mean that.
  constexpr double kLearnt = 1e-3;  // below this loss a gradient may round to nothing
  const bool vanished = report.gradient_norm == 0 && report.loss > kLearnt;
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm) || vanished) {
    raise(
        ErrorCategory::kNumeric,
        "step {}: loss {}, gradient norm {} at learning rate {}: training has diverged; a lower learning_rate or more "
        "warm-up may help",
        position.step + 1, report.loss, report.gradient_norm, report.learning_rate);
  }
  optimizer_.step(engine_.context(), report.learning_rate, report.gradient_norm);
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

}  // namespace instruct::train
