#include "data/grouping.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "data/sampler.h"

namespace instruct::data {
namespace {

// `documents` documents of `length` tokens, `questions` rows each, all behind the same system prompt.
std::vector<EncodedRow> rows_about(int documents, int questions, int length, int system) {
  std::vector<EncodedRow> rows;
  for (int q = 0; q < questions; ++q) {
    for (int d = 0; d < documents; ++d) {
      EncodedRow row{.tokens = std::vector<std::int32_t>(static_cast<std::size_t>(system), 1)};
      row.tokens.insert(row.tokens.end(), static_cast<std::size_t>(length), 100 + d);
      for (int i = 0; i < 20; ++i) row.tokens.push_back(1000 + q * 20 + i);
      row.trained.assign(row.tokens.size(), 0);
      row.trained.back() = 1;
      row.example = static_cast<std::int64_t>(rows.size());
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<const EncodedRow*> pointers(const std::vector<EncodedRow>& rows) {
  std::vector<const EncodedRow*> result;
  for (const EncodedRow& row : rows) result.push_back(&row);
  return result;
}

TEST(Grouping, RowsAboutADocumentFormAGroup) {
  const std::vector<EncodedRow> rows = rows_about(5, 4, 300, 50);
  const std::vector<std::int64_t> groups = share_groups(rows, {.max_rows = 8});
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(groups[i], static_cast<std::int64_t>(i % 5));
}

TEST(Grouping, WhatAllRowsShareMakesNoGroup) {
  const std::vector<std::int64_t> groups = share_groups(rows_about(20, 1, 10, 500), {.max_rows = 8});
  EXPECT_EQ(std::set<std::int64_t>(groups.begin(), groups.end()).size(), 20U);
  // More equal rows than a step takes: nothing to gain by sorting them.
  const std::vector<EncodedRow> same(30, rows_about(1, 1, 300, 0)[0]);
  const std::vector<std::int64_t> single = share_groups(same, {.max_rows = 8});
  EXPECT_EQ(std::set<std::int64_t>(single.begin(), single.end()).size(), 30U);
  EXPECT_TRUE(share_groups({}, {}).empty());
}

TEST(Grouping, MicroBatchesOfATreeShareAndKeepTheirLimits) {
  const std::vector<EncodedRow> rows = rows_about(4, 4, 300, 0);
  const auto tree = micro_batches(pointers(rows), Layout::kTree, {.max_rows = 4});
  ASSERT_EQ(tree.size(), 4U);
  std::set<std::size_t> seen;
  for (const auto& batch : tree) {
    std::vector<const EncodedRow*> chosen;
    for (const std::size_t row : batch) {
      chosen.push_back(&rows[row]);
      EXPECT_TRUE(seen.insert(row).second);
    }
    EXPECT_EQ(batch_tokens(chosen, Layout::kTree), 300 + 4 * 19) << "the last of each is predicted, not computed";
  }
  EXPECT_EQ(seen.size(), rows.size());
  const auto limited = micro_batches(pointers(rows), Layout::kTree, {.max_rows = 100, .max_tokens = 760});
  EXPECT_EQ(limited.size(), 2U) << "two documents with their questions are 760 tokens";
  const auto plain = micro_batches(pointers(rows), Layout::kRows, {.max_rows = 3});
  EXPECT_EQ(plain.size(), 6U);
  EXPECT_EQ(plain[1], (std::vector<std::size_t>{3, 4, 5}));
  EXPECT_EQ(micro_batches(pointers(rows), Layout::kRows, {.max_rows = 3, .max_tokens = 10}).size(), 16U);
}

TEST(Grouping, CostCountsWhatIsComputed) {
  const std::vector<EncodedRow> rows = rows_about(1, 4, 400, 0);
  const BatchCost separate = cost_of(make_batch(pointers(rows), Layout::kRows));
  const BatchCost tree = cost_of(make_batch(pointers(rows), Layout::kTree));
  EXPECT_EQ(separate.tokens, 4 * 419) << "the last token of a row is predicted, not computed";
  EXPECT_EQ(tree.tokens, 400 + 4 * 19);
  EXPECT_EQ(separate.attended, 4 * 419 * 420 / 2);
  EXPECT_EQ(tree.attended, 400 * 401 / 2 + 4 * (19 * 400 + 19 * 20 / 2));
  EXPECT_EQ(separate.predictions, tree.predictions);
}

TEST(Sampler, OrdersDifferByEpochAndRepeatBySeed) {
  EXPECT_EQ(epoch_order(50, true, 1, 3), epoch_order(50, true, 1, 3));
  EXPECT_NE(epoch_order(50, true, 1, 3), epoch_order(50, true, 1, 4));
  EXPECT_NE(epoch_order(50, true, 1, 3), epoch_order(50, true, 2, 3));
  EXPECT_EQ(epoch_order(3, false, 1, 9), (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_TRUE(epoch_order(0, true, 1, 0).empty());
}

TEST(Sampler, EveryPlaceIsEquallyLikely) {
  // 4 rows, 24 orders, 4,800 epochs: 200 expected of each, standard deviation about 14; 6 of them.
  std::map<std::vector<std::int64_t>, int> counts;
  for (std::int64_t epoch = 0; epoch < 4800; ++epoch) ++counts[epoch_order(4, true, 7, epoch)];
  ASSERT_EQ(counts.size(), 24U);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 200, 6 * 14);
}

TEST(Sampler, GroupsStayTogether) {
  const std::vector<std::int64_t> groups{0, 1, 0, 2, 1, 0};
  const std::vector<std::int64_t> order = epoch_order(groups, true, 3, 1);
  std::vector<std::int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(sorted, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
  std::vector<std::int64_t> seen;
  for (const std::int64_t row : order) {
    if (seen.empty() || seen.back() != groups[static_cast<std::size_t>(row)])
      seen.push_back(groups[static_cast<std::size_t>(row)]);
  }
  EXPECT_EQ(seen.size(), 3U);
  EXPECT_EQ(epoch_order(groups, false, 3, 1), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
  std::vector<std::int64_t> alone(50);
  std::iota(alone.begin(), alone.end(), std::int64_t{0});
  EXPECT_EQ(epoch_order(alone, true, 1, 3), epoch_order(50, true, 1, 3))
      << "without company the order is the plain one";
}

TEST(Sampler, HeldOutRowsAreNotTrainedOn) {
  const auto [rest, held] = hold_out(10, 0.25, 7);
  EXPECT_EQ(held.size(), 3U);
  EXPECT_EQ(rest.size(), 7U);
  std::set<std::int64_t> all(rest.begin(), rest.end());
  all.insert(held.begin(), held.end());
  EXPECT_EQ(all.size(), 10U);
  EXPECT_EQ(hold_out(10, 4, 7).second.size(), 4U);
  EXPECT_TRUE(hold_out(10, 0, 7).second.empty());
  for (const double bad : {10.0, -0.5, -1.0, std::nan("")}) EXPECT_THROW(hold_out(10, bad, 7), Error);
}

}  // namespace
}  // namespace instruct::data
