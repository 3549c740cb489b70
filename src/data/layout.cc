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
  Builder(Rows rows, std::int64_t min_shared) : rows_(rows), min_shared_(min_shared) {
    batch_.rows = static_cast<std::int64_t>(rows.size());
    order_.resize(rows.size());
    batch_.row_ends.assign(rows.size(), -1);
    for (const EncodedRow* row : rows) lengths_.push_back(computed_tokens(*row));
    std::iota(order_.begin(), order_.end(), std::size_t{0});
  }

  Batch plain() {
    for (const std::size_t row : order_) leaf(row, 0, -1, -1);
    return finish();
  }

  Batch tree() {
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) { return tokens(a) < tokens(b); });
    split(0, order_.size(), 0, -1, -1);
    return finish();
  }

 private:
  const std::vector<std::int32_t>& tokens(std::size_t row) const { return rows_[row]->tokens; }
  std::int64_t length(std::size_t row) const { return lengths_[row]; }

  // Length of what rows `a` and `b` share, from the start.
  std::int64_t common(std::size_t a, std::size_t b) const {
    const auto& x = tokens(a);
    const auto& y = tokens(b);
    const auto n = static_cast<std::size_t>(std::min(length(a), length(b)));
    std::size_t i = 0;
    while (i < n && x[i] == y[i]) ++i;
    return static_cast<std::int64_t>(i);
  }

  // Rows order_[begin, end) share `depth` tokens, which end in segment `parent` at batch token `last`.
  void split(std::size_t begin, std::size_t end, std::int64_t depth, std::int32_t parent, std::int32_t last) {
    std::size_t first = begin;
    while (first < end) {
      // The longest run from `first` whose members share at least min_shared_ tokens beyond depth.
      std::size_t next = first + 1;
      std::int64_t shared = next < end ? common(order_[first], order_[next]) : 0;
      if (shared - depth < min_shared_) {
        leaf(order_[first], depth, parent, last);
        ++first;
        continue;
      }
      std::int64_t run = shared;
      for (++next; next < end; ++next) {
        const std::int64_t more = common(order_[next - 1], order_[next]);
        if (std::min(run, more) - depth < min_shared_) break;
        run = std::min(run, more);
      }
      // A row must keep a token of its own only if it has one: a row that ends with the prefix has an empty leaf.
      const auto segment = append(tokens(order_[first]), depth, run, parent);
      const auto segment_last = static_cast<std::int32_t>(batch_.tokens.size()) - 1;
      for (std::size_t i = first; i < next; ++i) predict(order_[i], depth, run, segment, last);
      split(first, next, run, segment, segment_last);
      first = next;
    }
  }

  // What a row still has beyond `depth`, as a segment of its own.
  void leaf(std::size_t row, std::int64_t depth, std::int32_t parent, std::int32_t last) {
    if (length(row) <= depth) return;
    const std::int32_t segment = append(tokens(row), depth, length(row), parent);
    predict(row, depth, length(row), segment, last);
  }

  std::int32_t append(const std::vector<std::int32_t>& source, std::int64_t from, std::int64_t to,
                      std::int32_t parent) {
    const auto begin = static_cast<std::int64_t>(batch_.tokens.size());
    batch_.tokens.insert(batch_.tokens.end(), source.begin() + from, source.begin() + to);
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
  std::int64_t min_shared_;
  std::vector<std::size_t> order_;
  Batch batch_;
};

}  // namespace

std::int64_t computed_tokens(const EncodedRow& row) {
  for (std::size_t t = row.trained.size(); t > 1; --t) {
    if (row.trained[t - 1] != 0) return static_cast<std::int64_t>(t) - 1;
  }
  return static_cast<std::int64_t>(row.tokens.size());
}

std::int64_t EncodedRow::trained_tokens() const {
  std::int64_t count = 0;
  for (std::size_t t = 1; t < trained.size(); ++t) count += trained[t];
  return count;
}

Batch make_batch(Rows rows, Layout layout, std::int64_t min_shared_tokens) {
  for (const EncodedRow* row : rows) INSTRUCT_CHECK(row->tokens.size() == row->trained.size());
  Builder builder(rows, std::max<std::int64_t>(1, min_shared_tokens));
  return layout == Layout::kTree ? builder.tree() : builder.plain();
}

std::int64_t batch_tokens(Rows rows, Layout layout, std::int64_t min_shared_tokens) {
  return static_cast<std::int64_t>(make_batch(rows, layout, min_shared_tokens).tokens.size());
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
                 .predictions = static_cast<std::int64_t>(outputs_of(batch).tokens.size())};
  for (const tensor::QuerySegment& query : batch.plan.queries) {
    const std::int64_t length = query.end - query.begin;
    std::int64_t visible = 0;
    for (const tensor::KeyRange& range : query.visible) visible += range.end - range.begin;
    cost.attended += length * visible + length * (length + 1) / 2;
  }
  return cost;
}

}  // namespace instruct::data
