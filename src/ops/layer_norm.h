// Layer normalization.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

// (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias by rows: x [T, D], weight [D] f32, bias [D] f32 or
// undefined (Ba et al., "Layer normalization", 2016).
Variable layer_norm(const Context& context, const Variable& x, const Variable& weight, const Variable& bias,
                    float epsilon);

}  // namespace instruct::ops
