#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/cancel.h"
#include "base/error.h"

namespace instruct::train {
namespace {

using Clock = std::chrono::steady_clock;

// Activations that overflow need not end in NaN: a norm divides them by infinity, and what is behind it is zero,
// gradients included, at the loss of a guess. Exact zeros with a loss mean that.
bool has_diverged(const StepReport& report) {
  constexpr double kLearnt = 1e-3;  // below this loss a gradient may round to nothing
  const bool vanished = report.gradient_norm == 0 && report.loss > kLearnt;
  return !std::isfinite(report.loss) || !std::isfinite(report.gradient_norm) || vanished;
}

}  // namespace

std::int64_t LoopOptions::steps_per_epoch(std::int64_t rows) const {
  return std::max<std::int64_t>(1, (rows + step_rows() - 1) / step_rows());
}

std::int64_t LoopOptions::total_steps(std::int64_t rows) const {
  if (max_steps > 0) return max_steps;
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(epochs * static_cast<double>(steps_per_epoch(rows)))));
}

Trainer::Trainer(ops::Engine& engine, Objective& objective, Optimizer& optimizer, const Schedule& schedule,
                 std::int64_t step_rows)
    : engine_(engine), objective_(objective), optimizer_(optimizer), schedule_(schedule), step_rows_(step_rows) {}

void Trainer::run(Position& position, const Observer& observer) {
  const std::int64_t total = schedule_.total_steps;
  for (;;) {
    const std::vector<std::int64_t> order = objective_.order(position.epoch);
    const auto count = static_cast<std::int64_t>(order.size());
    if (count == 0) raise(ErrorCategory::kBadData, "epoch {} has no rows to train on", position.epoch + 1);
    const auto epoch = [&] {
      return static_cast<double>(position.epoch) + static_cast<double>(position.row) / static_cast<double>(count);
    };
    while (position.row < count && position.step < total) {
      throw_if_cancelled("training");
      const std::int64_t rows = std::min(step_rows_, count - position.row);
      StepReport report = step(
          std::span(order).subspan(static_cast<std::size_t>(position.row), static_cast<std::size_t>(rows)), position);
      position.row += rows;
      ++position.step;
      position.units += report.units;
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

StepReport Trainer::step(std::span<const std::int64_t> rows, const Position& position) {
  const auto start = Clock::now();
  StepReport report{.units = objective_.units(rows)};
  if (report.units <= 0)
    raise(ErrorCategory::kBadData, "step {}: its {} rows have nothing to be trained on", position.step + 1,
          rows.size());
  const auto weight = static_cast<float>(1.0 / static_cast<double>(report.units));
  const PassTotals totals = objective_.add_gradients(rows, weight, position.step);
  report.cost = totals.cost;
  report.loss = totals.loss / static_cast<double>(report.units);
  report.gradient_norm = optimizer_.gradient_norm(engine_.context());
  report.learning_rate = schedule_.rate(position.step);
  if (has_diverged(report)) {
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
