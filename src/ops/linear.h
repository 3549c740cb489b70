// Linear layer, plain or with a low-rank branch, over a plain or block-quantised weight.
#pragma once

#include <span>
#include <vector>

#include "base/random.h"
#include "ops/context.h"
#include "ops/weights.h"

namespace instruct::ops {

// LoRA branch: y += scale * dropout(x) A^T B^T (Hu et al., "LoRA", 2021). A [R, K], B [N, R], dtype of x.
struct LowRank {
  Variable a;
  Variable b;
  float scale = 1.0F;
  float dropout = 0.0F;  // on the branch's input only; active only when a gradient is recorded
  RandomStream random{0, RandomPurpose::kDropout};
  // Several branches of which each row takes one, for forward passes: then b holds the B of all, columns side by side,
  // and a and scale stand in the parts.
  struct Part {
    Tensor a;  // [R_p, K]
    float scale = 1.0F;
  };
  std::vector<Part> parts = {};
};

// y [T, N] = x [T, K] weight^T (+ bias) (+ low-rank branch). weight [N, K]: dtype of x, or a block-quantised type that
// is converted tile by tile and cannot itself be trained; bias [N] f32 or undefined; branch may be null. `chosen` [T]
// says which part of a branch in parts each row takes; -1: none.
Variable linear(const Context& context, const Variable& x, const Variable& weight, const Variable& bias,
                const LowRank* branch, std::span<const std::int32_t> chosen = {});

// A layer over a frozen weight packed for integer products; bias and branch as above.
struct IntegerLayer {
  IntegerForms weight;
  Variable bias;
  const LowRank* branch = nullptr;
};
// Layers that share an input x [T, K], each to [T, N_i], on integers (kernels::integer_matmul): x is rounded to
// integers once, and so is each dy in the backward pass. Every layer's weight serves the context.
std::vector<Variable> integer_linears(const Context& context, const Variable& x, std::span<const IntegerLayer> layers,
                                      std::span<const std::int32_t> chosen = {});

}  // namespace instruct::ops
