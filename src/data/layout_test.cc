#include "data/layout.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "base/random.h"

namespace instruct::data {
namespace {

// Rows that share prefixes of random lengths, over a small alphabet.
std::vector<EncodedRow> random_rows(std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest);
  std::vector<EncodedRow> rows(1 + random.next_below(12));
  for (EncodedRow& row : rows) {
    if (&row != rows.data() && random.next_below(4) != 0) {
      const EncodedRow& other = rows[random.next_below(static_cast<std::uint64_t>(&row - rows.data()))];
      const auto keep = static_cast<std::ptrdiff_t>(random.next_below(other.tokens.size() + 1));
      row.tokens.assign(other.tokens.begin(), other.tokens.begin() + keep);
    }
    const std::uint64_t more = 1 + random.next_below(40);
    for (std::uint64_t i = 0; i < more; ++i) row.tokens.push_back(static_cast<std::int32_t>(random.next_below(3)));
    for (std::size_t i = 0; i < row.tokens.size(); ++i) row.trained.push_back(random.next_below(2) == 0 ? 1 : 0);
  }
  return rows;
}

std::vector<const EncodedRow*> pointers(const std::vector<EncodedRow>& rows) {
  std::vector<const EncodedRow*> result;
  for (const EncodedRow& row : rows) result.push_back(&row);
  return result;
}

// The tokens a prediction sees: those of its segment's ancestors, then its own segment's up to it.
std::vector<std::int32_t> history(const Batch& batch, std::int32_t token) {
  std::vector<std::int32_t> seen;
  for (std::size_t s = 0; s < batch.segments.size(); ++s) {
    if (token < batch.segments[s].begin || token >= batch.segments[s].end) continue;
    const tensor::QuerySegment& query = batch.plan.queries[s];
    for (const tensor::KeyRange& range : query.visible) {
      seen.insert(seen.end(), batch.tokens.begin() + range.begin, batch.tokens.begin() + range.end);
    }
    seen.insert(seen.end(), batch.tokens.begin() + query.self_begin, batch.tokens.begin() + token + 1);
    EXPECT_EQ(batch.positions[static_cast<std::size_t>(token)] + 1, static_cast<std::int32_t>(seen.size()));
  }
  return seen;
}

// What of a row goes through the model.
std::vector<std::int32_t> computed(const EncodedRow& row) {
  return {row.tokens.begin(), row.tokens.begin() + static_cast<std::ptrdiff_t>(computed_tokens(row))};
}

TEST(Layout, NothingBehindTheLastPredictionIsComputed) {
  EXPECT_EQ(computed_tokens({.tokens = {1, 2, 3, 4, 5}, .trained = {0, 0, 1, 1, 0}}), 3);
  EXPECT_EQ(computed_tokens({.tokens = {1, 2, 3}, .trained = {0, 0, 0}}), 3) << "a prompt, whose last token matters";
  EXPECT_EQ(computed_tokens({.tokens = {1}, .trained = {1}}), 1) << "nothing predicts the first token";
}

TEST(Layout, EveryPredictionSeesExactlyItsRow) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const std::vector<EncodedRow> rows = random_rows(seed);
    for (const Layout layout : {Layout::kRows, Layout::kTree}) {
      const Batch batch = make_batch(pointers(rows), layout, 1 + static_cast<std::int64_t>(seed % 5));
      std::size_t next = 0;
      for (std::size_t r = 0; r < rows.size(); ++r) {
        for (std::size_t t = 1; t < rows[r].tokens.size(); ++t) {
          if (rows[r].trained[t] == 0) continue;
          ASSERT_LT(next, batch.losses.size());
          const LossEntry& entry = batch.losses[next++];
          EXPECT_EQ(entry.row, static_cast<std::int32_t>(r));
          EXPECT_EQ(entry.target, rows[r].tokens[t]);
          const std::vector<std::int32_t> expected(rows[r].tokens.begin(),
                                                   rows[r].tokens.begin() + static_cast<std::ptrdiff_t>(t));
          ASSERT_EQ(history(batch, entry.token), expected) << "seed " << seed << " row " << r << " token " << t;
        }
      }
      EXPECT_EQ(next, batch.losses.size());
      for (std::size_t r = 0; r < rows.size(); ++r) ASSERT_EQ(history(batch, batch.row_ends[r]), computed(rows[r]));
    }
  }
}

// What is predicted from what, whatever the layout.
std::multiset<std::pair<std::vector<std::int32_t>, std::int32_t>> predictions(const Batch& batch) {
  std::multiset<std::pair<std::vector<std::int32_t>, std::int32_t>> result;
  for (const LossEntry& entry : batch.losses) result.emplace(history(batch, entry.token), entry.target);
  return result;
}

RC_GTEST_PROP(Layout, ATreePredictsWhatItsRowsDo, ()) {
  const auto bodies = *rc::gen::container<std::vector<std::vector<std::int32_t>>>(
      rc::gen::nonEmpty(rc::gen::container<std::vector<std::int32_t>>(rc::gen::inRange<std::int32_t>(0, 2))));
  const auto min_saved = *rc::gen::inRange<std::int64_t>(1, 6);
  std::vector<EncodedRow> rows;
  for (const std::vector<std::int32_t>& tokens : bodies) {
    rows.push_back({.tokens = tokens, .trained = std::vector<std::uint8_t>(tokens.size(), 1)});
  }
  const Batch tree = make_batch(pointers(rows), Layout::kTree, min_saved);
  const Batch plain = make_batch(pointers(rows), Layout::kRows);
  RC_ASSERT(predictions(tree) == predictions(plain));
  RC_ASSERT(tree.tokens.size() <= plain.tokens.size());
  RC_ASSERT(cost_of(tree).attended <= cost_of(plain).attended);
  for (std::size_t r = 0; r < rows.size(); ++r) RC_ASSERT(history(tree, tree.row_ends[r]) == computed(rows[r]));
}

TEST(Layout, ASharedDocumentIsComputedOnce) {
  std::vector<EncodedRow> rows(4);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    rows[r].tokens.assign(400, 5);
    for (std::int32_t t = 0; t < 40; ++t) rows[r].tokens.push_back(100 * static_cast<std::int32_t>(r + 1) + t);
    rows[r].trained.assign(440, 0);
    rows[r].trained.back() = 1;
  }
  EXPECT_EQ(batch_tokens(pointers(rows), Layout::kRows), 4 * 439);
  EXPECT_EQ(batch_tokens(pointers(rows), Layout::kTree), 400 + 4 * 39) << "the last token is predicted, not computed";
  EXPECT_EQ(make_batch(pointers(rows), Layout::kTree).losses.size(), 4U);
}

// 77 labels behind one question: what they have in common is computed once where it saves enough, and a token that
// predicts the first tokens of all of them has one output.
TEST(Layout, LabelsShareTheirPrefixesAndOutputs) {
  std::vector<EncodedRow> rows;
  for (std::int32_t label = 0; label < 77; ++label) {
    EncodedRow row{.tokens = std::vector<std::int32_t>(100, 5)};
    // Seven first tokens, each of eleven labels.
    for (const std::int32_t token : {1000 + label % 7, 2000 + label, 3000 + label, 4}) row.tokens.push_back(token);
    row.trained.assign(row.tokens.size(), 0);
    std::fill(row.trained.end() - 4, row.trained.end(), 1);
    rows.push_back(std::move(row));
  }
  const Batch trie = make_batch(pointers(rows), Layout::kTree, 10);
  EXPECT_EQ(trie.tokens.size(), 100U + 7 + 77 * 2) << "ten tokens saved by each first token are enough";
  EXPECT_EQ(outputs_of(trie).tokens.size(), 1U + 7 + 77 * 2);
  EXPECT_EQ(trie.losses.size(), 77U * 4);
  const Batch flat = make_batch(pointers(rows), Layout::kTree, 11);
  EXPECT_EQ(flat.tokens.size(), 100U + 77 * 3);
  EXPECT_EQ(outputs_of(flat).tokens.size(), 1U + 77 * 3);
  // Children of one segment are neighbours.
  for (std::size_t s = 2; s < trie.segments.size(); ++s)
    EXPECT_GE(trie.segments[s].parent, trie.segments[s - 1].parent) << s;
  const Outputs outputs = outputs_of(trie);
  for (std::size_t i = 0; i < trie.losses.size(); ++i) {
    EXPECT_EQ(outputs.tokens[static_cast<std::size_t>(outputs.places[i])], trie.losses[i].token);
    EXPECT_EQ(outputs.targets[i], trie.losses[i].target);
  }
}

// A batch behind tokens that a cache holds sees them first, wherever they lie.
TEST(Layout, ABatchBehindAPrefixSeesIt) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<EncodedRow> rows = random_rows(seed);
    Batch batch = make_batch(pointers(rows), Layout::kTree, 1);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::int64_t count = computed_tokens(rows[r]) / 2 + 1;
      std::vector<std::int32_t> path;
      for (const tensor::KeyRange& range : path_of(batch, r, count))
        path.insert(path.end(), batch.tokens.begin() + range.begin, batch.tokens.begin() + range.end);
      EXPECT_EQ(path, std::vector<std::int32_t>(rows[r].tokens.begin(), rows[r].tokens.begin() + count));
    }
    const Batch before = batch;
    const std::vector<std::int32_t> slots = put_behind(batch, {{2, 5}, {9, 13}}, 20);
    ASSERT_EQ(slots.size(), batch.tokens.size());
    EXPECT_EQ(slots.front(), 20);
    for (std::size_t s = 0; s < batch.plan.queries.size(); ++s) {
      const auto& [begin, end, self_begin, visible, own, source] = batch.plan.queries[s];
      EXPECT_TRUE(source.empty());
      EXPECT_EQ(own, tensor::OwnKeys::kCausal);
      EXPECT_EQ(self_begin, before.plan.queries[s].self_begin + 20);
      ASSERT_EQ(visible.size(), before.plan.queries[s].visible.size() + 2);
      EXPECT_EQ(visible[1].end, 13);
      if (begin == end) continue;
      EXPECT_EQ(batch.positions[static_cast<std::size_t>(begin)],
                before.positions[static_cast<std::size_t>(begin)] + 7);
    }
  }
}

// A source is a root of its own, in the tree one for all of its answers; a source that another one begins with is none.
TEST(Layout, SourcesAreRoots) {
  std::vector<EncodedRow> rows(4);
  rows[0] = {.tokens = {7, 8, 9, 1, 0, 5, 6, 1}, .trained = {0, 0, 0, 0, 0, 1, 1, 1}, .source = 4};
  rows[1] = {.tokens = {7, 8, 9, 1, 0, 5, 4, 1}, .trained = {0, 0, 0, 0, 0, 1, 1, 1}, .source = 4};
  rows[2] = {.tokens = {7, 8, 1, 0, 5, 1}, .trained = {0, 0, 0, 0, 1, 1}, .source = 3};
  rows[3] = {.tokens = {7, 8, 9, 1, 0, 1, 0, 3, 1}, .trained = {0, 0, 0, 0, 0, 0, 0, 1, 1}, .source = 6};
  std::vector<const EncodedRow*> pointers;
  for (const EncodedRow& row : rows) pointers.push_back(&row);
  for (const bool tree : {false, true}) {
    const Batch batch = make_batch(pointers, tree ? Layout::kTree : Layout::kRows, 1);
    std::int64_t sources = 0;
    for (std::size_t s = 0; s < batch.segments.size(); ++s) {
      const tensor::QuerySegment& query = batch.plan.queries[s];
      sources += batch.segments[s].source ? 1 : 0;
      EXPECT_EQ(query.own, batch.segments[s].source ? tensor::OwnKeys::kWhole : tensor::OwnKeys::kCausal);
      ASSERT_EQ(query.source.size(), batch.segments[s].source ? 0U : 1U);
      if (batch.segments[s].source) continue;
      // What an answer reads is the source of a row that it belongs to; the first of its tokens is at position 0.
      const auto read = std::vector<std::int32_t>(batch.tokens.begin() + query.source[0].begin,
                                                  batch.tokens.begin() + query.source[0].end);
      const auto of_row = [&](const EncodedRow& row) {
        return std::equal(read.begin(), read.end(), row.tokens.begin()) &&
               static_cast<std::int64_t>(read.size()) == row.source;
      };
      EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), of_row));
      if (query.visible.empty()) {
        EXPECT_EQ(batch.positions[static_cast<std::size_t>(query.begin)], 0);
      }
    }
    EXPECT_EQ(sources, tree ? 3 : 4);
    EXPECT_EQ(cost_of(batch).sources, tree ? 13 : 17);
    ASSERT_EQ(batch.losses.size(), 10U);
    std::size_t next = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (std::size_t t = 0; t < rows[r].tokens.size(); ++t) {
        if (rows[r].trained[t] == 0) continue;
        const LossEntry& entry = batch.losses[next++];
        EXPECT_EQ(entry.target, rows[r].tokens[t]);
        EXPECT_EQ(batch.tokens[static_cast<std::size_t>(entry.token)], rows[r].tokens[t - 1]);
        EXPECT_EQ(entry.row, static_cast<std::int32_t>(r));
      }
    }
  }
}

TEST(Layout, EqualRowsAndPrefixRowsKeepTheirPredictions) {
  std::vector<EncodedRow> rows(3);
  rows[0] = {{1, 2, 3, 4}, {0, 0, 1, 1}, 0};
  rows[1] = rows[0];
  rows[2] = {{1, 2, 3}, {0, 1, 1}, 2};
  const Batch batch = make_batch(pointers(rows), Layout::kTree, 1);
  EXPECT_EQ(batch.tokens.size(), 3U);
  EXPECT_EQ(batch.losses.size(), 6U);
}

}  // namespace
}  // namespace instruct::data
