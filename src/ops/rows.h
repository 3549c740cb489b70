// Rows of a table: token embedding, row selection, means of rows.
#pragma once

#include <span>

#include "tensor/segments.h"

#include "ops/context.h"

namespace instruct::ops {

// table rows by id, converted to `dtype`: table [V, D] of any dtype, result [T, D]. Raises InvalidArgument for an id
// outside the table. ids must outlive the backward pass. Only plain tables can be trained. The row `padding` gets no
// gradient, as with torch.nn.Embedding(padding_idx); -1 for none.
Variable embedding(const Context& context, const Variable& table, std::span<const std::int32_t> ids, DType dtype,
                   std::int64_t padding = -1);

// Rows of x [T, D] by index, repeats allowed: result [M, D]. `rows` must outlive the backward pass.
Variable select_rows(const Context& context, const Variable& x, std::span<const std::int32_t> rows);

// The mean of rows [begin, end) of x [T, D] for each range: result [M, D]. Ranges are not empty and do not overlap, and
// must outlive the backward pass. Raises InvalidArgument for one outside of x.
Variable mean_rows(const Context& context, const Variable& x, std::span<const tensor::KeyRange> ranges);

}  // namespace instruct::ops
