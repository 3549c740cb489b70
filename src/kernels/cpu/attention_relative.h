// The bias of distances that attention adds to its scores (AttentionArgs::relative). Internal to kernels/cpu.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_rows.h"

namespace instruct::kernels::cpu {

// scores[c] += what the head has for the distance c - position, for every c of the span.
void add_relative(const Tensor& relative, std::int64_t head, std::int64_t position, RowSpan span, float* scores);

// Its gradient: adds factor * dscores[c] of every c of the span to the sum of its distance. dscores of `dtype`, sums
// [2 reach + 1].
void add_relative_gradient(const void* dscores, tensor::DType dtype, float factor, std::int64_t position, RowSpan span,
                           std::int64_t reach, float* sums);

}  // namespace instruct::kernels::cpu
