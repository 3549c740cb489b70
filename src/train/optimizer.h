// AdamW over named parameters, with f32 weights whatever the compute dtype is, and moments in f32 or 8 bits.
//
// A weight computed with in bf16 is the upper half of its f32 number: the optimizer keeps the lower half beside it, so
// that no value is stored twice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/optimizer.h"

namespace instruct::train {

using autograd::Variable;
using tensor::Tensor;

// Moments of 8 bits: codes with an f32 scale a block (kernels/dynamic_code.h), but f32 for tensors of less than 4,096
// values, where they save nothing.
enum class Moments : std::uint8_t { kF32, k8Bit };
// Weights of fewer elements keep their moments as f32.
inline constexpr std::int64_t kLeast8Bit = 4096;

struct AdamwConfig {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;   // decoupled; never on vectors (norms, biases)
  double max_grad_norm = 1;  // 0: no clipping
  Moments moments = Moments::kF32;
};

// One trained tensor. The weight of `state` is the variable's own memory.
struct TrainedParameter {
  std::string name;
  Variable variable;
  ops::AdamwState state;

  void set_master(const Tensor& values);  // f32, of the same shape
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

  const AdamwConfig& config() const { return config_; }
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  std::vector<TrainedParameter>& parameters() { return parameters_; }
  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  // Without a step.
  void drop_gradients();
  std::int64_t parameter_count() const;
  // A weight in f32: a copy, where it lies in two halves.
  Tensor master(const TrainedParameter& parameter) const;

 private:
  AdamwConfig config_;
  tensor::Allocator& allocator_;
  std::vector<TrainedParameter> parameters_;
  std::int64_t steps_ = 0;
};

}  // namespace instruct::train
