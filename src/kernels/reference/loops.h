// Element access for the plain kernels: every plain dtype is read and written as f32, one element at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "tensor/tensor.h"

namespace instruct::kernels::reference {

using tensor::BFloat16;
using tensor::DType;
using tensor::Half;
using tensor::Tensor;

// Elements of one row (an entry of the first axis); 0 for an empty tensor.
inline std::int64_t row_width(const Tensor& x) {
  return x.rank() == 0 ? 1 : (x.dim(0) == 0 ? 0 : x.elements() / x.dim(0));
}

// Element `column` of row `row`, as f32.
inline float read(const Tensor& x, std::int64_t row, std::int64_t column) {
  const std::int64_t index = row * x.row_stride() + column;
  switch (x.dtype()) {
    case DType::kF32:
      return x.data<float>()[index];
    case DType::kBF16:
      return tensor::to_float(x.data<BFloat16>()[index]);
    case DType::kF16:
      return tensor::to_float(x.data<Half>()[index]);
    default:
      raise(ErrorCategory::kUnsupported, "kernels: elements of type {} cannot be read", info(x.dtype()).name);
  }
}

// Stores `value`, rounded to nearest.
inline void write(Tensor& y, std::int64_t row, std::int64_t column, float value) {
  const std::int64_t index = row * y.row_stride() + column;
  switch (y.dtype()) {
    case DType::kF32:
      y.data<float>()[index] = value;
      return;
    case DType::kBF16:
      y.data<BFloat16>()[index] = tensor::to_bfloat16(value);
      return;
    case DType::kF16:
      y.data<Half>()[index] = tensor::to_half(value);
      return;
    default:
      raise(ErrorCategory::kUnsupported, "kernels: elements of type {} cannot be written", info(y.dtype()).name);
  }
}

// A matrix as f32 values, row by row, without the stride; the transpose of it when asked for.
inline std::vector<float> read_matrix(const Tensor& x, bool transposed) {
  const std::int64_t rows = x.dim(0);
  const std::int64_t columns = x.dim(1);
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      values[static_cast<std::size_t>(transposed ? j * rows + i : i * columns + j)] = read(x, i, j);
    }
  }
  return values;
}

// Calls body(row, column) for every element of a tensor shaped like x.
template <typename Body>
void for_each_element(const Tensor& x, Body&& body) {
  if (x.elements() == 0) return;
  const std::int64_t width = row_width(x);
  const std::int64_t rows = x.elements() / width;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < width; ++j) body(i, j);
  }
}

}  // namespace instruct::kernels::reference
