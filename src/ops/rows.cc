#include "ops/rows.h"

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

Variable take_rows(const Context& context, const Variable& table, std::span<const std::int32_t> ids, DType dtype,
                   const char* operation, std::int64_t frozen_row) {
  const std::int64_t rows = table.value().dim(0);
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= rows) {
      raise(ErrorCategory::kInvalidArgument, "{}: index {} is outside the table of {} rows", operation, id, rows);
    }
  }
  Variable y(Tensor::empty({static_cast<std::int64_t>(ids.size()), table.value().dim(1)}, dtype, context.allocator()),
             context.records({&table}));
  INSTRUCT_KERNEL(gather_rows)(context, table.value(), ids, y.mutable_value());
  if (y.requires_gradient()) {
    // Keeps the ids; the gradient of each taken row goes back to where it came from.
    context.tape->record([context, table, ids, y, frozen_row] {
      if (!y.gradient().defined()) return;
      for (std::size_t t = 0; t < ids.size(); ++t) {
        const auto row = static_cast<std::int64_t>(t);
        if (ids[t] == frozen_row) y.mutable_gradient().rows(row, row + 1).fill_zero();
      }
      GradientTarget target = gradient_target(context, table);
      if (target.fresh) target.gradient.fill_zero();
      INSTRUCT_KERNEL(scatter_add_rows)(context, y.gradient(), ids, target.gradient);
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace

Variable embedding(const Context& context, const Variable& table, std::span<const std::int32_t> ids, DType dtype,
                   std::int64_t padding) {
  return take_rows(context, table, ids, dtype, "embedding", padding);
}

Variable select_rows(const Context& context, const Variable& x, std::span<const std::int32_t> rows) {
  return take_rows(context, x, rows, x.value().dtype(), "select_rows", -1);
}

Variable mean_rows(const Context& context, const Variable& x, std::span<const tensor::KeyRange> ranges) {
  std::int64_t before = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin < before || begin >= end || end > x.value().dim(0))
      raise(ErrorCategory::kInvalidArgument, "mean_rows: range [{}, {}) does not fit {} rows", begin, end,
            x.value().dim(0));
    before = end;
  }
  Variable y(Tensor::empty({static_cast<std::int64_t>(ranges.size()), x.value().dim(1)}, x.value().dtype(),
                           context.allocator()),
             context.records({&x}));
  INSTRUCT_KERNEL(mean_rows)(context, x.value(), ranges, y.mutable_value());
  if (y.requires_gradient()) {
    // Keeps the ranges.
    context.tape->record([context, x, ranges, y] {
      if (!y.gradient().defined()) return;
      GradientTarget target = gradient_target(context, x);
      if (target.fresh) target.gradient.fill_zero();
      INSTRUCT_KERNEL(mean_rows_backward)(context, y.gradient(), ranges, target.gradient);
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace instruct::ops
