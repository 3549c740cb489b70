// A named linear layer that an adapter may attach a low-rank branch to.
#pragma once

#include <memory>
#include <string>

#include "ops/linear.h"

namespace instruct::nn {

using ops::Context;
using ops::Tensor;
using ops::Variable;

struct Linear {
  std::string name;  // module path as in Hugging Face checkpoints, "model.layers.0.self_attn.q_proj"
  Variable weight;   // [N, K]
  Variable bias;     // [N] f32, or undefined
  // Set and owned by an adapter; layers and models never ask which.
  std::shared_ptr<const ops::LowRank> branch;

  std::int64_t outputs() const { return weight.value().dim(0); }
  std::int64_t inputs() const { return weight.value().dim(1); }
  // x [T, K] to [T, N].
  Variable operator()(const Context& context, const Variable& x) const {
    return ops::linear(context, x, weight, bias, branch.get());
  }
};

}  // namespace instruct::nn
