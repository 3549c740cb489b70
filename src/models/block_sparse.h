// BigBird's attention over long texts: which blocks of a text see which (Zaheer et al., "Big Bird: Transformers for
// longer sequences", 2020), so that its cost grows with the length and not with its square.
//
// The first and the last block see the whole text and are seen by all; every other block sees itself, its two
// neighbours and a few blocks that are drawn. As transformers has it (5.24), numbers are drawn in training alone,
// from numpy's generator, the same for every pass; elsewhere the first block stands in the place of each drawn one, and
// counts as often as it does.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/segments.h"

namespace instruct::models {

struct BlockSparse {
  std::int64_t block = 0;    // tokens of a block; 0: every token sees its whole text
  std::int64_t drawn = 3;    // blocks that each block draws, for every head and layer
  std::int64_t longest = 0;  // text of the model (max_position_embeddings), on which the choice depends

  bool in_use() const { return block > 0; }
  // A text of so many tokens, and a shorter one, is seen whole by every token.
  std::int64_t seen_whole() const { return (5 + 2 * drawn) * block; }
};

// The blocks that heads draw in training for a text of so many: `drawn` for each block but the first and the last, head
// after head. Raises Unsupported where there are not as many to choose from.
std::vector<std::int32_t> drawn_blocks(const BlockSparse& sparse, std::int64_t blocks, std::int64_t heads,
                                       std::uint32_t seed);

// Whether any of these texts is too long to be seen whole.
bool is_sparse(const BlockSparse& sparse, const tensor::AttentionPlan& texts);
// What the tokens of texts side by side (tensor::plan_of_whole_rows) see where nothing is drawn.
tensor::AttentionPlan sparse_plan(const BlockSparse& sparse, const tensor::AttentionPlan& texts);
// The same in training, of heads as rows (ops::heads_to_rows); the layer's number seeds what is drawn.
tensor::AttentionPlan drawn_plan(const BlockSparse& sparse, const tensor::AttentionPlan& texts, std::int64_t heads,
                                 std::int64_t layer);

}  // namespace instruct::models
