#include "ops/rms_norm.h"

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// What is normalised together, as rows.
Tensor groups_of(const Tensor& x, const Variable& weight) {
  const std::int64_t width = weight.value().elements();
  return width == x.dim(1) ? x : x.reshape({x.elements() / width, width});
}

}  // namespace

Variable rms_norm(const Context& context, const Variable& x, const Variable& weight, const RmsNormOptions& options) {
  require_shape(x.value().rank() == 2 && x.value().dim(1) % weight.value().elements() == 0 &&
                    weight.value().dtype() == DType::kF32,
                "rms_norm", x.value(), weight.value());
  Variable y(Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator()), context.records({&x, &weight}));
  const Tensor groups = groups_of(x.value(), weight);
  Tensor normalised = groups_of(y.mutable_value(), weight);
  Tensor inverse_rms = Tensor::empty({groups.dim(0)}, DType::kF32, context.allocator());
  INSTRUCT_KERNEL(rms_norm)(context, groups, weight.value(), options.offset, options.epsilon, normalised, inverse_rms);
  if (y.requires_gradient()) {
    // Keeps x and 1/rms of every group: the normalised row is cheaper to redo than to store.
    context.tape->record([context, x, weight, y, inverse_rms, offset = options.offset] {
      if (!y.gradient().defined()) return;
      Tensor dweight;
      if (weight.requires_gradient()) {
        GradientTarget target = gradient_target(context, weight);
        if (target.fresh) target.gradient.fill_zero();
        dweight = target.gradient;
      }
      GradientTarget dx;
      if (x.requires_gradient()) {
        dx = gradient_target(context, x);
      } else {
        dx = {Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator()), true};
      }
      Tensor dgroups = groups_of(dx.gradient, weight);
      INSTRUCT_KERNEL(rms_norm_backward)
      (context, groups_of(x.value(), weight), weight.value(), offset, inverse_rms, groups_of(y.gradient(), weight),
       dx.fresh ? kernels::Accumulate::kNo : kernels::Accumulate::kYes, dgroups, dweight);
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace instruct::ops
