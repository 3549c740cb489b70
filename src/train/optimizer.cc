#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace instruct::train {

using tensor::DType;

namespace {

void add_moments(ops::AdamwState& state, Moments moments, tensor::Allocator& allocator) {
  const tensor::Shape& shape = state.weight.shape();
  const bool coded = moments == Moments::k8Bit && shape.elements() >= kLeast8Bit;
  const std::int64_t blocks = (shape.elements() + kernels::kMomentBlock - 1) / kernels::kMomentBlock;
  for (auto [moment, scale] : {std::pair{&state.first, &state.first_scale}, {&state.second, &state.second_scale}}) {
    *moment = Tensor::zeros(shape, coded ? DType::kU8 : DType::kF32, allocator);
    if (coded) *scale = Tensor::zeros({blocks}, DType::kF32, allocator);
  }
}

}  // namespace

void TrainedParameter::set_master(const Tensor& values) {
  const auto* from = values.data<float>();
  if (!state.lower.defined()) {
    std::copy_n(from, values.elements(), state.weight.data<float>());
    return;
  }
  for (std::int64_t i = 0; i < values.elements(); ++i) {
    const tensor::SplitFloat halves = tensor::split(from[i]);
    state.weight.data<tensor::BFloat16>()[i] = halves.upper;
    state.lower.data<std::uint16_t>()[i] = halves.lower;
  }
}

Optimizer::Optimizer(const AdamwConfig& config, std::vector<Named> parameters, tensor::Allocator& allocator)
    : config_(config), allocator_(allocator) {
  for (Named& named : parameters) {
    TrainedParameter parameter{.name = std::move(named.name), .variable = named.variable, .state = {}};
    parameter.state.weight = named.variable.value();
    const tensor::Shape& shape = parameter.state.weight.shape();
    if (parameter.state.weight.dtype() != DType::kF32) {
      parameter.state.lower = Tensor::zeros(shape, DType::kU16, allocator);
      if (named.master.defined()) parameter.set_master(named.master);
    }
    add_moments(parameter.state, config.moments, allocator);
    parameters_.push_back(std::move(parameter));
  }
}

double Optimizer::gradient_norm(const ops::Context& context) const {
  double sum = 0;
  for (const TrainedParameter& parameter : parameters_) {
    if (parameter.variable.gradient().defined()) sum += ops::sum_of_squares(context, parameter.variable.gradient());
  }
  return std::sqrt(sum);
}

void Optimizer::step(const ops::Context& context, double learning_rate, double norm) {
  ++steps_;
  ops::AdamwStep step{.learning_rate = static_cast<float>(learning_rate),
                      .beta1 = static_cast<float>(config_.beta1),
                      .beta2 = static_cast<float>(config_.beta2),
                      .epsilon = static_cast<float>(config_.epsilon),
                      .weight_decay = 0,
                      .step = steps_,
                      .gradient_scale = 1.0F};
  // As torch.nn.utils.clip_grad_norm_.
  if (config_.max_grad_norm > 0) {
    step.gradient_scale = static_cast<float>(std::min(1.0, config_.max_grad_norm / (norm + 1e-6)));
  }
  for (TrainedParameter& parameter : parameters_) {
    Tensor& gradient = parameter.variable.mutable_gradient();
    if (!gradient.defined()) continue;
    step.weight_decay = gradient.rank() > 1 ? static_cast<float>(config_.weight_decay) : 0.0F;
    ops::adamw(context, step, gradient, parameter.state);
    gradient = Tensor();
  }
}

void Optimizer::drop_gradients() {
  for (TrainedParameter& parameter : parameters_) parameter.variable.mutable_gradient() = Tensor();
}

std::int64_t Optimizer::parameter_count() const {
  std::int64_t count = 0;
  for (const TrainedParameter& parameter : parameters_) count += parameter.state.weight.elements();
  return count;
}

Tensor Optimizer::master(const TrainedParameter& parameter) const {
  const ops::AdamwState& state = parameter.state;
  if (!state.lower.defined()) return state.weight;
  Tensor values = Tensor::empty(state.weight.shape(), DType::kF32, allocator_);
  const auto* upper = state.weight.data<tensor::BFloat16>();
  const auto* lower = state.lower.data<std::uint16_t>();
  for (std::int64_t i = 0; i < values.elements(); ++i) values.data<float>()[i] = tensor::join({upper[i], lower[i]});
  return values;
}

}  // namespace instruct::train
