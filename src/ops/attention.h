// Scaled dot-product attention over key ranges: causal rows, packed rows and branch trees in one operation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"

namespace instruct::ops {

// Rows [slots, G heads of K] of keys or values kept for later passes, of undefined content: f32, bf16 or 8-bit integers
// with one f32 scale a row and head (kI8).
Tensor make_head_rows(std::int64_t slots, std::int64_t heads, std::int64_t head_width, DType dtype,
                      tensor::Allocator& allocator);
// rows[slots[t]] = x[t], x [T, G*K]. Raises InvalidArgument for a slot outside the rows.
void store_heads(const Context& context, const Tensor& x, std::span<const std::int32_t> slots, std::int64_t head_width,
                 Tensor& rows);

struct AttentionOptions {
  std::int64_t head_width = 0;
  float scale = 0;          // usually 1/sqrt(head_width)
  std::int64_t window = 0;  // keys less than so many positions away are seen; 0: all
  float soft_cap = 0;       // scores are bounded to soft_cap tanh(score / soft_cap); 0 for none
};

// What a model adds to the scores by how far a key is behind the query, before it where negative (Raffel et al., "T5",
// 2020): weights [B, H] f32 of B buckets, and the bucket of each distance from -R to R, beyond which all are those of
// R.
struct DistanceBias {
  Variable weights;
  std::vector<std::int32_t> buckets;  // [2R + 1]
};

// query [T, H*K], key and value [S, G*K] with H a multiple of G; returns [T, H*K] (Vaswani et al., 2017; grouped heads:
// Ainslie et al., 2023). `plan` says what each query sees; it must outlive the backward pass, as
// must `bias`, which excludes a soft cap. Keys and values of
// another dtype than the query's, as store_heads() writes them, are for passes that record nothing.
Variable attention(const Context& context, const Variable& query, const Variable& key, const Variable& value,
                   const tensor::AttentionPlan& plan, const AttentionOptions& options,
                   const DistanceBias* bias = nullptr);

}  // namespace instruct::ops
