#include "data/layout.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace instruct::data {
namespace {

using Rows = std::span<const EncodedRow* const>;

// Builds the forest over rows sorted by their tokens: rows with a common prefix are neighbours.
class Builder {
 public:
  Builder(Rows rows, std::int64_t min_saved) : rows_(rows), min_saved_(min_saved) {
    batch_.rows = static_cast<std::int64_t>(rows.size());
    order_.resize(rows.size());
    batch_.row_ends.assign(rows.size(), -1);
    for (const EncodedRow* row : rows) lengths_.push_back(computed_tokens(*row));
    std::iota(order_.begin(), order_.end(), std::size_t{0});
  }

  Batch plain() {
    for (const std::size_t row : order_) leaf(row, source(row), append_source(row), -1);
    return finish();
  }

  Batch tree() {
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      const auto of_a = source_tokens(a);
      const auto of_b = source_tokens(b);
      if (!std::equal(of_a.begin(), of_a.end(), of_b.begin(), of_b.end()))
        return std::lexicographical_compare(of_a.begin(), of_a.end(), of_b.begin(), of_b.end());
      return tokens(a) < tokens(b);
    });
    for (std::size_t i = 0; i + 1 < order_.size(); ++i) shared_.push_back(common(order_[i], order_[i + 1]));
    for (std::size_t begin = 0; begin < order_.size();) {
      const std::size_t row = order_[begin];
      std::size_t end = begin + 1;
      while (end < order_.size() && has_source_of(row, order_[end])) ++end;
      split(run_of(begin, end), source(row), append_source(row), -1);
      begin = end;
    }
    return finish();
  }

 private:
  const std::vector<std::int32_t>& tokens(std::size_t row) const { return rows_[row]->tokens; }
  std::int64_t length(std::size_t row) const { return lengths_[row]; }

  std::int64_t source(std::size_t row) const { return rows_[row]->source; }
  std::span<const std::int32_t> source_tokens(std::size_t row) const {
    return std::span(tokens(row)).first(static_cast<std::size_t>(source(row)));
  }
  bool has_source_of(std::size_t a, std::size_t b) const {
    return source(a) == source(b) && std::equal(source_tokens(a).begin(), source_tokens(a).end(), tokens(b).begin());
  }

  // Length of what rows `a` and `b` share, from the start.
  std::int64_t common(std::size_t a, std::size_t b) const {
    return std::min({common_prefix(tokens(a), tokens(b)), length(a), length(b)});
  }

  // Neighbours order_[begin, end) that share `length` tokens.
  struct Run {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::int64_t length = 0;
  };

  Run run_of(std::size_t begin, std::size_t end) const {
    const auto shared = [&](std::size_t i) { return shared_.begin() + static_cast<std::ptrdiff_t>(i); };
    return {begin, end, end - begin < 2 ? length(order_[begin]) : *std::min_element(shared(begin), shared(end - 1))};
  }

  // Cuts rows that share `depth` tokens, which are a segment, into runs that become its children: rows alone, and runs
  // whose common tokens save enough. A run that saves too little is cut where its rows share least.
  void children(const Run& rows, std::int64_t depth, std::vector<Run>& found) const {
    const auto count = static_cast<std::int64_t>(rows.end - rows.begin);
    if (count == 1 || (rows.length - depth) * (count - 1) >= min_saved_) {
      found.push_back(rows);
      return;
    }
    std::size_t begin = rows.begin;
    for (std::size_t i = rows.begin; i < rows.end; ++i) {
      if (i + 1 < rows.end && shared_[i] != rows.length) continue;
      children(run_of(begin, i + 1), depth, found);
      begin = i + 1;
    }
  }

  // The children of segment `parent`, which holds what `rows` share up to `depth` and ends in batch token `last`. All
  // of them are appended before their own children: attention gathers what neighbours see once.
  void split(const Run& rows, std::int64_t depth, std::int32_t parent, std::int32_t last) {
    struct Inner {
      Run rows;
      std::int32_t segment = 0;
      std::int32_t last = 0;
    };
    std::vector<Run> found;
    children(rows, depth, found);
    std::vector<Inner> inner;
    for (const Run& run : found) {
      if (run.end - run.begin == 1) {
        leaf(order_[run.begin], depth, parent, last);
        continue;
      }
      const std::int32_t segment = append(tokens(order_[run.begin]), depth, run.length, parent);
      for (std::size_t i = run.begin; i < run.end; ++i) predict(order_[i], depth, run.length, segment, last);
      inner.push_back({run, segment, static_cast<std::int32_t>(batch_.tokens.size()) - 1});
    }
    for (const Inner& one : inner) split(one.rows, one.rows.length, one.segment, one.last);
  }

  // What a row still has beyond `depth`, as a segment of its own.
  void leaf(std::size_t row, std::int64_t depth, std::int32_t parent, std::int32_t last) {
    if (length(row) <= depth) return;
    const std::int32_t segment = append(tokens(row), depth, length(row), parent);
    predict(row, depth, length(row), segment, last);
  }

  // What an encoder reads of a row; -1 where it reads nothing.
  std::int32_t append_source(std::size_t row) {
    if (source(row) == 0) return -1;
    const std::int32_t segment = append(tokens(row), 0, source(row), -1);
    batch_.segments.back().source = true;
    return segment;
  }

  std::int32_t append(const std::vector<std::int32_t>& row, std::int64_t from, std::int64_t to, std::int32_t parent) {
    const auto begin = static_cast<std::int64_t>(batch_.tokens.size());
    batch_.tokens.insert(batch_.tokens.end(), row.begin() + from, row.begin() + to);
    batch_.segments.push_back({begin, begin + (to - from), parent});
    return static_cast<std::int32_t>(batch_.segments.size()) - 1;
  }

  // Predictions of the row's trained tokens [from, to), which lie in `segment`, and of the one behind them where the
  // row ends; the first one is made by the batch token `last` before it.
  void predict(std::size_t row, std::int64_t from, std::int64_t to, std::int32_t segment, std::int32_t last) {
    const auto begin = static_cast<std::int32_t>(batch_.segments[static_cast<std::size_t>(segment)].begin);
    std::int64_t end = to;
    if (to == length(row)) {
      batch_.row_ends[row] = begin + static_cast<std::int32_t>(to - from) - 1;
      end = std::min(to + 1, static_cast<std::int64_t>(tokens(row).size()));
    }
    for (std::int64_t t = std::max<std::int64_t>(from, 1); t < end; ++t) {
      if (rows_[row]->trained[static_cast<std::size_t>(t)] == 0) continue;
      const std::int32_t before = t == from ? last : begin + static_cast<std::int32_t>(t - from) - 1;
      batch_.losses.push_back({before, tokens(row)[static_cast<std::size_t>(t)], static_cast<std::int32_t>(row)});
    }
  }

  Batch finish() {
    std::stable_sort(batch_.losses.begin(), batch_.losses.end(),
                     [](const LossEntry& a, const LossEntry& b) { return a.row < b.row; });
    batch_.positions = tensor::positions_of(batch_.segments);
    batch_.plan = tensor::plan_of(batch_.segments);
    return std::move(batch_);
  }

  Rows rows_;
  std::vector<std::int64_t> lengths_;  // computed tokens of each row
  std::int64_t min_saved_;
  std::vector<std::size_t> order_;
  std::vector<std::int64_t> shared_;  // tokens that neighbours of the order share
  Batch batch_;
};

}  // namespace

std::int64_t computed_tokens(const EncodedRow& row) {
  for (std::size_t t = row.trained.size(); t > 1; --t) {
    if (row.trained[t - 1] != 0) return static_cast<std::int64_t>(t) - 1;
  }
  return static_cast<std::int64_t>(row.tokens.size());
}

std::int64_t common_prefix(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

std::int64_t EncodedRow::trained_tokens() const {
  std::int64_t count = 0;
  for (std::size_t t = 1; t < trained.size(); ++t) count += trained[t];
  return count;
}

Batch make_batch(Rows rows, Layout layout, std::int64_t min_saved_tokens) {
  for (const EncodedRow* row : rows) INSTRUCT_CHECK(row->tokens.size() == row->trained.size());
  Builder builder(rows, std::max<std::int64_t>(1, min_saved_tokens));
  return layout == Layout::kTree ? builder.tree() : builder.plain();
}

std::int64_t batch_tokens(Rows rows, Layout layout, std::int64_t min_saved_tokens) {
  return static_cast<std::int64_t>(make_batch(rows, layout, min_saved_tokens).tokens.size());
}

std::vector<tensor::KeyRange> path_of(const Batch& batch, std::size_t row, std::int64_t count) {
  const std::int64_t end = batch.row_ends[row];
  const auto last = std::find_if(batch.segments.begin(), batch.segments.end(), [&](const tensor::Segment& segment) {
    return end >= segment.begin && end < segment.end;
  });
  INSTRUCT_CHECK(last != batch.segments.end());
  std::vector<tensor::KeyRange> path{{last->begin, end + 1}};
  for (std::int32_t parent = last->parent; parent >= 0;) {
    const tensor::Segment& segment = batch.segments[static_cast<std::size_t>(parent)];
    path.insert(path.begin(), {segment.begin, segment.end});
    parent = segment.parent;
  }
  for (std::size_t i = 0; i < path.size(); ++i) {
    path[i].end = std::min(path[i].end, path[i].begin + count);
    count -= path[i].end - path[i].begin;
    if (count == 0) path.resize(i + 1);
  }
  return path;
}

std::vector<std::int32_t> put_behind(Batch& batch, const std::vector<tensor::KeyRange>& prefix,
                                     std::int64_t first_slot) {
  std::int64_t depth = 0;
  for (const tensor::KeyRange& range : prefix) depth += range.end - range.begin;
  for (std::int32_t& position : batch.positions) position += static_cast<std::int32_t>(depth);
  for (tensor::QuerySegment& query : batch.plan.queries) {
    query.self_begin += first_slot;
    for (tensor::KeyRange& range : query.visible) range = {range.begin + first_slot, range.end + first_slot};
    if (depth > 0) query.visible.insert(query.visible.begin(), prefix.begin(), prefix.end());
  }
  std::vector<std::int32_t> slots(batch.tokens.size());
  std::iota(slots.begin(), slots.end(), static_cast<std::int32_t>(first_slot));
  return slots;
}

Outputs outputs_of(const Batch& batch) {
  Outputs outputs;
  for (const LossEntry& entry : batch.losses) {
    outputs.tokens.push_back(entry.token);
    outputs.targets.push_back(entry.target);
  }
  std::sort(outputs.tokens.begin(), outputs.tokens.end());
  outputs.tokens.erase(std::unique(outputs.tokens.begin(), outputs.tokens.end()), outputs.tokens.end());
  for (const LossEntry& entry : batch.losses) {
    const auto place = std::lower_bound(outputs.tokens.begin(), outputs.tokens.end(), entry.token);
    outputs.places.push_back(static_cast<std::int32_t>(place - outputs.tokens.begin()));
  }
  return outputs;
}

BatchCost cost_of(const Batch& batch) {
  BatchCost cost{.tokens = static_cast<std::int64_t>(batch.tokens.size()),
                 .segments = static_cast<std::int64_t>(batch.segments.size()),
                 .predictions = static_cast<std::int64_t>(outputs_of(batch).tokens.size())};
  for (const tensor::QuerySegment& query : batch.plan.queries) {
    const std::int64_t length = query.end - query.begin;
    std::int64_t visible = 0;
    for (const tensor::KeyRange& range : query.visible) visible += range.end - range.begin;
    for (const tensor::KeyRange& range : query.source) visible += range.end - range.begin;
    const bool whole = query.own == tensor::OwnKeys::kWhole;
    if (whole) cost.sources += length;
    cost.attended += length * visible + (whole ? length * length : length * (length + 1) / 2);
  }
  return cost;
}

double predicted_cost(const BatchCost& cost, const CostModel& model) {
  return model.pass + static_cast<double>(cost.tokens) + model.pair * static_cast<double>(cost.attended) +
         model.prediction * static_cast<double>(cost.predictions) + model.segment * static_cast<double>(cost.segments);
}

}  // namespace instruct::data
