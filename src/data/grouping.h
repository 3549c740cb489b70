// Which rows belong into one step, so that what they share is computed once.
//
// Sharing happens within a batch only, and a shuffled epoch scatters the rows of a document. So rows that share a long
// prefix with a few others form a group, and the epoch shuffles groups. What more rows share than fit into a step (a
// system prompt, few-shot examples) makes no group: it is shared in any order, and grouping by it would sort the epoch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/layout.h"

namespace instruct::data {

struct GroupOptions {
  std::int64_t max_rows = 8;            // rows of an optimizer step
  std::int64_t min_shared_tokens = 64;  // beyond what larger sets of rows share
};

// Group number of each row, counted from 0 in order of first appearance. Rows without company have a group of their
// own.
std::vector<std::int64_t> share_groups(std::span<const EncodedRow> rows, const GroupOptions& options);

struct MicroBatchLimits {
  std::int64_t max_rows = 8;
  std::int64_t max_tokens = 0;  // computed tokens of a batch, 0: no limit; a row longer than it is a batch of its own
};

// Cuts the rows of a step into batches, as indices into `rows`. Layout kRows keeps their order; kTree brings rows that
// share prefixes together. Deterministic.
std::vector<std::vector<std::size_t>> micro_batches(std::span<const EncodedRow* const> rows, Layout layout,
                                                    const MicroBatchLimits& limits);

}  // namespace instruct::data
