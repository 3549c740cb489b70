#include "train/token_objective.h"

#include <algorithm>
#include <utility>

#include "data/grouping.h"
#include "data/sampler.h"

namespace instruct::train {
namespace {

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
  const std::vector<std::int64_t> groups = data::share_groups(rows, {.max_rows = options.step_rows()});
  return data::epoch_order(groups, options.shuffle, options.seed, epoch);
}

// Rows by their places in an epoch.
std::vector<const data::EncodedRow*> rows_at(std::span<const data::EncodedRow> rows,
                                             std::span<const std::int64_t> places) {
  std::vector<const data::EncodedRow*> chosen;
  for (const std::int64_t place : places) chosen.push_back(&rows[static_cast<std::size_t>(place)]);
  return chosen;
}

// The step at `begin` in an epoch's order.
std::span<const std::int64_t> step_at(std::span<const std::int64_t> order, std::size_t begin,
                                      const LoopOptions& options) {
  return order.subspan(begin, std::min(order.size() - begin, static_cast<std::size_t>(options.step_rows())));
}

}  // namespace

data::CostModel cost_model_of(const models::ModelSizes& sizes) {
  // Attention's products reach about half the rate of the layers'.
  constexpr double kAttention = 2;
  const auto heads = static_cast<double>(sizes.heads * sizes.head_width);
  const auto keys = static_cast<double>(sizes.key_value_heads * sizes.head_width);
  const auto width = static_cast<double>(sizes.width);
  const double feed_forward = (sizes.gated ? 3 : 2) * static_cast<double>(sizes.active_width());
  const double layer = width * (2 * heads + 2 * keys + feed_forward);
  return {.pair = kAttention * 2 * heads / layer,
          .prediction = width * static_cast<double>(sizes.vocabulary) / (layer * static_cast<double>(sizes.layers))};
}

PackingChoice choose_packing(std::span<const data::EncodedRow> rows, const LoopOptions& options,
                             const data::CostModel& model) {
  constexpr std::size_t kSteps = 64;  // enough to tell: rows of an epoch are alike
  const auto window = static_cast<std::size_t>(options.step_rows());
  PackingChoice choice;
  for (auto [packing, cost] : {std::pair{Packing::kTree, &choice.tree}, std::pair{Packing::kPacked, &choice.packed},
                               std::pair{Packing::kRows, &choice.rows}}) {
    LoopOptions way = options;
    way.packing = packing;
    const std::vector<std::int64_t> order = order_of(rows, way, 0);
    for (std::size_t begin = 0; begin < std::min(order.size(), kSteps * window); begin += window) {
      const std::vector<const data::EncodedRow*> step = rows_at(rows, step_at(order, begin, way));
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
  const std::int64_t total = options.total_steps(count);
  for (; position.step < total; ++position.epoch, position.row = 0) {
    const std::vector<std::int64_t> order = order_of(rows, options, position.epoch);
    while (position.row < count && position.step < total) {
      const std::vector<const data::EncodedRow*> chosen =
          rows_at(rows, step_at(order, static_cast<std::size_t>(position.row), options));
      if (!body(batches_of(chosen, options))) return;
      position.row += static_cast<std::int64_t>(chosen.size());
      ++position.step;
    }
  }
}

double batch_loss(ops::Engine& engine, models::LanguageModel& model, const data::Batch& batch, float weight,
                  std::int64_t vocabulary, bool checkpoint) {
  const data::Outputs outputs = data::outputs_of(batch);
  if (outputs.tokens.empty()) return 0;
  const std::vector<float> weights(outputs.targets.size(), weight);
  autograd::Tape tape;
  // A pass that learns weighs the balance of its experts by its share of the step's trained tokens.
  const double balance_weight = weight > 0 ? model.sizes().balance_weight * static_cast<double>(weights.size()) : 0;
  ops::Balance balance(static_cast<float>(balance_weight) * weight);
  const models::Pass pass{.tokens = batch.tokens,
                          .positions = batch.positions,
                          .plan = &batch.plan,
                          .rows = outputs.tokens,
                          .balance = balance_weight > 0 ? &balance : nullptr,
                          .checkpoint = checkpoint};
  const std::vector<float> log_probabilities =
      model.log_probabilities(engine.context(weight > 0 ? &tape : nullptr), pass,
                              {.targets = outputs.targets, .weights = weights, .rows = outputs.places}, vocabulary);
  tape.backward();
  double sum = 0;
  for (const float value : log_probabilities) sum -= static_cast<double>(value);
  return balance_weight > 0 ? sum + balance_weight * balance.loss() : sum;
}

TokenObjective::TokenObjective(Parts parts, const LoopOptions& options)
    : parts_(std::move(parts)), options_(options), row_count_(static_cast<std::int64_t>(parts_.rows(0).size())) {}

std::vector<std::int64_t> TokenObjective::order(std::int64_t epoch) {
  rows_ = parts_.rows(epoch);
  return order_of(rows_, options_, epoch);
}

std::int64_t TokenObjective::units(std::span<const std::int64_t> rows) const {
  std::int64_t tokens = 0;
  for (const data::EncodedRow* row : rows_at(rows_, rows)) tokens += row->trained_tokens();
  return tokens;
}

PassTotals TokenObjective::add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) {
  PassTotals totals;
  std::int64_t pass = 0;
  for (const data::Batch& batch : batches_of(rows_at(rows_, rows), options_)) {
    if (parts_.before_pass) parts_.before_pass(step, pass++);
    totals.loss += batch_loss(parts_.engine, parts_.model, batch, weight, parts_.vocabulary, options_.checkpoint);
    totals.cost += data::cost_of(batch);
  }
  return totals;
}

}  // namespace instruct::train
