#include "ops/rms_norm.h"

#include "ops/dispatch.h"

namespace instruct::ops {

Variable rms_norm(const Context& context, const Variable& x, const Variable& weight, float epsilon) {
  require_shape(
      x.value().rank() == 2 && weight.value().elements() == x.value().dim(1) && weight.value().dtype() == DType::kF32,
      "rms_norm", x.value(), weight.value());
  Variable y(Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator()), context.records({&x, &weight}));
  Tensor inverse_rms = Tensor::empty({x.value().dim(0)}, DType::kF32, context.allocator());
  INSTRUCT_KERNEL(rms_norm)(context, x.value(), weight.value(), epsilon, y.mutable_value(), inverse_rms);
  if (y.requires_gradient()) {
    // Keeps x and 1/rms of every row: the normalised row is cheaper to redo than to store.
    context.tape->record([context, x, weight, y, inverse_rms] {
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
      INSTRUCT_KERNEL(rms_norm_backward)
      (context, x.value(), weight.value(), inverse_rms, y.gradient(),
       dx.fresh ? kernels::Accumulate::kNo : kernels::Accumulate::kYes, dx.gradient, dweight);
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

}  // namespace instruct::ops
