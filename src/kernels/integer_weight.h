// What integer_matmul multiplies with. Apart from kernels.h, so that headers of other layers need not include all
// kernels.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace instruct::kernels {

// What activations are rounded to: 8-bit integers of one scale a block, or 16-bit ones as two of 8.
enum class ActivationBits : std::uint8_t { k8, k16 };

inline constexpr std::int64_t kScaledInputs = 64;  // neighbouring inputs that share a scale in kI8

// A quantised weight [N, K] in the form that one backend made of it.
struct IntegerWeight {
  tensor::DType dtype = tensor::DType::kQ8_0;  // block-quantised, or kI8
  std::int64_t outputs = 0;                    // N
  std::int64_t inputs = 0;                     // K
  tensor::Tensor data;
  tensor::Tensor scales = {};  // of kI8 where they are not in the data: [N, ceil(K / kScaledInputs)] f32
};

}  // namespace instruct::kernels
