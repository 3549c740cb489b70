// A named linear layer that an adapter may attach a low-rank branch to.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "ops/linear.h"

namespace instruct::nn {

using ops::Context;
using ops::Tensor;
using ops::Variable;

struct Linear {
  std::string name;  // module path as in Hugging Face checkpoints, "model.layers.0.self_attn.q_proj"
  Variable weight;   // [N, K]
  Variable bias;     // [N] f32, or undefined
  // The weight packed for integer products: used in its place where it serves.
  ops::IntegerForms integer;
  // Set by attach() and owned by an adapter; layers and models never ask which.
  std::shared_ptr<const ops::LowRank> branch;
  // Where files keep several layers as one (Phi-3's qkv_proj): those that compute, with its rows one after the other as
  // their weights. Adapters, optimizers and files know the one, blocks its sections.
  std::vector<Linear*> sections = {};

  // Hugging Face's files hold the weight as [K, N] (GPT-2's Conv1D).
  bool inputs_first = false;
  // An adapter takes it where a target names it, not where one says "all-linear".
  bool by_name_only = false;

  // Puts a branch on the layer, or takes it away (null). Sections share its A and have their rows of its B.
  void attach(std::shared_ptr<const ops::LowRank> given);

  std::int64_t outputs() const { return weight.value().dim(0); }
  std::int64_t inputs() const { return weight.value().dim(1); }
  // x [T, K] to [T, N]. `adapters` [T]: which one each row takes, where there are several.
  Variable operator()(const Context& context, const Variable& x, std::span<const std::int32_t> adapters = {}) const {
    if (integer.serve(context)) {
      const ops::IntegerLayer layer{integer, bias, branch.get()};
      return ops::integer_linears(context, x, std::span(&layer, 1), adapters).front();
    }
    return ops::linear(context, x, weight, bias, branch.get(), adapters);
  }
};

// Layers over one input: together where all of them have integer products, else one after the other.
template <std::size_t Count>
std::array<Variable, Count> apply_all(const Context& context, const Variable& x,
                                      const std::array<const Linear*, Count>& layers,
                                      std::span<const std::int32_t> adapters = {}) {
  std::array<Variable, Count> outputs;
  std::array<ops::IntegerLayer, Count> packed;
  bool together = true;
  for (std::size_t i = 0; i < Count; ++i) {
    packed[i] = {layers[i]->integer, layers[i]->bias, layers[i]->branch.get()};
    together = together && packed[i].weight.serve(context);
  }
  if (together) {
    std::vector<Variable> all = ops::integer_linears(context, x, packed, adapters);
    std::move(all.begin(), all.end(), outputs.begin());
  } else {
    for (std::size_t i = 0; i < Count; ++i) outputs[i] = (*layers[i])(context, x, adapters);
  }
  return outputs;
}

}  // namespace instruct::nn
