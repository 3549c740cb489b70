#include "bench/forecast.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "bench/work.h"

namespace instruct::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMostSteps = 4096;           // looked at; more are taken to be alike
constexpr std::int64_t kThreadBytes = 2 << 20;      // what tasks of a thread ask for beside tensors
constexpr std::int64_t kProgramBytes = 12 << 20;    // compiled products, buffers: 3 to 26 MB in measured runs
constexpr std::int64_t kProbeTokens = 1024;         // of the pass that is timed
constexpr double kProbeSeconds = 1.0;               // and how long, after one to warm up
constexpr std::int64_t kOptimizerValues = 8 << 20;  // of the optimizer step that is timed

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The passes that need most: most tokens, most predictions, most attended pairs.
struct Heaviest {
  std::vector<data::Batch> passes;
  bool several = false;  // whether steps have more than one pass, so that gradients meet activations of the next
};

Heaviest heaviest_of(std::span<const data::EncodedRow> rows, const train::LoopOptions& options) {
  constexpr std::int64_t data::BatchCost::*kMeasures[] = {&data::BatchCost::tokens, &data::BatchCost::predictions,
                                                          &data::BatchCost::attended};
  Heaviest found;
  std::int64_t steps = 0;
  std::int64_t most[] = {0, 0, 0};
  std::optional<data::Batch> batches[3];
  train::for_each_step(rows, options, {}, [&](const std::vector<data::Batch>& step) {
    found.several = found.several || step.size() > 1;
    for (const data::Batch& batch : step) {
      const data::BatchCost cost = data::cost_of(batch);
      for (std::size_t i = 0; i < 3; ++i) {
        if (cost.*kMeasures[i] <= most[i]) continue;
        most[i] = cost.*kMeasures[i];
        batches[i] = batch;
      }
    }
    return ++steps < kMostSteps;
  });
  for (std::optional<data::Batch>& batch : batches) {
    if (batch) found.passes.push_back(std::move(*batch));
  }
  return found;
}

// A forward pass like those of an evaluation: rows until there are as many tokens.
data::Batch evaluation_pass(const Run& run) {
  std::vector<const data::EncodedRow*> chosen;
  std::int64_t tokens = 0;
  for (const data::EncodedRow& row : run.rows) {
    tokens += data::computed_tokens(row);
    if (!chosen.empty() && tokens > run.evaluation_tokens) break;
    chosen.push_back(&row);
  }
  return data::make_batch(chosen, data::Layout::kRows);
}

// The largest weight in f32, as saving makes it.
std::int64_t largest_master(const train::Optimizer& optimizer) {
  std::int64_t most = 0;
  for (const train::TrainedParameter& parameter : optimizer.parameters())
    if (parameter.state.lower.defined()) most = std::max(most, parameter.state.weight.elements());
  return most * 4;
}

// Reads a byte of every page of the weights, so that those of a mapped file are in memory as they will be.
void read_weights(const models::LanguageModel& model) {
  constexpr std::int64_t kPage = 4096;
  unsigned sum = 0;
  for (const models::NamedWeight& weight : model.weights()) {
    const tensor::Tensor& value = weight.variable.value();
    for (std::int64_t at = 0; at < value.bytes(); at += kPage) sum += static_cast<unsigned>(value.raw()[at]);
  }
  volatile const unsigned kept = sum;  // so that the reads are made
  static_cast<void>(kept);
}

double loss_of(const Run& run, const data::Batch& batch, float weight, bool checkpoint) {
  return train::batch_loss(run.engine, run.model, batch, weight, run.vocabulary, checkpoint);
}

// Seconds of one optimizer step, measured on a part of the size, in memory that the passes before it have left.
double optimizer_seconds(const Run& run) {
  constexpr std::int64_t kBytesEach = 20;  // of a weight, its gradient and its moments
  const std::int64_t room = run.engine.allocator().bytes_kept() - run.engine.allocator().bytes_in_use();
  const std::int64_t values = std::min({kOptimizerValues, run.optimizer.parameter_count(), room / kBytesEach});
  if (values < 4096) return 0;
  tensor::Allocator& allocator = run.engine.allocator();
  const tensor::Shape shape{values / 64, 64};
  const auto variable = autograd::Variable::parameter(tensor::Tensor::zeros(shape, run.model.dtype(), allocator));
  train::Optimizer optimizer({.moments = run.optimizer.config().moments}, {{"probe", variable, {}}}, allocator);
  double seconds = 0;
  for (int i = 0; i < 3; ++i) {
    variable.mutable_gradient() = tensor::Tensor::zeros(shape, tensor::DType::kF32, allocator);
    const auto start = Clock::now();
    optimizer.step(run.engine.context(), 1e-5, optimizer.gradient_norm(run.engine.context()));
    if (i > 0) seconds += seconds_since(start) / 2;  // the first warms up
  }
  return seconds * static_cast<double>(run.optimizer.parameter_count()) / static_cast<double>(values);
}

// What is left to compute.
struct Workload {
  data::BatchCost cost;
  double steps = 0;
};

Workload workload_of(const Run& run, const train::LoopOptions& options, const train::Position& position) {
  Workload work;
  train::for_each_step(run.rows, options, position, [&](const std::vector<data::Batch>& step) {
    for (const data::Batch& batch : step) work.cost += data::cost_of(batch);
    return ++work.steps < kMostSteps;
  });
  const std::int64_t total = options.total_steps(static_cast<std::int64_t>(run.rows.size()));
  const auto left = static_cast<double>(std::max<std::int64_t>(0, total - position.step));
  if (work.steps > 0 && left > work.steps) {
    const double times = left / work.steps;
    for (std::int64_t* count : {&work.cost.tokens, &work.cost.attended, &work.cost.predictions})
      *count = static_cast<std::int64_t>(static_cast<double>(*count) * times);
    work.steps = left;
  }
  return work;
}

// A pass like those of the run, of the rows that its first step begins with.
data::Batch typical_pass(const Run& run, const train::LoopOptions& options, const train::Position& position) {
  train::LoopOptions small = options;
  std::int64_t tokens = 0;
  for (const data::EncodedRow& row : run.rows) tokens += data::computed_tokens(row);
  const std::int64_t mean = std::max<std::int64_t>(1, tokens / static_cast<std::int64_t>(run.rows.size()));
  const std::int64_t rows = options.pass_rows > 0 ? options.pass_rows : options.micro_batch_rows;
  small.pass_rows = std::clamp<std::int64_t>(kProbeTokens / mean, 1, rows);
  data::Batch pass;
  train::for_each_step(run.rows, small, position, [&](const std::vector<data::Batch>& step) {
    pass = step.front();
    return false;
  });
  return pass;
}

}  // namespace

std::int64_t forecast_peak(const Run& run, const train::LoopOptions& options) {
  const Heaviest heaviest = heaviest_of(run.rows, options);
  if (!run.model.has_integer_products()) read_weights(run.model);  // else they were packed, and are not read again
  const std::int64_t before = run.engine.allocator().bytes_kept();
  const std::int64_t after = run.engine.rehearse([&] {
    if (heaviest.several) loss_of(run, heaviest.passes.front(), 1.0F, options.checkpoint);
    for (const data::Batch& pass : heaviest.passes) {
      loss_of(run, pass, 1.0F, options.checkpoint);
      if (!heaviest.several) run.optimizer.drop_gradients();
    }
    run.optimizer.drop_gradients();
    if (run.evaluation_tokens > 0) loss_of(run, evaluation_pass(run), 0.0F, false);
    const std::int64_t other = std::max(run.other_bytes, largest_master(run.optimizer));
    const auto space = run.engine.allocator().allocate(other);
  });
  log_debug("passes of {} tokens: {} of tensors kept, {} with them, {} resident",
            data::cost_of(heaviest.passes.front()).tokens, format_bytes(before), format_bytes(after),
            format_bytes(resident_bytes()));
  return resident_bytes() + std::max<std::int64_t>(0, after - before) + kProgramBytes +
         kThreadBytes * run.engine.threads().threads();
}

MemoryPlan plan_memory(const Run& run, train::LoopOptions options, std::int64_t limit) {
  const bool one_row = options.packing == train::Packing::kRows;
  MemoryPlan plan;
  for (options.checkpoint = options.checkpoint;; options.checkpoint = true) {
    for (std::int64_t rows = one_row ? 1 : options.micro_batch_rows;; rows = (rows + 1) / 2) {
      options.pass_rows = rows;
      plan = {rows, options.checkpoint, forecast_peak(run, options)};
      if (plan.peak_bytes <= limit) return plan;
      if (rows == 1) break;
    }
    if (options.checkpoint) return plan;
  }
}

TimeForecast forecast_time(const Run& run, const train::LoopOptions& options, const train::Position& position) {
  const Workload work = workload_of(run, options, position);
  if (work.steps == 0) return {};
  const data::Batch pass = typical_pass(run, options, position);
  // Gradients are dropped after each pass: left among the places of activations, they would keep these apart.
  const auto pass_once = [&] {
    loss_of(run, pass, 1.0F, options.checkpoint);
    run.optimizer.drop_gradients();
  };
  pass_once();  // warms up memory and prepared products
  double passes = 0;
  const auto start = Clock::now();
  do {
    pass_once();
    ++passes;
  } while (seconds_since(start) < kProbeSeconds);
  const double pass_seconds = seconds_since(start) / passes;
  const Purpose purpose = run.adapter != nullptr ? Purpose::kLora : Purpose::kFull;
  const double rate = work_of(run.model, run.adapter, data::cost_of(pass), purpose).total() / pass_seconds;
  const double steps =
      work_of(run.model, run.adapter, work.cost, purpose).total() / rate + work.steps * optimizer_seconds(run);
  const double evaluation = work_of(run.model, run.adapter, run.evaluation, Purpose::kForward).total() / rate;
  return {steps + evaluation, static_cast<double>(work.cost.tokens) / steps};
}

}  // namespace instruct::bench
