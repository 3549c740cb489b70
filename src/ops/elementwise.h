// Residual addition, rotary embedding, activations and their gates.
#pragma once

#include <span>
#include <vector>

#include "base/random.h"
#include "kernels/activation.h"
#include "ops/context.h"

namespace instruct::ops {

// a + b, same shape and dtype.
Variable add(const Context& context, const Variable& a, const Variable& b);

// Rotary position tables: cosine and sine [positions, P], f32, of P pairs of numbers: K/2, or fewer at a head's start.
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

// Elements dropped with probability `rate` and the others divided by 1 - rate, IN PLACE, when a gradient is recorded
// (Srivastava et al., "Dropout", 2014): the returned variable is x.
Variable dropout(const Context& context, Variable x, float rate, const RandomStream& random);

// x [T, D] cut into neighbouring parts of so many columns, without copying: what is written into a part is written into
// x.
std::vector<Variable> split_columns(const Context& context, const Variable& x, std::span<const std::int64_t> widths);

using kernels::Activation;

// activation(x), any shape.
Variable activate(const Context& context, Activation activation, const Variable& x);

// activation(gate) * up, [T, F] (Shazeer, "GLU variants improve transformer", 2020).
Variable gate(const Context& context, Activation activation, const Variable& gate, const Variable& up);

}  // namespace instruct::ops
