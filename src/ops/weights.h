// Converting stored weights to what the engine computes with.
#pragma once

#include <memory>

#include "base/threads.h"
#include "kernels/integer_weight.h"
#include "ops/context.h"
#include "tensor/tensor.h"

namespace instruct::ops {

// A private, contiguous copy of a tensor of any dtype (block-quantised too) as f32 or bf16.
tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator,
                              ThreadPool& threads);
// The same on one thread.
tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator);

// A copy of a matrix [M, N] of a plain dtype as [N, M].
tensor::Tensor transposed_copy(const tensor::Tensor& source, tensor::Allocator& allocator);

// Whether this processor has products on integers.
bool has_integer_products();

// A frozen weight W [N, K] packed for products on integers (kernels::integer_matmul).
struct IntegerForms {
  std::shared_ptr<const kernels::IntegerWeight> forward;       // for x W^T; null: there are none
  std::shared_ptr<const kernels::IntegerWeight> transposed;    // for the gradient dy W; null: not while recording
  kernels::ActivationBits bits = kernels::ActivationBits::k8;  // what the other side is rounded to
  bool serve(const Context& context) const {
    return forward != nullptr && (context.tape == nullptr || transposed != nullptr);
  }
};
// What integer products are for: forward passes, on activations of 8 bits or of 16 (whose error is below that of bf16,
// for twice the arithmetic), or training over a frozen base, on 8 bits.
enum class IntegerUse : std::uint8_t { kNone, kForward8, kForward16, kGradients8 };
// Packs a matrix: for forward passes a block-quantised one as it is stored, for training any as 8-bit integers with one
// scale for 64 neighbours of a row, and its transpose likewise. A form whose rows are no multiple of 32 long is left
// out.
IntegerForms pack_for_integers(const tensor::Tensor& source, IntegerUse use, tensor::Allocator& allocator,
                               ThreadPool& threads);

}  // namespace instruct::ops
