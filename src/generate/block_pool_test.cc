#include "generate/block_pool.h"

#include <gtest/gtest.h>

#include "base/random.h"

#include <memory>

namespace instruct::generate {
namespace {

using Blocks = std::vector<std::int32_t>;

std::vector<std::int64_t> slots_of(const BlockTable& table, std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> slots;
  for (const tensor::KeyRange& range : table.slots(begin, end)) {
    for (std::int64_t slot = range.begin; slot < range.end; ++slot) slots.push_back(slot);
  }
  return slots;
}

TEST(BlockPool, TakesRunsWhereThereAreAny) {
  BlockPool pool(10, 4);
  EXPECT_EQ(pool.take(2, -1), (Blocks{0, 1}));
  EXPECT_EQ(pool.take(1, -1), (Blocks{2}));
  EXPECT_EQ(pool.take(2, -1), (Blocks{3, 4}));
  pool.remove_user(2);
  EXPECT_EQ(pool.take(2, -1), (Blocks{5, 6}));     // not the hole
  EXPECT_EQ(pool.take(1, 6), (Blocks{7}));         // behind its own
  EXPECT_EQ(pool.take(3, -1), (Blocks{2, 8, 9}));  // no run of three is left
  EXPECT_EQ(pool.free(), 0);
  EXPECT_EQ(pool.most_used(), 10);
  pool.add_user(5);
  pool.remove_user(5);
  EXPECT_EQ(pool.free(), 0);
  pool.remove_user(5);
  EXPECT_EQ(pool.free(), 1);
}

TEST(BlockTable, GrowsByWholeBlocksAndMergesNeighbours) {
  BlockPool pool(4, 4);
  BlockTable table(pool);
  BlockTable other(pool);
  EXPECT_TRUE(table.reserve(3));
  EXPECT_TRUE(table.reserve(5));
  EXPECT_EQ(pool.free(), 2);
  EXPECT_EQ(table.slots(0, 8).size(), 1U);
  EXPECT_TRUE(other.reserve(1));
  EXPECT_TRUE(table.reserve(9));
  EXPECT_EQ(slots_of(table, 6, 10), (std::vector<std::int64_t>{6, 7, 12, 13}));
  EXPECT_FALSE(other.reserve(5));
  table.clear();
  EXPECT_EQ(pool.free(), 3);
  EXPECT_TRUE(other.reserve(5));
}

TEST(BlockTable, SharesTheStartAndNeverTheRestOfItsBlock) {
  BlockPool pool(8, 4);
  auto first = std::make_unique<BlockTable>(pool);
  ASSERT_TRUE(first->reserve(11));
  BlockTable second(pool);
  second.share(*first, 6);
  EXPECT_EQ(pool.free(), 5);
  ASSERT_TRUE(second.reserve(8));
  EXPECT_EQ(slots_of(second, 0, 8), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 12, 13}));
  BlockTable third(pool);
  third.share(second, 7);
  first.reset();
  EXPECT_EQ(pool.free(), 5);  // the third block was the first table's alone
  second.clear();
  EXPECT_EQ(pool.free(), 5);  // all three are the third table's too
  third.clear();
  EXPECT_EQ(pool.free(), 8);
}

// Whatever grows, shares and ends: no slot is written by two, and in the end every block is free.
TEST(BlockTable, SlotsOfDifferentSequencesNeverMeet) {
  BlockPool pool(23, 3);
  RandomStream random(3, RandomPurpose::kTest);
  struct Sequence {
    explicit Sequence(BlockPool& of) : table(of) {}
    BlockTable table;
    std::int64_t shared = 0;
    std::int64_t size = 0;
  };
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (int round = 0; round < 3000; ++round) {
    const std::uint64_t what = random.next_below(4);
    if (what == 0 && sequences.size() < 8) {
      auto made = std::make_unique<Sequence>(pool);
      if (!sequences.empty()) {
        const Sequence& source = *sequences[random.next_below(sequences.size())];
        made->shared = made->size =
            static_cast<std::int64_t>(random.next_below(static_cast<std::uint64_t>(source.size) + 1));
        made->table.share(source.table, made->size);
      }
      sequences.push_back(std::move(made));
    } else if (what == 1 && !sequences.empty()) {
      sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(random.next_below(sequences.size())));
    } else if (!sequences.empty()) {
      Sequence& grown = *sequences[random.next_below(sequences.size())];
      const std::int64_t size = grown.size + static_cast<std::int64_t>(random.next_below(5));
      const std::int64_t free = pool.free();
      if (grown.table.reserve(size)) {
        grown.size = size;
      } else {
        EXPECT_EQ(pool.free(), free);
      }
    }
    std::vector<int> writers(69);
    for (const auto& sequence : sequences) {
      ASSERT_EQ(static_cast<std::int64_t>(slots_of(sequence->table, 0, sequence->size).size()), sequence->size);
      for (const std::int64_t slot : slots_of(sequence->table, sequence->shared, sequence->size))
        ASSERT_EQ(++writers[static_cast<std::size_t>(slot)], 1);
    }
  }
  sequences.clear();
  EXPECT_EQ(pool.free(), 23);
}

}  // namespace
}  // namespace instruct::generate
