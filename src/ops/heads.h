// Heads as rows: for attention in which each head sees other keys.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

// x [T, H*K] as [H*T, K]: the rows of the first head, then those of the second.
Variable heads_to_rows(const Context& context, const Variable& x, std::int64_t head_width);

// The way back: x [H*T, K] as [T, H*K].
Variable heads_from_rows(const Context& context, const Variable& x, std::int64_t heads);

}  // namespace instruct::ops
