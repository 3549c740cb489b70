#include "ops/optimizer.h"

#include "ops/dispatch.h"

namespace instruct::ops {

double sum_of_squares(const Context& context, const Tensor& x) {
  return INSTRUCT_KERNEL(sum_of_squares)(context, x);
}

void adamw(const Context& context, const AdamwStep& step, const Tensor& gradient, AdamwState& state) {
  require_shape(gradient.shape() == state.weight.shape(), "adamw", gradient, state.weight);
  INSTRUCT_KERNEL(adamw)(context, step, gradient, state);
}

}  // namespace instruct::ops
