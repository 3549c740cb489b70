// What every operation is given: where to run, whether to record, and helpers for gradients.
#pragma once

#include <cstdint>

#include "autograd/tape.h"
#include "kernels/stream.h"
#include "tensor/segments.h"

namespace instruct::ops {

using autograd::Tape;
using autograd::Variable;
using tensor::DType;
using tensor::Tensor;

// Which implementation of the kernels runs. kReference is the plain twin: slow, for tests and `--backend reference`.
enum class Backend : std::uint8_t { kCpu, kReference };

struct Context {
  kernels::Stream& stream;
  Tape* tape = nullptr;  // null: nothing is recorded, no gradient is wanted
  Backend backend = Backend::kCpu;

  tensor::Allocator& allocator() const { return stream.allocator; }
  bool records(std::initializer_list<const Variable*> inputs) const;
};

// Where an operation adds its contribution to the gradient of `variable`: a fresh tensor to overwrite, or the existing
// one to add to. Gradients of parameters are f32, of activations the activation's dtype.
struct GradientTarget {
  Tensor gradient;
  bool fresh = false;
};
GradientTarget gradient_target(const Context& context, const Variable& variable);

// Raises InvalidArgument naming operation and shapes when `condition` is false.
void require_shape(bool condition, const char* operation, const Tensor& a, const Tensor& b);

}  // namespace instruct::ops
