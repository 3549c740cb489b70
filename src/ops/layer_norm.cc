#include "ops/layer_norm.h"

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// The gradient of a row vector [D] f32 to add to.
Tensor sum_target(const Context& context, const Variable& vector) {
  if (!vector.defined() || !vector.requires_gradient()) return {};
  GradientTarget target = gradient_target(context, vector);
  if (target.fresh) target.gradient.fill_zero();
  return target.gradient;
}

}  // namespace

Variable layer_norm(const Context& context, const Variable& x, const Variable& weight, const Variable& bias,
                    float epsilon) {
  const auto fits = [&x](const Variable& vector) {
    return vector.value().elements() == x.value().dim(1) && vector.value().dtype() == DType::kF32;
  };
  require_shape(x.value().rank() == 2 && fits(weight) && (!bias.defined() || fits(bias)), "layer_norm", x.value(),
                weight.value());
  const bool records = context.records({&x, &weight}) || (bias.defined() && context.records({&bias}));
  Variable y(Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator()), records);
  const std::int64_t rows = x.value().dim(0);
  Tensor mean = Tensor::empty({rows}, DType::kF32, context.allocator());
  Tensor inverse = Tensor::empty({rows}, DType::kF32, context.allocator());
  INSTRUCT_KERNEL(layer_norm)
  (context, x.value(), weight.value(), bias.defined() ? bias.value() : Tensor(), epsilon, y.mutable_value(), mean,
   inverse);
  if (!records) return y;
  // Keeps x, and mean and deviation of every row: the normalised row is cheaper to redo than to store.
  context.tape->record([context, x, weight, bias, y, mean, inverse] {
    if (!y.gradient().defined()) return;
    Tensor dweight = sum_target(context, weight);
    if (Tensor dbias = sum_target(context, bias); dbias.defined())
      INSTRUCT_KERNEL(add_column_sums)(context, y.gradient(), dbias);
    GradientTarget dx{Tensor(), true};
    if (x.requires_gradient()) {
      dx = gradient_target(context, x);
    } else {
      dx.gradient = Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator());
    }
    INSTRUCT_KERNEL(layer_norm_backward)
    (context, x.value(), weight.value(), mean, inverse, y.gradient(),
     dx.fresh ? kernels::Accumulate::kNo : kernels::Accumulate::kYes, dx.gradient, dweight);
    y.mutable_gradient() = Tensor();
  });
  return y;
}

}  // namespace instruct::ops
