// Layer normalisation with its weights.
#pragma once

#include "ops/layer_norm.h"

namespace instruct::nn {

struct LayerNorm {
  ops::Variable weight;  // [D] f32; undefined: nothing is done
  ops::Variable bias;    // [D] f32, or undefined
  float epsilon = 1e-5F;

  // x [T, D] to [T, D].
  ops::Variable operator()(const ops::Context& context, const ops::Variable& x) const {
    return weight.defined() ? ops::layer_norm(context, x, weight, bias, epsilon) : x;
  }
};

}  // namespace instruct::nn
