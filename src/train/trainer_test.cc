// The loop's arithmetic, on a least-squares problem whose loss and gradient are written down here.
#include "train/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"

namespace instruct::train {
namespace {

constexpr std::size_t kWidth = 3;

// A unit: its loss is (w x - y)^2 / 2.
struct Sample {
  float x[kWidth];
  float y;
};
using Row = std::vector<Sample>;  // rows have different numbers of units

// Rows 0, 1, ... of `units` samples each, with y = 1 x0 - 2 x1 + 3 x2.
std::vector<Row> rows_of(std::initializer_list<int> units) {
  std::vector<Row> rows;
  int number = 0;
  for (const int count : units) {
    Row& row = rows.emplace_back();
    for (int i = 0; i < count; ++i, ++number) {
      Sample sample{.x = {static_cast<float>(number % 5 - 2), static_cast<float>(number % 3), 1}, .y = 0};
      sample.y = sample.x[0] - 2 * sample.x[1] + 3 * sample.x[2];
      row.push_back(sample);
    }
  }
  return rows;
}

enum class Fault { kNone, kNan, kNoGradient };

class LeastSquares : public Objective {
 public:
  LeastSquares(std::vector<Row> rows, std::int64_t pass_rows, ops::Engine& engine)
      : rows_(std::move(rows)),
        pass_rows_(static_cast<std::size_t>(pass_rows)),
        weights_(
            autograd::Variable::parameter(tensor::Tensor::zeros({kWidth}, tensor::DType::kF32, engine.allocator()))),
        allocator_(engine.allocator()) {}

  std::int64_t rows() const override { return static_cast<std::int64_t>(rows_.size()); }

  // Forwards in even epochs, backwards in odd ones.
  std::vector<std::int64_t> order(std::int64_t epoch) override {
    std::vector<std::int64_t> order(rows_.size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    if (epoch % 2 == 1) std::reverse(order.begin(), order.end());
    return order;
  }

  std::int64_t units(std::span<const std::int64_t> rows) const override {
    std::size_t units = 0;
    for (const std::int64_t row : rows) units += at(row).size();
    return static_cast<std::int64_t>(units);
  }

  PassTotals add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) override {
    seen.emplace_back(step, std::vector<std::int64_t>(rows.begin(), rows.end()));
    PassTotals totals;
    while (!rows.empty()) {
      const std::size_t count = std::min(pass_rows_, rows.size());
      add_pass(rows.first(count), step == fault_step ? 0 : weight, totals);
      rows = rows.subspan(count);
    }
    if (step == fault_step && fault == Fault::kNan) totals.loss = std::numeric_limits<double>::quiet_NaN();
    return totals;
  }

  const autograd::Variable& weights() const { return weights_; }

  std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> seen;  // step and its rows
  Fault fault = Fault::kNone;
  std::int64_t fault_step = -1;

 private:
  const Row& at(std::int64_t row) const { return rows_[static_cast<std::size_t>(row)]; }

  void add_pass(std::span<const std::int64_t> rows, float weight, PassTotals& totals) {
    const auto* values = weights_.value().data<float>();
    tensor::Tensor& gradient = weights_.mutable_gradient();
    if (!gradient.defined()) gradient = tensor::Tensor::zeros({kWidth}, tensor::DType::kF32, allocator_);
    for (const std::int64_t row : rows) {
      for (const Sample& sample : at(row)) {
        float error = -sample.y;
        for (std::size_t i = 0; i < kWidth; ++i) error += values[i] * sample.x[i];
        totals.loss += static_cast<double>(error) * static_cast<double>(error) / 2;
        for (std::size_t i = 0; i < kWidth; ++i) gradient.data<float>()[i] += weight * error * sample.x[i];
        ++totals.cost.tokens;
      }
    }
  }

  std::vector<Row> rows_;
  std::size_t pass_rows_;
  autograd::Variable weights_;
  tensor::Allocator& allocator_;
};

// An objective with its optimizer and where training stands.
struct Training {
  Training(std::initializer_list<int> units, std::int64_t pass_rows) : objective(rows_of(units), pass_rows, engine) {}

  // `step_rows` rows a step, `steps` steps in all.
  void run(std::int64_t step_rows, std::int64_t steps, const Observer& more = {}) {
    Trainer trainer(engine, objective, optimizer, {ScheduleKind::kLinear, 0.05, 2, steps}, step_rows);
    trainer.run(position, {.on_step =
                               [&](const StepReport& report) {
                                 reports.push_back(report);
                                 return more.on_step && more.on_step(report);
                               },
                           .on_epoch_end = more.on_epoch_end});
  }
  std::vector<float> weights() const { return objective.weights().value().to_floats(); }

  ops::Engine engine{1};
  LeastSquares objective;
  Optimizer optimizer{{}, {{"w", objective.weights(), {}}}, engine.allocator()};
  Position position;
  std::vector<StepReport> reports;
};

using Steps = std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>>;

// What the first step finds, where all weights are 0, worked out over all samples at once.
TEST(Trainer, ALossIsAMeanOverAllUnitsOfItsStep) {
  double loss = 0, gradient[kWidth] = {}, units = 0;
  for (const Row& row : rows_of({1, 5, 2, 4})) {
    for (const Sample& sample : row) {
      loss += static_cast<double>(sample.y) * static_cast<double>(sample.y) / 2;
      for (std::size_t i = 0; i < kWidth; ++i)
        gradient[i] -= static_cast<double>(sample.y) * static_cast<double>(sample.x[i]);
      ++units;
    }
  }
  const double norm = std::hypot(gradient[0], gradient[1], gradient[2]) / units;
  for (const std::int64_t pass_rows : {4, 3, 1}) {
    Training training({1, 5, 2, 4}, pass_rows);
    training.run(4, 1);
    ASSERT_EQ(training.reports.size(), 1u);
    const StepReport& report = training.reports.front();
    EXPECT_DOUBLE_EQ(report.loss, loss / units) << pass_rows;
    // 12 products of weights of 24 bits.
    EXPECT_NEAR(report.gradient_norm, norm, 12 * norm * std::numeric_limits<float>::epsilon()) << pass_rows;
    EXPECT_EQ(report.units, 12);
    EXPECT_EQ(report.cost.tokens, 12);
  }
}

TEST(Trainer, PassesOfAStepChangeOnlyTheOrderOfAdditions) {
  Training whole({1, 5, 2, 4, 3, 1}, 3), cut({1, 5, 2, 4, 3, 1}, 1);
  whole.run(3, 400);
  cut.run(3, 400);
  for (std::size_t i = 0; i < kWidth; ++i) EXPECT_NEAR(whole.weights()[i], cut.weights()[i], 1e-4);
  const float truth[] = {1, -2, 3};
  for (std::size_t i = 0; i < kWidth; ++i) EXPECT_NEAR(whole.weights()[i], truth[i], 0.02);
  EXPECT_LT(whole.reports.back().loss, 1e-3 * whole.reports.front().loss);
}

TEST(Trainer, EachEpochTakesItsRowsInItsOrder) {
  Training training({1, 5, 2, 4, 3}, 8);
  std::vector<double> ends;
  training.run(2, 7, {.on_epoch_end = [&](double epoch) {
                 ends.push_back(epoch);
                 return false;
               }});
  EXPECT_EQ(training.objective.seen,
            (Steps{{0, {0, 1}}, {1, {2, 3}}, {2, {4}}, {3, {4, 3}}, {4, {2, 1}}, {5, {0}}, {6, {0, 1}}}));
  EXPECT_EQ(ends, (std::vector<double>{1, 2, 2.4}));
  EXPECT_EQ(training.position.step, 7);
  EXPECT_EQ(training.position.epoch, 2);
  EXPECT_EQ(training.position.row, 2);
  EXPECT_EQ(training.position.units, 15 + 15 + 6);
  const Schedule schedule{ScheduleKind::kLinear, 0.05, 2, 7};
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(training.reports[i].step, static_cast<std::int64_t>(i) + 1);
    EXPECT_EQ(training.reports[i].total_steps, 7);
    EXPECT_DOUBLE_EQ(training.reports[i].learning_rate, schedule.rate(static_cast<std::int64_t>(i)));
  }
  EXPECT_DOUBLE_EQ(training.reports[3].epoch, 1.4);
}

TEST(Trainer, StoppedAfterAnyStepItGoesOnAsIfItHadNot) {
  Training whole({1, 5, 2, 4, 3}, 1);
  whole.run(2, 8);
  for (std::int64_t stop = 1; stop < 8; ++stop) {
    Training parts({1, 5, 2, 4, 3}, 1);
    parts.run(2, 8, {.on_step = [&](const StepReport& report) { return report.step == stop; }});
    ASSERT_EQ(parts.position.step, stop);
    ASSERT_EQ(parts.objective.seen.size(), static_cast<std::size_t>(stop));
    parts.run(2, 8);
    EXPECT_EQ(parts.objective.seen, whole.objective.seen) << stop;
    EXPECT_EQ(parts.weights(), whole.weights()) << stop;
    EXPECT_EQ(parts.position.units, whole.position.units) << stop;
  }
}

TEST(Trainer, StoppedAtTheEndOfAnEpochItBeginsWithThatEnd) {
  Training training({1, 5, 2}, 1);
  std::vector<double> ends;
  const auto stop_at_one = [&](double epoch) {
    ends.push_back(epoch);
    return ends.size() == 1;
  };
  training.run(2, 6, {.on_epoch_end = stop_at_one});
  EXPECT_EQ(training.position.step, 2);
  EXPECT_EQ(training.position.row, 3);
  training.run(2, 6, {.on_epoch_end = stop_at_one});
  EXPECT_EQ(ends, (std::vector<double>{1, 1, 2, 3}));
  EXPECT_EQ(training.position.step, 6);
}

void expect_error(Training& training, ErrorCategory category, const std::string& text) {
  try {
    training.run(2, 6);
    ADD_FAILURE() << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), category) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(Trainer, WhatDivergesIsRefusedBeforeTheParametersChange) {
  for (const Fault fault : {Fault::kNan, Fault::kNoGradient}) {
    Training whole({1, 5, 2, 4}, 1), training({1, 5, 2, 4}, 1);
    whole.run(2, 6, {.on_step = [](const StepReport& report) { return report.step == 3; }});
    training.objective.fault = fault;
    training.objective.fault_step = 3;
    expect_error(training, ErrorCategory::kNumeric, "step 4: loss");
    EXPECT_EQ(training.position.step, 3);
    EXPECT_EQ(training.weights(), whole.weights());
  }
}

TEST(Trainer, RowsWithoutUnitsAndEpochsWithoutRowsAreBadData) {
  Training empty({}, 1);
  expect_error(empty, ErrorCategory::kBadData, "epoch 1 has no rows");
  Training silent({1, 1, 0, 0}, 1);
  expect_error(silent, ErrorCategory::kBadData, "step 2: its 2 rows have nothing to be trained on");
}

TEST(Trainer, AStopIsTakenBetweenSteps) {
  Training training({1, 5, 2, 4}, 1);
  training.run(2, 6, {.on_step = [](const StepReport& report) { return report.step == 1; }});
  request_cancel();
  expect_error(training, ErrorCategory::kCancelled, "training");
  clear_cancel();
  EXPECT_EQ(training.position.step, 1);
  training.run(2, 6);
  EXPECT_EQ(training.position.step, 6);
}

TEST(LoopOptions, CountTheStepsOfARun) {
  const LoopOptions options{.micro_batch_rows = 2, .accumulation = 3, .epochs = 2.5};
  EXPECT_EQ(options.step_rows(), 6);
  EXPECT_EQ(options.steps_per_epoch(13), 3);
  EXPECT_EQ(options.steps_per_epoch(0), 1);
  EXPECT_EQ(options.total_steps(13), 8);  // 2.5 times 3, rounded up
  EXPECT_EQ((LoopOptions{.epochs = 0.01}.total_steps(13)), 1);
  EXPECT_EQ((LoopOptions{.epochs = 9, .max_steps = 4}.total_steps(1300)), 4);
}

}  // namespace
}  // namespace instruct::train
