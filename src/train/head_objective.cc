#include "train/head_objective.h"

#include <algorithm>
#include <cmath>
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
  std::vector<std::int32_t> labels;       // one of several, or the word, by part
  std::vector<float> truth;               // else: [parts, columns]
  std::vector<tensor::KeyRange> windows;  // of spans: ranges of `parts`; `labels` are their first and last parts
  data::ClozeScores gaps;                 // of clozes: `labels` are by gap
};

// A row whose parts are those from `scored.parts` [first, ...) on.
void add_truth(const data::TextRow& row, TextKind kind, std::size_t first, Scored& scored) {
  INSTRUCT_CHECK(!row.truth.empty());
  const auto begin = static_cast<std::int64_t>(first);
  switch (kind) {
    case TextKind::kLabel:
    case TextKind::kTags:
      scored.labels.insert(scored.labels.end(), row.truth.begin(), row.truth.end());
      break;
    case TextKind::kMasked:
      if (row.verbalisers != nullptr) scored.gaps.add(*row.verbalisers, first);
      scored.labels.insert(scored.labels.end(), row.truth.begin(), row.truth.end());
      break;
    case TextKind::kSpan:
      scored.windows.push_back({begin, begin + static_cast<std::int64_t>(row.parts.size())});
      for (const float end : row.truth)
        scored.labels.push_back(static_cast<std::int32_t>(begin + static_cast<std::int64_t>(end)));
      break;
    case TextKind::kLabels:
    case TextKind::kSentences:
      scored.truth.insert(scored.truth.end(), row.truth.begin(), row.truth.end());
  }
}

std::map<std::size_t, Scored> by_task(const models::TextModel& model, std::span<const std::size_t> tasks,
                                      std::span<const data::TextRow* const> rows) {
  std::map<std::size_t, Scored> scored;
  std::int32_t part = 0;
  for (const data::TextRow* row : rows) {
    const std::size_t task = tasks[row->verb];
    Scored& own = scored[task];
    add_truth(*row, model.tasks()[task].kind, own.parts.size(), own);
    for (std::size_t i = 0; i < row->parts.size(); ++i) own.parts.push_back(part++);
  }
  return scored;
}

double negative_sum(const std::vector<float>& log_probabilities) {
  double sum = 0;
  for (const float value : log_probabilities) sum -= static_cast<double>(value);
  return sum;
}

// Of gaps: -log of the softmax over the labels' scores, which are means of log P of words. What is asked of those is
// linear in them, with factors that have to be known first: so they are computed once without a gradient.
double cloze_loss(const ops::Context& context, const models::EncoderHead& head, const Variable& states,
                  const Scored& scored, float weight) {
  ops::Context plain = context;
  plain.tape = nullptr;
  const std::vector<float> none(scored.gaps.targets().size(), 0.0F);
  std::vector<std::vector<double>> scores = scored.gaps.of(head.word_log_probabilities(
      plain, states, {.targets = scored.gaps.targets(), .weights = none, .rows = scored.gaps.rows()}));
  double sum = 0;
  for (std::size_t gap = 0; gap < scores.size(); ++gap) {
    const std::vector<double> log_probabilities = data::log_softmax(scores[gap]);
    const auto truth = static_cast<std::size_t>(scored.labels[gap]);
    sum -= log_probabilities[truth];
    for (std::size_t label = 0; label < scores[gap].size(); ++label)
      scores[gap][label] =
          static_cast<double>(weight) * ((label == truth ? 1 : 0) - std::exp(log_probabilities[label]));
  }
  if (context.tape == nullptr) return sum;
  const std::vector<float> weights = scored.gaps.weights(scores);
  head.word_log_probabilities(context, states,
                              {.targets = scored.gaps.targets(), .weights = weights, .rows = scored.gaps.rows()});
  return sum;
}

// Summed -log P of what is true of pooled parts.
double loss_of(const ops::Context& context, const models::TextModel& model, std::size_t task, const Variable& pooled,
               const Scored& scored, float weight, const nn::Dropout& dropout) {
  const std::vector<float> weights(scored.parts.size(), weight);
  const models::EncoderHead& head = model.head(task);
  const Variable states = head.before_out(context, pooled, dropout);
  switch (model.tasks()[task].kind) {
    case TextKind::kLabel:
    case TextKind::kTags:
      return negative_sum(ops::softmax_cross_entropy(context, head.out(context, states), scored.labels, weights));
    case TextKind::kSpan:
      return negative_sum(
          ops::column_cross_entropy(context, head.out(context, states), scored.windows, scored.labels, weight));
    case TextKind::kMasked:
      if (!scored.gaps.targets().empty()) return cloze_loss(context, head, states, scored, weight);
      return negative_sum(head.word_log_probabilities(context, states, {.targets = scored.labels, .weights = weights}));
    default:
      break;
  }
  const Variable scores = head.out(context, states);
  const Tensor truth = Tensor::from_floats(scored.truth, scores.value().shape(), context.allocator());
  return negative_sum(ops::sigmoid_cross_entropy(context, scores, truth, weights));
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
  const std::map<std::size_t, Scored> scored = by_task(model, tasks, rows);
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
    sum += loss_of(context, model, task, own, parts, weight, dropout);
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
