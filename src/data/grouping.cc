#include "data/grouping.h"

#include <algorithm>
#include <numeric>

namespace instruct::data {
namespace {

using Tokens = std::vector<std::int32_t>;

// Rows [begin, end) of the sorted order; `base` tokens are shared by the larger run they were taken from.
struct Run {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int64_t base = 0;
};

class Grouper {
 public:
  Grouper(std::span<const EncodedRow> rows, const GroupOptions& options)
      : options_(options), order_(rows.size()), leader_(rows.size()) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::iota(leader_.begin(), leader_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return rows[a].tokens < rows[b].tokens; });
    for (std::size_t i = 0; i + 1 < order_.size(); ++i) {
      shared_.push_back(common_prefix(rows[order_[i]].tokens, rows[order_[i + 1]].tokens));
    }
  }

  std::vector<std::int64_t> groups() {
    std::vector<Run> todo{{0, order_.size(), 0}};
    while (!todo.empty()) {
      const Run run = todo.back();
      todo.pop_back();
      if (run.end - run.begin > 1) visit(run, todo);
    }
    return numbered();
  }

 private:
  // Makes the run a group, or cuts it where its rows share least.
  void visit(const Run& run, std::vector<Run>& todo) {
    const auto shared = [&](std::size_t i) { return shared_.begin() + static_cast<std::ptrdiff_t>(i); };
    const std::int64_t least = *std::min_element(shared(run.begin), shared(run.end - 1));
    const auto rows = static_cast<std::int64_t>(run.end - run.begin);
    if (rows <= options_.max_rows && least - run.base >= options_.min_shared_tokens) {
      for (std::size_t i = run.begin; i < run.end; ++i) leader_[order_[i]] = order_[run.begin];
      return;
    }
    // A run that fits a step shares too little: what its parts share counts from the same base.
    const std::int64_t base = rows <= options_.max_rows ? run.base : least;
    std::size_t begin = run.begin;
    for (std::size_t i = run.begin; i + 1 < run.end; ++i) {
      if (shared_[i] != least) continue;
      todo.push_back({begin, i + 1, base});
      begin = i + 1;
    }
    todo.push_back({begin, run.end, base});
  }

  std::vector<std::int64_t> numbered() const {
    std::vector<std::int64_t> number(leader_.size(), -1);
    std::vector<std::int64_t> groups;
    std::int64_t next = 0;
    for (const std::size_t leader : leader_) {
      if (number[leader] < 0) number[leader] = next++;
      groups.push_back(number[leader]);
    }
    return groups;
  }

  const GroupOptions& options_;
  std::vector<std::size_t> order_;
  std::vector<std::size_t> leader_;   // of each row: some row of its group
  std::vector<std::int64_t> shared_;  // tokens that neighbours of the order share
};

}  // namespace

std::vector<std::int64_t> share_groups(std::span<const EncodedRow> rows, const GroupOptions& options) {
  return Grouper(rows, options).groups();
}

std::vector<std::vector<std::size_t>> micro_batches(std::span<const EncodedRow* const> rows, Layout layout,
                                                    const MicroBatchLimits& limits) {
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (layout == Layout::kTree) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return rows[a]->tokens < rows[b]->tokens; });
  }
  std::vector<std::vector<std::size_t>> batches;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Tokens& row = rows[order[i]]->tokens;
    std::int64_t added = computed_tokens(*rows[order[i]]);
    if (layout == Layout::kTree && i > 0) {
      const std::int64_t shared = common_prefix(rows[order[i - 1]]->tokens, row);
      if (shared >= kMinSavedTokens) added -= shared;
    }
    const bool full = !batches.empty() && (static_cast<std::int64_t>(batches.back().size()) >= limits.max_rows ||
                                           (limits.max_tokens > 0 && tokens + added > limits.max_tokens));
    if (batches.empty() || full) {
      batches.emplace_back();
      tokens = 0;
      added = computed_tokens(*rows[order[i]]);
    }
    batches.back().push_back(order[i]);
    tokens += added;
  }
  return batches;
}

}  // namespace instruct::data
