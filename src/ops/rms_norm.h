// Root mean square layer normalization.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

struct RmsNormOptions {
  float epsilon = 1e-5F;
  float offset = 0;  // of the weight: 1 where it is stored as its difference from 1 (Gemma)
};

// x / sqrt(mean(x^2) + epsilon) * (weight + offset) by rows: x [T, D], weight [D] f32 (Zhang & Sennrich, 2019). With a
// shorter weight [K] every K columns of a row are normalised on their own: heads, side by side.
Variable rms_norm(const Context& context, const Variable& x, const Variable& weight, const RmsNormOptions& options);

}  // namespace instruct::ops
