// GGUF's block-quantised encodings to f32 and back. Storage encoding, not arithmetic: tensors know how their elements
// are stored.
//
// Formulas and layouts are those of ggml's reference quantisation (the GGUF specification's tensor types).
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace instruct::tensor {

// One block as integers and what turns them into values: element i is
//   scales[g] * (integers[i] - zero) + minimums[g], g = i / group.
struct IntegerBlock {
  std::uint8_t integers[256];
  float scales[16];
  float minimums[16];  // written where the format has them
};

// How a block-quantised type stores its values.
struct IntegerFormat {
  int bits = 8;  // integers are below 2^bits
  int zero = 0;
  int group = 32;  // neighbours that share a scale
  bool has_minimum = false;
  bool half_scales = true;  // scales and minimums are exact in half precision
  void (*read)(const std::uint8_t* block, IntegerBlock& out) = nullptr;
  void (*write)(const float* values, std::uint8_t* block) = nullptr;  // null: this program does not write it
};
// Null for plain types.
const IntegerFormat* integer_format(DType dtype);

// Decodes `values.size()` consecutive elements stored as `dtype` from `source` (any dtype but the integer ones). The
// count must be a multiple of the block.
void decode_elements(DType dtype, const std::byte* source, std::span<float> values);

// Encodes f32 values as F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1, equal to ggml's reference quantiser, or as a
// K-quant, as close as ggml's quantiser or closer (k_quant_writers.cc). Raises Unsupported for other types.
void encode_elements(DType dtype, std::span<const float> values, std::byte* target);

// Rows [first_row, first_row + rows) of a matrix of any of these dtypes, as f32, row after row.
void decode_rows(const Tensor& matrix, std::int64_t first_row, std::int64_t rows, std::span<float> values);

}  // namespace instruct::tensor
