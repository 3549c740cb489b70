// Weights of a model in the form its options ask for.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "base/threads.h"
#include "models/weight_source.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "ops/weights.h"

namespace instruct::models {

using autograd::Variable;
using tensor::DType;
using tensor::Tensor;

// How weights are held in memory.
struct WeightOptions {
  DType dtype = DType::kF32;    // of activations and of converted weights: f32 or bf16
  bool keep_quantised = false;  // leave block-quantised matrices as they are and convert by tile in each product
  bool trainable = false;       // every weight gets a gradient (full tuning); implies private, converted copies
  // Matrices packed for products on integers, where the processor has them: quantised ones for forward passes
  // alone, all for training over a frozen base.
  ops::IntegerUse integers = ops::IntegerUse::kNone;
  int threads = 0;  // that convert and pack; 0 takes all processors
};

// Reads by Hugging Face names, checking shapes. Raises BadData for a tensor of another shape than the configuration
// says, and what the source raises for one that is missing.
class WeightLoader {
 public:
  WeightLoader(const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator)
      : source_(source), options_(options), allocator_(allocator), threads_(options.threads) {}

  Variable matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  // A small one that is computed with as f32.
  Variable plain_matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  // Norm weights and biases: always f32.
  Variable vector(const std::string& name, std::int64_t size);
  nn::Linear linear(const std::string& name, std::int64_t outputs, std::int64_t inputs, bool bias);
  // One that does not compute itself: cut() makes those of its rows, one after the other, that do. It stays where it
  // is.
  nn::Linear whole(const std::string& name, std::int64_t outputs, std::int64_t inputs, bool bias);
  void cut(nn::Linear& whole, std::initializer_list<std::pair<nn::Linear*, std::int64_t>> sections);
  // name.weight and, where it has one, name.bias; by their older names gamma and beta where they are stored so.
  nn::LayerNorm norm(const std::string& name, std::int64_t width, bool bias, float epsilon);
  ops::IntegerForms packed(const Variable& weight);
  // What is computed with the file's own bytes had better stay in memory.
  bool kept() const { return kept_; }

 private:
  Tensor get(const std::string& name, const tensor::Shape& shape);
  bool packs(const Tensor& stored) const;
  Variable variable(Tensor value) const;

  const WeightSource& source_;
  const WeightOptions& options_;
  tensor::Allocator& allocator_;
  ThreadPool threads_;
  bool integers_ = ops::has_integer_products();
  bool kept_ = false;
};

// A weight with its Hugging Face name.
struct NamedWeight {
  std::string name;
  Variable variable;
};
// Adds the layer's weight, and its bias where it has one.
void add_weights(const nn::Linear& layer, std::vector<NamedWeight>& weights);
void add_weights(const std::string& name, const nn::LayerNorm& norm, std::vector<NamedWeight>& weights);
// SHA-256 over the weights of norms: those of one axis that are no biases.
std::string fingerprint_of_norms(const std::vector<NamedWeight>& weights);

}  // namespace instruct::models
