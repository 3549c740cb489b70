// Output projection and cross-entropy in one operation, by chunks of rows: full logits never exist.
#pragma once

#include <span>
#include <vector>

#include "ops/context.h"
#include "ops/weights.h"

namespace instruct::ops {

// For each row m: log P(target[m]) = (x[m] weight^T)[target[m]] - logsumexp over the first `vocabulary` columns.
// x [M, D] holds only rows with a loss; weight [V, D] may be block-quantised.
// When a gradient is recorded, the loss is sum_m row_weight[m] * -log P(target[m]), its gradient is computed in the
// same pass, and backward() starts from here: no seed is needed. Returns natural-log probabilities, [M].
// `integer`, when it serves the context, is used in the weight's place.
// Raises InvalidArgument for a target outside the vocabulary.
std::vector<float> linear_cross_entropy(const Context& context, const Variable& x, const Variable& weight,
                                        std::span<const std::int32_t> targets, std::span<const float> row_weights,
                                        std::int64_t vocabulary, const IntegerForms& integer = {});

// Logits of a few rows (generation): x [M, D] to f32 [M, V]. `integer` as above.
Tensor logits(const Context& context, const Tensor& x, const Tensor& weight, const IntegerForms& integer = {});

// Of one row of logits: its most likely token, the first of equals, and the natural-log probability of a token.
std::int32_t most_likely(std::span<const float> logits);
double log_probability(std::span<const float> logits, std::int32_t token);

}  // namespace instruct::ops
