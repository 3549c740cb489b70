#include "ops/heads.h"

#include <vector>

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// The rows (a, b) of x, `outer` times `inner` of `width` columns, as rows (b, a).
Tensor swapped(const Context& context, const Tensor& x, std::int64_t outer, std::int64_t inner, std::int64_t width) {
  std::vector<std::int32_t> rows;
  rows.reserve(static_cast<std::size_t>(outer * inner));
  for (std::int64_t b = 0; b < inner; ++b) {
    for (std::int64_t a = 0; a < outer; ++a) rows.push_back(static_cast<std::int32_t>(a * inner + b));
  }
  Tensor y = Tensor::empty({outer * inner, width}, x.dtype(), context.allocator());
  INSTRUCT_KERNEL(gather_rows)(context, x.reshape({outer * inner, width}), rows, y);
  return y;
}

Variable swap(const Context& context, const Variable& x, std::int64_t outer, std::int64_t inner,
              const tensor::Shape& shape) {
  const tensor::Shape given = x.value().shape();
  const std::int64_t width = x.value().elements() / (outer * inner);
  Variable y(swapped(context, x.value(), outer, inner, width).reshape(shape), context.records({&x}));
  if (y.requires_gradient()) {
    // Keeps nothing: the gradient goes the same way back.
    context.tape->record([context, x, y, outer, inner, width, given] {
      if (!y.gradient().defined()) return;
      const Tensor back = swapped(context, y.gradient(), inner, outer, width).reshape(given);
      if (x.gradient().defined()) {
        INSTRUCT_KERNEL(add_into)(context, back, x.mutable_gradient());
      } else {
        x.mutable_gradient() = back;
      }
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace

Variable heads_to_rows(const Context& context, const Variable& x, std::int64_t head_width) {
  const std::int64_t tokens = x.value().dim(0);
  require_shape(x.value().rank() == 2 && x.value().dim(1) % head_width == 0, "heads_to_rows", x.value(), x.value());
  const std::int64_t heads = x.value().dim(1) / head_width;
  return swap(context, x, tokens, heads, {heads * tokens, head_width});
}

Variable heads_from_rows(const Context& context, const Variable& x, std::int64_t heads) {
  require_shape(x.value().rank() == 2 && x.value().dim(0) % heads == 0, "heads_from_rows", x.value(), x.value());
  const std::int64_t tokens = x.value().dim(0) / heads;
  return swap(context, x, heads, tokens, {tokens, heads * x.value().dim(1)});
}

}  // namespace instruct::ops
