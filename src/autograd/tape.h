// Variables and the tape: what was computed, and how to go back through it. Knows no operation.
//
// An operation computes its output, and when a gradient will be wanted records a closure that reads the output's
// gradient and adds to those of its inputs. backward() runs the closures newest first and drops each one, with the
// activations it kept, as soon as it ran.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "tensor/tensor.h"

namespace instruct::autograd {

using tensor::Tensor;

// A shared handle to a value and its gradient. Copies refer to the same variable.
class Variable {
 public:
  Variable() = default;
  // An intermediate or constant value. Wanting a gradient is decided by the operation that made it.
  explicit Variable(Tensor value, bool requires_gradient = false)
      : state_(std::make_shared<State>(
            State{value.shape(), value.dtype(), std::move(value), {}, {}, requires_gradient, false})) {}
  // A trained value: its gradient is f32, kept between passes and added to (micro-batches accumulate).
  static Variable parameter(Tensor value) {
    Variable variable(std::move(value), true);
    variable.state_->accumulates = true;
    return variable;
  }

  // Rows [begin, end) of this variable as one of their own: they share its value, and what is added to their gradient
  // is added to the whole's. For constants and parameters: the value must stay where it is.
  Variable rows(std::int64_t begin, std::int64_t end) const {
    Variable view(value().rows(begin, end), requires_gradient());
    view.state_->accumulates = is_parameter();
    view.state_->whole = state_;
    view.state_->first_row = begin;
    return view;
  }
  // Of what rows() made: what it is a part of and where it begins there; else undefined.
  Variable whole() const { return Variable(state_->whole); }
  std::int64_t first_row() const { return state_->first_row; }

  bool defined() const { return state_ != nullptr; }
  // Undefined after forget() without a way to compute it again.
  const Tensor& value() const {
    if (!state_->value.defined() && state_->rebuild) state_->value = state_->rebuild();
    return state_->value;
  }
  // Those of the value, which may be forgotten.
  const tensor::Shape& shape() const { return state_->shape; }
  tensor::DType dtype() const { return state_->dtype; }
  Tensor& mutable_value() { return state_->value; }
  bool requires_gradient() const { return state_ != nullptr && state_->requires_gradient; }
  void set_requires_gradient(bool wanted) { state_->requires_gradient = wanted; }
  bool is_parameter() const { return state_ != nullptr && state_->accumulates; }
  // Drops the value once the forward pass is done with it: the backward pass does not read it, or computes it again
  // with `rebuild`, to the same bits, when it does.
  void forget(std::function<Tensor()> rebuild = {}) const {
    state_->value = Tensor();
    state_->rebuild = std::move(rebuild);
  }
  // Undefined until something was added.
  const Tensor& gradient() const { return state_->gradient; }
  Tensor& mutable_gradient() const { return state_->gradient; }

 private:
  struct State {
    tensor::Shape shape;
    tensor::DType dtype;
    Tensor value;
    Tensor gradient;
    std::function<Tensor()> rebuild = {};
    bool requires_gradient = false;
    bool accumulates = false;
    std::shared_ptr<State> whole = {};
    std::int64_t first_row = 0;
  };
  explicit Variable(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

class Tape {
 public:
  void record(std::function<void()> backward) { steps_.push_back(std::move(backward)); }
  // Runs and drops every step, newest first. The caller has set the gradient of what it starts from.
  void backward();
  void clear() { steps_.clear(); }
  std::size_t size() const { return steps_.size(); }

 private:
  std::vector<std::function<void()>> steps_;
};

}  // namespace instruct::autograd
