// Residual addition, rotary embedding, activations and their gates.
#pragma once

#include <span>

#include "kernels/activation.h"
#include "ops/context.h"

namespace instruct::ops {

// a + b, same shape and dtype.
Variable add(const Context& context, const Variable& a, const Variable& b);

// Rotary position tables: cosine and sine [positions, K/2], f32.
struct RotaryTables {
  Tensor cosine;
  Tensor sine;
};

// Rotates each head of x [T, heads * K] by its token's position (Su et al., "RoFormer", 2021; halves layout), IN PLACE:
// the returned variable is x. positions must outlive the backward pass and lie within the tables.
Variable rotate(const Context& context, Variable x, std::int64_t head_width, std::span<const std::int32_t> positions,
                const RotaryTables& tables);

// factor * x, IN PLACE: the returned variable is x.
Variable scale(const Context& context, Variable x, float factor);

using kernels::Activation;

// activation(x), any shape.
Variable activate(const Context& context, Activation activation, const Variable& x);

// activation(gate) * up, [T, F] (Shazeer, "GLU variants improve transformer", 2020).
Variable gate(const Context& context, Activation activation, const Variable& gate, const Variable& up);

}  // namespace instruct::ops
