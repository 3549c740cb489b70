#include "ops/optimizer.h"

#include "ops/dispatch.h"

namespace instruct::ops {

double sum_of_squares(const Context& context, const Tensor& x) {
  return INSTRUCT_KERNEL(sum_of_squares)(context, x);
}

void adamw(const Context& context, const AdamwStep& step, const Tensor& gradient, Tensor& weight, Tensor& first_moment,
           Tensor& second_moment, Tensor& copy) {
  require_shape(gradient.shape() == weight.shape(), "adamw", gradient, weight);
  const kernels::AdamwStep values{.learning_rate = step.learning_rate,
                                  .beta1 = step.beta1,
                                  .beta2 = step.beta2,
                                  .epsilon = step.epsilon,
                                  .weight_decay = step.weight_decay,
                                  .step = step.step,
                                  .gradient_scale = step.gradient_scale};
  INSTRUCT_KERNEL(adamw)(context, values, gradient, weight, first_moment, second_moment, copy);
}

void convert(const Context& context, const Tensor& source, Tensor& target) {
  require_shape(source.shape() == target.shape(), "convert", source, target);
  INSTRUCT_KERNEL(convert)(context, source, target);
}

}  // namespace instruct::ops
