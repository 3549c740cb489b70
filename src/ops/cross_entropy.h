// Output projection and cross-entropy in one operation, by tiles of the vocabulary or, where the weight is trained, by
// chunks of rows: full logits never exist.
#pragma once

#include <span>
#include <vector>

#include "ops/context.h"
#include "ops/weights.h"
#include "tensor/segments.h"

namespace instruct::ops {

// What is to be predicted: targets[i] from row rows[i] of x, with a weight in the loss. Without `rows`, targets[i] from
// row i. Several may share a row, as the first tokens of branches do.
struct Predictions {
  std::span<const std::int32_t> targets;
  std::span<const float> weights;
  std::span<const std::int32_t> rows = {};
  std::int32_t row(std::size_t i) const { return rows.empty() ? static_cast<std::int32_t>(i) : rows[i]; }
};

// What is done to logits behind the product.
struct LogitOptions {
  float soft_cap = 0;  // they are bounded to soft_cap tanh(logit / soft_cap); 0: not
  Variable bias = {};  // [V] f32, added before; or undefined
};

// For each prediction: log P(target) = (x[row] weight^T)[target] - logsumexp over the first `vocabulary` columns.
// x [M, D] holds only rows with a prediction; weight [V, D] may be block-quantised.
// When a gradient is recorded, the loss is sum_i weight[i] * -log P(target[i]), its gradient is computed in the
// same pass, and backward() starts from here: no seed is needed. `rows` must then outlive the backward pass. Returns
// natural-log probabilities of the predictions. `integer`, when it serves the context, is used in the weight's place.
// Raises InvalidArgument for a target outside the vocabulary.
std::vector<float> linear_cross_entropy(const Context& context, const Variable& x, const Variable& weight,
                                        const Predictions& predictions, std::int64_t vocabulary,
                                        const IntegerForms& integer = {}, const LogitOptions& options = {});

// Of logits that exist [M, N], f32 or bf16: log P(targets[m]) of each row, the softmax over all N columns. When a
// gradient is recorded, the loss is sum_m weights[m] * -log P and backward() starts from here.
std::vector<float> softmax_cross_entropy(const Context& context, const Variable& logits,
                                         std::span<const std::int32_t> targets, std::span<const float> weights);
// The same of columns that are true or not on their own: truth [M, N] f32 of 0 and 1; log P of a row is the sum of its
// columns'.
std::vector<float> sigmoid_cross_entropy(const Context& context, const Variable& logits, const Tensor& truth,
                                         std::span<const float> weights);

// Of columns of scores [T, C], each over ranges of rows: log P(targets[r * C + c]), rows of the scores, by the softmax
// of column c over the rows of ranges[r]. With a gradient recorded, the loss is their sum times -weight, as above.
// Raises InvalidArgument for a target outside of its range, and a range outside of the scores.
std::vector<float> column_cross_entropy(const Context& context, const Variable& scores,
                                        std::span<const tensor::KeyRange> ranges, std::span<const std::int32_t> targets,
                                        float weight);

// Logits of a few rows (generation): x [M, D] to f32 [M, V]. `integer` and `options` as above.
Tensor logits(const Context& context, const Tensor& x, const Tensor& weight, const IntegerForms& integer = {},
              const LogitOptions& options = {});

// Of one row of logits: its most likely token, the first of equals, and the natural-log probability of a token.
std::int32_t most_likely(std::span<const float> logits);
double log_probability(std::span<const float> logits, std::int32_t token);

}  // namespace instruct::ops
