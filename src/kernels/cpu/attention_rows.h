// Row arithmetic of attention: softmax, its gradient, and the direct path for a few queries. Internal to kernels/cpu.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace instruct::kernels::cpu {

using tensor::Tensor;

// Columns [begin, end) of a row of `width` scores take part; the others get probability zero.
struct RowSpan {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t width = 0;
};

// probabilities[c] = softmax(scores[begin, end))[c], written as `dtype` (f32 or bf16). Returns log(sum(exp(scores))).
// scores are used as scratch.
float softmax_row(float* scores, RowSpan span, tensor::DType dtype, void* probabilities);

// scores = cap tanh(scores / cap) in the span; nothing for a cap of 0.
void cap_row(float* scores, RowSpan span, float cap);

// With p = exp(scores - log_sum): writes p and dscores = p * (dprobabilities - delta) * scale, both as `dtype`; dscores
// also times 1 - (scores / cap)^2 where the scores went through a cap.
void softmax_gradient_row(const float* scores, const float* dprobabilities, RowSpan span, float log_sum, float delta,
                          float scale, float cap, tensor::DType dtype, void* probabilities, void* dscores);

// sum over i < count of a[i] * b[i], both of `dtype`.
float dot_row(const void* a, const void* b, std::int64_t count, tensor::DType dtype);

// Several queries [number, width] over the same keys of any dtype of a cache: scores[q * score_stride + s] = scale *
// dot(queries[q], keys + s * stride) for s < count.
void score_keys(const float* queries, std::int64_t number, const void* keys, std::int64_t stride, std::int64_t count,
                std::int64_t width, float scale, tensor::DType dtype, float* scores, std::int64_t score_stride);
// outputs[q][i] += sum over s < count of weights[q * weight_stride + s] * values[s * stride + i]; outputs [number,
// width].
void add_weighted_values(const float* weights, std::int64_t weight_stride, std::int64_t number, const void* values,
                         std::int64_t stride, std::int64_t count, std::int64_t width, tensor::DType dtype,
                         float* outputs);

// `count` rows of the head that starts at `column`, of any dtype of a cache (head_columns), as dense rows of `dtype`.
void copy_heads(const Tensor& rows, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t width,
                tensor::DType dtype, std::byte* target);

// count values: f32 to dtype, and dtype to f32. The latter also from a head of 8-bit integers (head_columns).
void store_row(const float* source, std::int64_t count, tensor::DType dtype, void* destination);
void load_row(const void* source, std::int64_t count, tensor::DType dtype, float* destination);
// destination[i] += source[i], f32.
void add_row(const float* source, std::int64_t count, float* destination);

}  // namespace instruct::kernels::cpu
