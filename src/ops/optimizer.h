// Fronts of the optimizer's arithmetic.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

struct AdamwStep {
  float learning_rate = 0;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float epsilon = 1e-8F;
  float weight_decay = 0;
  std::int64_t step = 1;  // 1-based, for bias correction
  float gradient_scale = 1.0F;
};

// Sum of squares of all elements of an f32 tensor, in f64.
double sum_of_squares(const Context& context, const Tensor& x);

// One AdamW step (Loshchilov & Hutter, 2019) on f32 tensors of one shape; `copy`, when defined and bf16, receives the
// rounded weights.
void adamw(const Context& context, const AdamwStep& step, const Tensor& gradient, Tensor& weight, Tensor& first_moment,
           Tensor& second_moment, Tensor& copy);

// target (f32 or bf16) = source (f32 or bf16), same shape.
void convert(const Context& context, const Tensor& source, Tensor& target);

}  // namespace instruct::ops
