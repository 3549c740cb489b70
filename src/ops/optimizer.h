// Fronts of the optimizer's arithmetic.
#pragma once

#include "kernels/adamw.h"
#include "ops/context.h"

namespace instruct::ops {

using kernels::AdamwState;
using kernels::AdamwStep;

// Sum of squares of all elements of an f32 tensor, in f64.
double sum_of_squares(const Context& context, const Tensor& x);

// One AdamW step (Loshchilov & Hutter, 2019) with a gradient in f32 of the weight's shape.
void adamw(const Context& context, const AdamwStep& step, const Tensor& gradient, AdamwState& state);

}  // namespace instruct::ops
