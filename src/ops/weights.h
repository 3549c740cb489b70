// Converting stored weights to what the engine computes with.
#pragma once

#include <memory>

#include "base/threads.h"
#include "kernels/integer_weight.h"
#include "tensor/tensor.h"

namespace instruct::ops {

// A private, contiguous copy of a tensor of any dtype (block-quantised too) as f32 or bf16.
tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator,
                              ThreadPool& threads);
// The same on one thread.
tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator);

// Whether this processor has products on 8-bit integers.
bool has_integer_products();
// A block-quantised matrix packed for them.
std::shared_ptr<const kernels::IntegerWeight> packed_for_integers(const tensor::Tensor& source,
                                                                  tensor::Allocator& allocator, ThreadPool& threads);

}  // namespace instruct::ops
