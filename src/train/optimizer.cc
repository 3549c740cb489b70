#include "train/optimizer.h"

#include <cmath>

namespace instruct::train {

using tensor::DType;

Optimizer::Optimizer(const AdamwConfig& config, std::vector<Named> parameters, tensor::Allocator& allocator)
    : config_(config) {
  for (Named& named : parameters) {
    const Tensor& value = named.variable.value();
    TrainedParameter parameter{.name = std::move(named.name),
                               .variable = named.variable,
                               .master = named.master,
                               .first_moment = Tensor::zeros(value.shape(), DType::kF32, allocator),
                               .second_moment = Tensor::zeros(value.shape(), DType::kF32, allocator)};
    if (value.dtype() == DType::kF32) {
      parameter.master = value;
    } else if (!parameter.master.defined()) {
      parameter.master = Tensor::from_floats(value.to_floats(), value.shape(), allocator);
    }
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
    Tensor copy;
    if (parameter.variable.value().dtype() != DType::kF32) copy = parameter.variable.value();
    ops::adamw(context, step, gradient, parameter.master, parameter.first_moment, parameter.second_moment, copy);
    gradient = Tensor();
  }
}

std::int64_t Optimizer::parameter_count() const {
  std::int64_t count = 0;
  for (const TrainedParameter& parameter : parameters_) count += parameter.master.elements();
  return count;
}

void Optimizer::refresh_copies(const ops::Context& context) {
  for (TrainedParameter& parameter : parameters_) {
    if (parameter.variable.value().dtype() == DType::kF32) continue;
    ops::convert(context, parameter.master, parameter.variable.mutable_value());
  }
}

}  // namespace instruct::train
