// LoRA: trained low-rank branches beside frozen linear layers (Hu et al., 2021).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nn/linear.h"

namespace instruct::adapters {

using autograd::Variable;
using tensor::DType;
using tensor::Tensor;

struct LoraConfig {
  std::int64_t rank = 16;
  double alpha = 32;
  double dropout = 0;
  bool rank_stabilised = false;             // scale alpha/sqrt(r) instead of alpha/r (rsLoRA)
  std::vector<std::string> target_modules;  // last parts of module names ("q_proj"), or "all-linear"
  // Module suffix to its own rank or alpha; the first that names a module counts, as in PEFT.
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  std::int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  // What multiplies the branch.
  double scale_of(const std::string& module) const;
};

// One adapted module. A and B are the compute copies in the branch's dtype; trained masters live with the optimizer.
struct LoraModule {
  std::string name;  // module path
  nn::Linear* layer = nullptr;
  Variable a;  // [R, K]
  Variable b;  // [N, R]
  float scale = 1.0F;
  std::shared_ptr<const ops::LowRank> branch = {};  // on the layer, unless another took its place
};

// The set of branches attached to a model's layers. Detaches itself when destroyed.
class LoraAdapter {
 public:
  // Fresh: A from U(-1/sqrt(K), 1/sqrt(K)) (Kaiming uniform with a = sqrt(5), as PEFT), B zero. Raises InvalidArgument
  // when a target matches no layer, naming the nearest.
  static std::unique_ptr<LoraAdapter> create(const LoraConfig& config, std::span<nn::Linear* const> layers, DType dtype,
                                             std::uint64_t seed, tensor::Allocator& allocator);
  // From stored tensors: name -> (A [R, K], B [N, R], f32). Raises NotFound or InvalidArgument, naming module and
  // shapes, when they do not fit the model.
  struct Weights {
    std::string module;
    Tensor a;
    Tensor b;
  };
  static std::unique_ptr<LoraAdapter> load(const LoraConfig& config, std::span<const Weights> weights,
                                           std::span<nn::Linear* const> layers, DType dtype,
                                           tensor::Allocator& allocator);
  ~LoraAdapter();
  LoraAdapter(const LoraAdapter&) = delete;
  LoraAdapter& operator=(const LoraAdapter&) = delete;

  const LoraConfig& config() const { return config_; }
  std::span<LoraModule> modules() { return modules_; }
  std::span<const LoraModule> modules() const { return modules_; }
  // Puts the branches on their layers, with a dropout stream for this step (dropout acts only while recording).
  void attach(std::uint64_t seed, std::uint64_t step);
  void detach();

 private:
  LoraAdapter(LoraConfig config, std::vector<LoraModule> modules);
  LoraConfig config_;
  std::vector<LoraModule> modules_;
};

// Modules of `layers` that the targets name. "all-linear" is every layer but the output head and the
// experts and routers of a mixture, which PEFT's does not take either where transformers keeps them as parameters.
std::vector<nn::Linear*> match_targets(std::span<const std::string> targets, std::span<nn::Linear* const> layers);

// weight + scale * B A in f32, for merging: weight [N, K] f32 is changed in place.
void merge_low_rank(const Tensor& a, const Tensor& b, float scale, Tensor& weight);

}  // namespace instruct::adapters
