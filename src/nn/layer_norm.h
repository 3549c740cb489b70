// Layer normalisation with its weights, and its kind without a mean.
#pragma once

#include "ops/layer_norm.h"
#include "ops/rms_norm.h"

namespace instruct::nn {

struct LayerNorm {
  ops::Variable weight;  // [D] f32; undefined: nothing is done
  ops::Variable bias;    // [D] f32, or undefined
  float epsilon = 1e-5F;
  bool centred = true;  // no: RMSNorm, which takes no mean away, has no bias, and with a weight [K] is of heads [K]
  float offset = 0;     // of the weight of RMSNorm (ops::RmsNormOptions)

  bool defined() const { return weight.defined(); }
  // x [T, D] to [T, D].
  ops::Variable operator()(const ops::Context& context, const ops::Variable& x) const {
    if (!defined()) return x;
    if (centred) return ops::layer_norm(context, x, weight, bias, epsilon);
    return ops::rms_norm(context, x, weight, {.epsilon = epsilon, .offset = offset});
  }
};

}  // namespace instruct::nn
