// Root mean square layer normalization.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

// x / sqrt(mean(x^2) + epsilon) * weight by rows: x [T, D], weight [D] f32 (Zhang & Sennrich, 2019). With a shorter
// weight [K] every K columns of a row are normalised on their own: heads, side by side.
Variable rms_norm(const Context& context, const Variable& x, const Variable& weight, float epsilon);

}  // namespace instruct::ops
