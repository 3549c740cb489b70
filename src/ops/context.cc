#include "ops/context.h"

#include "base/error.h"

namespace instruct::ops {

bool Context::records(std::initializer_list<const Variable*> inputs) const {
  if (tape == nullptr) return false;
  for (const Variable* input : inputs) {
    if (input != nullptr && input->requires_gradient()) return true;
  }
  return false;
}

GradientTarget gradient_target(const Context& context, const Variable& variable) {
  if (const Variable whole = variable.whole(); whole.defined()) {
    GradientTarget target = gradient_target(context, whole);
    if (target.fresh) target.gradient.fill_zero();
    return {target.gradient.rows(variable.first_row(), variable.first_row() + variable.shape()[0]), false};
  }
  Tensor& gradient = variable.mutable_gradient();
  if (gradient.defined()) return {gradient, false};
  const DType dtype = variable.is_parameter() ? DType::kF32 : variable.dtype();
  gradient = Tensor::empty(variable.shape(), dtype, context.allocator());
  return {gradient, true};
}

void require_shape(bool condition, const char* operation, const Tensor& a, const Tensor& b) {
  if (!condition) {
    raise(ErrorCategory::kInvalidArgument, "{}: shapes {} {} and {} {} do not fit", operation,
          tensor::info(a.dtype()).name, a.shape().text(), tensor::info(b.dtype()).name, b.shape().text());
  }
}

}  // namespace instruct::ops
