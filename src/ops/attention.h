// Scaled dot-product attention over key ranges: causal rows, packed rows and branch trees in one operation.
#pragma once

#include "ops/context.h"

namespace instruct::ops {

struct AttentionOptions {
  std::int64_t head_width = 0;
  float scale = 0;          // usually 1/sqrt(head_width)
  std::int64_t window = 0;  // sliding window in positions; 0 for none
};

// query [T, H*K], key and value [S, G*K] with H a multiple of G; returns [T, H*K] (Vaswani et al., 2017; grouped heads:
// Ainslie et al., 2023). `plan` says what each query sees; it must outlive the backward pass.
Variable attention(const Context& context, const Variable& query, const Variable& key, const Variable& value,
                   const tensor::AttentionPlan& plan, const AttentionOptions& options);

}  // namespace instruct::ops
