// All kernels, once per backend: kernels::reference (plain loops, the executable specification) and kernels::cpu
// (oneDNN and Highway). Same declarations, same results within rounding.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"
#include "kernels/activation.h"
#include "kernels/adamw.h"
#include "kernels/experts.h"
#include "kernels/integer_weight.h"
#include "kernels/stream.h"
#include "tensor/segments.h"
#include "tensor/tensor.h"

namespace instruct::kernels {

using tensor::Tensor;

enum class Transpose : std::uint8_t { kNo, kYes };
enum class Accumulate : std::uint8_t { kNo, kYes };
enum class Direction : std::uint8_t { kForward, kBackward };

struct Matmul {
  Tensor a;  // [M, K], or [K, M] when transposed
  Tensor b;  // [K, N], or [N, K] when transposed
  Tensor c;  // [M, N]
  // A second product to add, of low rank: undefined, or a not transposed; transposed as b is.
  Tensor low_a = {};  // [M, R]
  Tensor low_b = {};  // [R, N], or [N, R] when transposed
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  Accumulate accumulate = Accumulate::kNo;
  float alpha = 1.0F;
};

struct IntegerMatmul {
  const IntegerWeight* weight = nullptr;  // [N, K], packed by the same backend
  Tensor result;                          // [T, N], dtype of x or f32
  // A product of low rank to add, or undefined; dtype of x.
  Tensor low_a = {};  // [T, R]
  Tensor low_b = {};  // [N, R], or [R, N] when not transposed
  Transpose transpose_low_b = Transpose::kYes;
  Accumulate accumulate = Accumulate::kNo;
};

// Columns that a head of width K takes in rows of keys or values. In 8 bits (kI8) each row and head is stored as
// integers of one scale, s = max|x| / 127, which follows them as an f32: x = s q, q in [-127, 127].
inline std::int64_t head_columns(tensor::DType dtype, std::int64_t head_width) {
  return dtype == tensor::DType::kI8 ? head_width + static_cast<std::int64_t>(sizeof(float)) : head_width;
}

struct AttentionArgs {
  Tensor query;  // [T, H*K], f32 or bf16
  Tensor key;    // [S, G*K], or as head_columns() says
  Tensor value;  // like key
  std::int64_t head_width = 0;
  float scale = 1.0F;
  std::int64_t window = 0;
  float soft_cap = 0;
  Tensor relative = {};  // [H, 2R + 1] f32, added to the scores by distance; or undefined
  const tensor::AttentionPlan* plan = nullptr;

  std::int64_t key_heads() const { return key.dim(1) / head_columns(key.dtype(), head_width); }
};

// One tile of a softmax over columns that come tile by tile. `most` and `sum` of each row start at -infinity and 0.
struct SoftmaxTile {
  Tensor scores;             // [M, N] f32
  std::int64_t columns = 0;  // the first so many take part
  std::span<float> most;     // [M]: the largest score so far
  std::span<double> sum;     // [M]: of e^(score - most) so far
  Tensor exponentials = {};  // [M, N] f32 or bf16, or undefined; may be the scores' memory
  Tensor totals = {};        // [M, D] f32, or undefined: what is summed with the exponentials of earlier tiles
};

namespace reference {
#include "kernels/declarations.inc"
}  // namespace reference

namespace cpu {
#include "kernels/declarations.inc"
// Prepared products for one thread pool, with the instruction sets named; create once and pass in the stream.
std::unique_ptr<ProductCache> make_product_cache(const CpuFeatures& features);
// Of one row, on the calling thread. Values that are NaN may or may not be passed over.
float maximum(std::span<const float> values);
double log_sum_exp(std::span<const float> values);
// Whether integer_matmul runs with these instruction sets.
bool has_integer_products(const CpuFeatures& features);
}  // namespace cpu

}  // namespace instruct::kernels
