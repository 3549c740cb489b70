// AdamW over named parameters, with f32 masters and moments whatever the compute dtype is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/optimizer.h"

namespace instruct::train {

using autograd::Variable;
using tensor::Tensor;

struct AdamwConfig {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;   // decoupled; never on vectors (norms, biases)
  double max_grad_norm = 1;  // 0: no clipping
};

// One trained tensor. `master` is f32; when the compute copy is f32 they are the same memory.
struct TrainedParameter {
  std::string name;
  Variable variable;
  Tensor master;
  Tensor first_moment;
  Tensor second_moment;
};

class Optimizer {
 public:
  struct Named {
    std::string name;
    Variable variable;
    Tensor master;  // f32 values to start from; undefined: the variable's own value
  };
  Optimizer(const AdamwConfig& config, std::vector<Named> parameters, tensor::Allocator& allocator);

  // Norm of all gradients together, before clipping. Parameters without a gradient count as zero.
  double gradient_norm(const ops::Context& context) const;
  // One update with the gradients as they are, scaled down when `norm` exceeds max_grad_norm; then drops the gradients.
  void step(const ops::Context& context, double learning_rate, double norm);

  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  std::vector<TrainedParameter>& parameters() { return parameters_; }
  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  std::int64_t parameter_count() const;
  // Puts the masters into the compute copies (after loading a checkpoint).
  void refresh_copies(const ops::Context& context);

 private:
  AdamwConfig config_;
  std::vector<TrainedParameter> parameters_;
  std::int64_t steps_ = 0;
};

}  // namespace instruct::train
