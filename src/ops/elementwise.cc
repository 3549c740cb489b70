#include "ops/elementwise.h"

#include <algorithm>

#include "base/error.h"
#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// gradient of `variable` += or = dy.
void pass_gradient(const Context& context, const Variable& variable, const Tensor& dy) {
  if (!variable.requires_gradient()) return;
  GradientTarget target = gradient_target(context, variable);
  if (target.fresh) {
    INSTRUCT_KERNEL(convert)(context, dy, target.gradient);
  } else {
    INSTRUCT_KERNEL(add_into)(context, dy, target.gradient);
  }
}

}  // namespace

Variable add(const Context& context, const Variable& a, const Variable& b) {
  require_shape(a.value().shape() == b.value().shape() && a.value().dtype() == b.value().dtype(), "add", a.value(),
                b.value());
  Variable sum(Tensor::empty(a.value().shape(), a.value().dtype(), context.allocator()), context.records({&a, &b}));
  INSTRUCT_KERNEL(add)(context, a.value(), b.value(), sum.mutable_value());
  if (sum.requires_gradient()) {
    // Keeps nothing but the handles: the gradient of a sum is passed on unchanged.
    context.tape->record([context, a, b, sum] {
      if (!sum.gradient().defined()) return;
      pass_gradient(context, a, sum.gradient());
      // The last reader may take the gradient over instead of copying it.
      if (b.requires_gradient() && !b.gradient().defined() && !b.is_parameter()) {
        b.mutable_gradient() = sum.gradient();
      } else {
        pass_gradient(context, b, sum.gradient());
      }
      sum.mutable_gradient() = Tensor();
    });
  }
  return sum;
}

Variable rotate(const Context& context, Variable x, std::int64_t head_width, std::span<const std::int32_t> positions,
                const RotaryTables& tables) {
  require_shape(x.value().dim(0) == static_cast<std::int64_t>(positions.size()) && x.value().dim(1) % head_width == 0 &&
                    tables.cosine.dim(1) * 2 <= head_width,
                "rotate", x.value(), tables.cosine);
  INSTRUCT_KERNEL(rotate)
  (context, x.mutable_value(), head_width, positions, tables.cosine, tables.sine, kernels::Direction::kForward);
  if (context.records({&x})) {
    // A rotation is orthogonal: the gradient is turned back by the same angle. Nothing is kept.
    context.tape->record([context, x, head_width, positions, tables] {
      if (!x.gradient().defined()) return;
      INSTRUCT_KERNEL(rotate)
      (context, x.mutable_gradient(), head_width, positions, tables.cosine, tables.sine, kernels::Direction::kBackward);
    });
  }
  return x;
}

Variable scale(const Context& context, Variable x, float factor) {
  if (factor == 1.0F) return x;
  INSTRUCT_KERNEL(scale)(context, factor, x.mutable_value());
  if (context.records({&x})) {
    context.tape->record([context, x, factor] {
      if (x.gradient().defined()) INSTRUCT_KERNEL(scale)(context, factor, x.mutable_gradient());
    });
  }
  return x;
}

Variable dropout(const Context& context, Variable x, float rate, const RandomStream& random) {
  if (rate == 0 || !context.records({&x})) return x;
  INSTRUCT_KERNEL(dropout)(context, x.value(), random, rate, x.mutable_value());
  // Keeps nothing: what is dropped is drawn again.
  context.tape->record([context, x, rate, random] {
    if (x.gradient().defined()) INSTRUCT_KERNEL(dropout)(context, x.gradient(), random, rate, x.mutable_gradient());
  });
  return x;
}

std::vector<Variable> split_columns(const Context& context, const Variable& x, std::span<const std::int64_t> widths) {
  std::vector<Variable> parts;
  std::int64_t first = 0;
  for (const std::int64_t width : widths) {
    parts.emplace_back(x.value().columns(first, first + width), context.records({&x}));
    first += width;
  }
  require_shape(first == x.value().dim(1), "split_columns", x.value(), parts.back().value());
  if (!context.records({&x})) return parts;
  context.tape->record([context, x, parts] {
    const bool any = std::any_of(parts.begin(), parts.end(), [](const Variable& p) { return p.gradient().defined(); });
    if (!any) return;
    INSTRUCT_CHECK(!x.gradient().defined());  // x is read through its parts alone
    Tensor dx = Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator());
    std::int64_t begin = 0;
    for (const Variable& part : parts) {
      Tensor target = dx.columns(begin, begin + part.value().dim(1));
      begin += part.value().dim(1);
      if (part.gradient().defined()) {
        INSTRUCT_KERNEL(convert)(context, part.gradient(), target);
      } else {
        for (std::int64_t row = 0; row < dx.dim(0); ++row) target.rows(row, row + 1).fill_zero();
      }
      part.mutable_gradient() = Tensor();
    }
    x.mutable_gradient() = dx;
  });
  return parts;
}

Variable activate(const Context& context, Activation activation, const Variable& x) {
  Variable y(Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator()), context.records({&x}));
  INSTRUCT_KERNEL(activate)(context, activation, x.value(), y.mutable_value());
  if (y.requires_gradient()) {
    // Keeps x.
    context.tape->record([context, activation, x, y] {
      if (!y.gradient().defined()) return;
      Tensor dx = y.gradient();
      INSTRUCT_KERNEL(activate_backward)(context, activation, x.value(), y.gradient(), dx);
      pass_gradient(context, x, dx);
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

Variable gate(const Context& context, Activation activation, const Variable& gate, const Variable& up) {
  require_shape(gate.value().shape() == up.value().shape(), "gate", gate.value(), up.value());
  Variable y(Tensor::empty(gate.value().shape(), gate.value().dtype(), context.allocator()),
             context.records({&gate, &up}));
  INSTRUCT_KERNEL(gate)(context, activation, gate.value(), up.value(), y.mutable_value());
  if (y.requires_gradient()) {
    // Keeps gate and up; both are read nowhere else, so their gradients are written over them.
    context.tape->record([context, activation, gate, up, y] {
      if (!y.gradient().defined()) return;
      Tensor dgate = gate.value();
      Tensor dup = up.value();
      INSTRUCT_KERNEL(gate_backward)(context, activation, gate.value(), up.value(), y.gradient(), dgate, dup);
      gate.mutable_gradient() = dgate;
      up.mutable_gradient() = dup;
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace instruct::ops
