#include "models/block_sparse.h"

#include <algorithm>
#include <bit>
#include <random>
#include <span>
#include <utility>

#include "base/error.h"

namespace instruct::models {
namespace {

using tensor::AttentionPlan;
using tensor::KeyRange;
using tensor::OwnKeys;
using tensor::QuerySegment;

// numpy's RandomState.permutation after numpy.random.seed: Fisher-Yates from the end, with numbers of the least bits
// that can hold them, drawn again where they are too large.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : engine_(seed) {}
  std::vector<std::int32_t> permutation(std::vector<std::int32_t> values) {
    for (std::size_t i = values.size(); i-- > 1;) std::swap(values[i], values[up_to(static_cast<std::uint32_t>(i))]);
    return values;
  }

 private:
  std::uint32_t up_to(std::uint32_t most) {
    const std::uint32_t mask = std::bit_ceil(most + 1) - 1;
    std::uint32_t value = 0;
    do {
      value = static_cast<std::uint32_t>(engine_()) & mask;
    } while (value > most);
    return value;
  }
  std::mt19937 engine_;
};

// Blocks [first, last) of those between the first and the last of a text of `blocks`, as Python slices them.
void add_slice(std::int64_t blocks, std::int64_t first, std::int64_t last, std::vector<std::int32_t>& candidates) {
  for (std::int64_t i = first; i < std::min(last, blocks - 2); ++i)
    candidates.push_back(static_cast<std::int32_t>(i + 1));
}

// What block `row` of a text of the paper's lengths may draw: for a text as long as the model's longest, but from its
// first 1,024 tokens (_bigbird_block_rand_mask, which leaves neighbours and the last block in at some places).
std::vector<std::int32_t> candidates_of_paper(const BlockSparse& sparse, std::int64_t row) {
  constexpr std::int64_t kTokens = 1024;
  const std::int64_t blocks = sparse.longest / sparse.block;
  const std::int64_t last = (kTokens > 2 * sparse.block ? kTokens / sparse.block : blocks) - 1;
  std::vector<std::int32_t> candidates;
  if (row == 1 || row == 2) {
    add_slice(blocks, row + 1, last, candidates);
  } else if (row == blocks - 3 || row == blocks - 2) {
    add_slice(blocks, 0, last, candidates);
  } else {
    const std::int64_t before = std::min(row - 2, last);
    add_slice(blocks, 0, before, candidates);
    if (row - 2 <= last && row + 1 != last) add_slice(blocks, row + 1, last, candidates);
  }
  return candidates;
}

// Whether block `row` of other texts must not draw `block` of the first `limit`, from which all are drawn.
bool is_barred(std::int64_t row, std::int64_t block, std::int64_t limit) {
  const bool neighbour = block >= row - 1 && block <= row + 1;
  const bool outer = block == 0 || block == limit - 1;
  return neighbour || outer || (row == 1 && block == limit - 2) || (row == limit - 2 && block == 1);
}

bool is_of_paper(std::int64_t tokens) {
  return tokens == 1024 || tokens == 3072 || tokens == 4096;
}

class TextBlocks {
 public:
  TextBlocks(const BlockSparse& sparse, const QuerySegment& text, std::int64_t offset)
      : sparse_(sparse), begin_(text.begin + offset), end_(text.end + offset) {}
  std::int64_t count() const { return (end_ - begin_ + sparse_.block - 1) / sparse_.block; }

  // A segment for each block; `drawn` are its blocks, for all but the first and the last.
  void add_to(AttentionPlan& plan, std::span<const std::int32_t> drawn) const {
    const std::int64_t blocks = count();
    for (std::int64_t i = 0; i < blocks; ++i) {
      const KeyRange own = range(i, i + 1);
      QuerySegment segment{.begin = own.begin, .end = own.end, .visible = {}, .own = OwnKeys::kNone};
      if (i == 0 || i == blocks - 1) {
        segment.visible = {range(0, blocks)};
      } else {
        if (i > 1) segment.visible.push_back(range(0, 1));
        segment.visible.push_back(range(i - 1, i + 2));
        if (i < blocks - 2) segment.visible.push_back(range(blocks - 1, blocks));
        for (const std::int32_t block :
             drawn.subspan(static_cast<std::size_t>((i - 1) * sparse_.drawn), static_cast<std::size_t>(sparse_.drawn)))
          segment.visible.push_back(range(block, block + 1));
      }
      plan.queries.push_back(std::move(segment));
    }
  }

 private:
  KeyRange range(std::int64_t first, std::int64_t last) const {
    return {begin_ + first * sparse_.block, std::min(begin_ + last * sparse_.block, end_)};
  }
  const BlockSparse& sparse_;
  std::int64_t begin_;
  std::int64_t end_;
};

bool is_sparse(const BlockSparse& sparse, const QuerySegment& text) {
  return sparse.in_use() && text.end - text.begin > sparse.seen_whole();
}

void add_text(const BlockSparse& sparse, const QuerySegment& text, std::int64_t offset,
              std::span<const std::int32_t> drawn, AttentionPlan& plan) {
  if (is_sparse(sparse, text)) return TextBlocks(sparse, text, offset).add_to(plan, drawn);
  QuerySegment moved = text;
  for (std::int64_t* place : {&moved.begin, &moved.end, &moved.self_begin}) *place += offset;
  plan.queries.push_back(std::move(moved));
}

}  // namespace

std::vector<std::int32_t> drawn_blocks(const BlockSparse& sparse, std::int64_t blocks, std::int64_t heads,
                                       std::uint32_t seed) {
  NumpyRandom random(seed);
  std::vector<std::int32_t> result(static_cast<std::size_t>(heads * (blocks - 2) * sparse.drawn));
  const auto put = [&](std::int64_t head, std::int64_t row, std::span<const std::int32_t> chosen) {
    if (static_cast<std::int64_t>(chosen.size()) < sparse.drawn)
      raise(ErrorCategory::kUnsupported, "block {} of a text of {} blocks of {} tokens has no {} blocks to draw", row,
            blocks, sparse.block, sparse.drawn);
    if (row < blocks - 1)
      std::copy_n(chosen.begin(), sparse.drawn, result.begin() + (head * (blocks - 2) + row - 1) * sparse.drawn);
  };
  if (is_of_paper(blocks * sparse.block)) {
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t row = 1; row < sparse.longest / sparse.block - 1; ++row)
        put(head, row, random.permutation(candidates_of_paper(sparse, row)));
    }
    return result;
  }
  const std::int64_t limit = 5 + 2 * sparse.drawn;
  std::vector<std::int32_t> all(static_cast<std::size_t>(limit));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
  for (std::int64_t row = 1; row < blocks && sparse.drawn > 0; ++row) {
    for (std::int64_t head = 0; head < heads; ++head) {
      std::vector<std::int32_t> permuted = random.permutation(all);
      std::erase_if(permuted, [&](std::int32_t block) { return is_barred(row, block, limit); });
      put(head, row, permuted);
    }
  }
  return result;
}

bool is_sparse(const BlockSparse& sparse, const AttentionPlan& texts) {
  return std::any_of(texts.queries.begin(), texts.queries.end(),
                     [&](const QuerySegment& text) { return is_sparse(sparse, text); });
}

AttentionPlan sparse_plan(const BlockSparse& sparse, const AttentionPlan& texts) {
  AttentionPlan plan;
  for (const QuerySegment& text : texts.queries) {
    const std::int64_t blocks = TextBlocks(sparse, text, 0).count();
    add_text(sparse, text, 0, std::vector<std::int32_t>(static_cast<std::size_t>(blocks * sparse.drawn)), plan);
  }
  return plan;
}

AttentionPlan drawn_plan(const BlockSparse& sparse, const AttentionPlan& texts, std::int64_t heads,
                         std::int64_t layer) {
  const std::int64_t tokens = texts.queries.empty() ? 0 : texts.queries.back().end;
  std::vector<std::vector<std::int32_t>> drawn;  // of each text, all heads
  for (const QuerySegment& text : texts.queries) {
    drawn.emplace_back();
    if (!is_sparse(sparse, text)) continue;
    drawn.back() = drawn_blocks(sparse, TextBlocks(sparse, text, 0).count(), heads, static_cast<std::uint32_t>(layer));
  }
  AttentionPlan plan;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const std::size_t each = drawn[i].size() / static_cast<std::size_t>(heads);
      add_text(sparse, texts.queries[i], head * tokens,
               std::span(drawn[i]).subspan(static_cast<std::size_t>(head) * each, each), plan);
    }
  }
  return plan;
}

}  // namespace instruct::models
