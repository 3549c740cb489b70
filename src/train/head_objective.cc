#include "train/head_objective.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "data/sampler.h"
#include "ops/cross_entropy.h"
#include "ops/rows.h"

namespace instruct::train {
namespace {

using autograd::Variable;
using models::TextKind;
using tensor::Tensor;

// The parts of a batch that one head scores, and what is true of them.
struct Scored {
  std::vector<std::int32_t> parts;
  std::vector<std::int32_t> labels;  // one of several
  std::vector<float> truth;          // else: [parts, columns]
};

void add_truth(const data::TextRow& row, TextKind kind, std::size_t part_of_row, Scored& scored) {
  INSTRUCT_CHECK(!row.truth.empty());
  if (kind == TextKind::kLabel) {
    scored.labels.push_back(static_cast<std::int32_t>(row.truth.front()));
  } else if (kind == TextKind::kLabels) {
    scored.truth.insert(scored.truth.end(), row.truth.begin(), row.truth.end());
  } else {
    scored.truth.push_back(row.truth[part_of_row]);
  }
}

std::map<std::size_t, Scored> by_task(const models::TextModel& model, std::span<const std::size_t> tasks,
                                      std::span<const data::TextRow* const> rows, const data::TextBatch& batch) {
  std::map<std::size_t, Scored> scored;
  std::size_t first = 0;
  for (std::size_t part = 0; part < batch.parts.size(); ++part) {
    if (part > 0 && batch.part_rows[part] != batch.part_rows[part - 1]) first = part;
    const data::TextRow& row = *rows[batch.part_rows[part]];
    const std::size_t task = tasks[row.verb];
    scored[task].parts.push_back(static_cast<std::int32_t>(part));
    add_truth(row, model.tasks()[task].kind, part - first, scored[task]);
  }
  return scored;
}

// Summed -log P of what is true.
double loss_of(const ops::Context& context, const Variable& scores, const Scored& scored, float weight) {
  const std::vector<float> weights(scored.parts.size(), weight);
  std::vector<float> log_probabilities;
  if (!scored.labels.empty()) {
    log_probabilities = ops::softmax_cross_entropy(context, scores, scored.labels, weights);
  } else {
    const Tensor truth = Tensor::from_floats(scored.truth, scores.value().shape(), context.allocator());
    log_probabilities = ops::sigmoid_cross_entropy(context, scores, truth, weights);
  }
  double sum = 0;
  for (const float value : log_probabilities) sum -= static_cast<double>(value);
  return sum;
}

}  // namespace

data::BatchCost cost_of(const data::TextBatch& batch) {
  data::BatchCost cost{.tokens = static_cast<std::int64_t>(batch.tokens.size()),
                       .segments = static_cast<std::int64_t>(batch.segments.size()),
                       .predictions = static_cast<std::int64_t>(batch.parts.size())};
  for (const tensor::Segment& segment : batch.segments) {
    const std::int64_t length = segment.end - segment.begin;
    cost.attended += length * length;
  }
  return cost;
}

double head_loss(ops::Engine& engine, models::TextModel& model, std::span<const std::size_t> tasks,
                 std::span<const data::TextRow* const> rows, float weight, const nn::Dropout& dropout, bool checkpoint,
                 data::BatchCost* cost) {
  const data::TextBatch batch = data::make_text_batch(rows, model.encoder().config().first_position);
  if (cost != nullptr) *cost += cost_of(batch);
  const std::map<std::size_t, Scored> scored = by_task(model, tasks, rows, batch);
  autograd::Tape tape;
  const ops::Context context = engine.context(weight > 0 ? &tape : nullptr);
  const std::vector<std::int32_t> single = data::single_tokens(batch);
  const models::EncoderPass pass{.tokens = batch.tokens,
                                 .positions = batch.positions,
                                 .types = batch.types,
                                 .plan = &batch.plan,
                                 .rows = single,
                                 .dropout = dropout,
                                 .checkpoint = checkpoint};
  const Variable pooled = model.encoder().pooled(context, pass, batch.parts);
  double sum = 0;
  for (const auto& [task, parts] : scored) {
    const Variable own = scored.size() == 1 ? pooled : ops::select_rows(context, pooled, parts.parts);
    sum += loss_of(context, model.scores(context, task, own, dropout), parts, weight);
  }
  tape.backward();
  return sum;
}

HeadObjective::HeadObjective(Parts parts, const LoopOptions& options)
    : parts_(std::move(parts)),
      options_(options),
      row_count_(static_cast<std::int64_t>(parts_.rows(0).size())),
      rows_(parts_.rows(0)) {}

std::vector<std::int64_t> HeadObjective::order(std::int64_t epoch) {
  rows_ = parts_.rows(epoch);
  return data::epoch_order(static_cast<std::int64_t>(rows_.size()), options_.shuffle, options_.seed, epoch);
}

std::int64_t HeadObjective::units(std::span<const std::int64_t> rows) const {
  std::int64_t sum = 0;
  for (const std::int64_t row : rows) sum += data::units_of(rows_[static_cast<std::size_t>(row)]);
  return sum;
}

PassTotals HeadObjective::add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) {
  constexpr std::uint64_t kPasses = 1 << 12;  // of a step
  const auto size = static_cast<std::size_t>(options_.micro_batch_rows);
  PassTotals totals;
  for (std::size_t begin = 0; begin < rows.size(); begin += size) {
    std::vector<const data::TextRow*> chosen;
    for (std::size_t i = begin; i < std::min(rows.size(), begin + size); ++i)
      chosen.push_back(&rows_[static_cast<std::size_t>(rows[i])]);
    const std::size_t pass = begin / size;
    if (parts_.before_pass) parts_.before_pass(step, static_cast<std::int64_t>(pass));
    const nn::Dropout dropout{
        .rate = parts_.dropout, .seed = options_.seed, .pass = static_cast<std::uint64_t>(step) * kPasses + pass};
    totals.loss += head_loss(parts_.engine, parts_.model, parts_.tasks, chosen, weight, dropout, options_.checkpoint,
                             &totals.cost);
  }
  return totals;
}

}  // namespace instruct::train
