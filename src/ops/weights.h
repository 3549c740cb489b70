// Converting stored weights to what the engine computes with.
#pragma once

#include "tensor/tensor.h"

namespace instruct::ops {

// A private, contiguous copy of a tensor of any dtype (block-quantised too) as f32 or bf16.
tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator);

}  // namespace instruct::ops
