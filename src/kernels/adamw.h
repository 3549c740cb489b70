// What AdamW updates. Apart from kernels.h, so that headers of other layers need not include all kernels.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace instruct::kernels {

struct AdamwStep {
  float learning_rate = 0;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float epsilon = 1e-8F;
  float weight_decay = 0;
  std::int64_t step = 1;  // 1-based, for bias correction
  float gradient_scale = 1.0F;
};

// Values of a moment that share a scale, where it is kept in 8 bits.
inline constexpr std::int64_t kMomentBlock = 256;

// A weight and its moments, contiguous, of N values each.
struct AdamwState {
  tensor::Tensor
      weight;            // f32; or bf16, the upper halves of f32 weights (tensor::split), of which `lower` are the rest
  tensor::Tensor lower;  // u16, or undefined
  tensor::Tensor first;  // f32; or u8, codes of kernels/dynamic_code.h, with a scale for each kMomentBlock of them
  tensor::Tensor second;
  tensor::Tensor first_scale;  // f32 [ceil(N / kMomentBlock)]; undefined for f32 moments
  tensor::Tensor second_scale;
};

}  // namespace instruct::kernels
