// Normalisation of rows with its weights: layer normalisation, or by the root mean square alone (T5).
#pragma once

#include "ops/layer_norm.h"
#include "ops/rms_norm.h"

namespace instruct::nn {

struct LayerNorm {
  ops::Variable weight;  // [D] f32; undefined: nothing is done
  ops::Variable bias;    // [D] f32, or undefined
  float epsilon = 1e-5F;
  bool centred = true;  // false: the mean is not taken off, and there is no bias

  // x [T, D] to [T, D].
  ops::Variable operator()(const ops::Context& context, const ops::Variable& x) const {
    if (!weight.defined()) return x;
    return centred ? ops::layer_norm(context, x, weight, bias, epsilon)
                   : ops::rms_norm(context, x, weight, {.epsilon = epsilon});
  }
};

}  // namespace instruct::nn
