#include "models/weight_loader.h"

#include "base/error.h"
#include "base/hash.h"

namespace instruct::models {

Variable WeightLoader::matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
  const Tensor stored = get(name, tensor::Shape{rows, columns});
  const bool quantised = tensor::is_quantised(stored.dtype());
  const bool keep = !options_.trainable &&
                    (stored.dtype() == options_.dtype || packs(stored) || (quantised && options_.keep_quantised));
  kept_ = kept_ || (keep && !packs(stored));
  return variable(keep ? stored : ops::converted_copy(stored, options_.dtype, allocator_, threads_));
}

Variable WeightLoader::plain_matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
  const Tensor stored = get(name, tensor::Shape{rows, columns});
  return variable(ops::converted_copy(stored, DType::kF32, allocator_, threads_));
}

Variable WeightLoader::vector(const std::string& name, std::int64_t size) {
  return variable(ops::converted_copy(get(name, tensor::Shape{size}), DType::kF32, allocator_, threads_));
}

nn::Linear WeightLoader::linear(const std::string& name, std::int64_t outputs, std::int64_t inputs, bool bias) {
  nn::Linear layer = whole(name, outputs, inputs, bias);
  layer.integer = packed(layer.weight);
  return layer;
}

nn::Linear WeightLoader::whole(const std::string& name, std::int64_t outputs, std::int64_t inputs, bool bias) {
  nn::Linear layer{.name = name, .weight = matrix(name + ".weight", outputs, inputs)};
  if (bias) layer.bias = vector(name + ".bias", outputs);
  return layer;
}

void WeightLoader::cut(nn::Linear& whole, std::initializer_list<std::pair<nn::Linear*, std::int64_t>> sections) {
  std::int64_t begin = 0;
  for (const auto& [section, rows] : sections) {
    *section = {.name = whole.name, .weight = whole.weight.rows(begin, begin + rows)};
    section->integer = packed(section->weight);
    if (whole.bias.defined()) section->bias = whole.bias.rows(begin, begin + rows);
    whole.sections.push_back(section);
    begin += rows;
  }
}

nn::LayerNorm WeightLoader::norm(const std::string& name, std::int64_t width, bool bias, float epsilon) {
  const bool older = !source_.has(name + ".weight") && source_.has(name + ".gamma");
  nn::LayerNorm norm{.weight = vector(name + (older ? ".gamma" : ".weight"), width), .epsilon = epsilon};
  if (bias) norm.bias = vector(name + (older ? ".beta" : ".bias"), width);
  return norm;
}

ops::IntegerForms WeightLoader::packed(const Variable& weight) {
  if (!packs(weight.value())) return {};
  return ops::pack_for_integers(weight.value(), options_.integers, allocator_, threads_);
}

Tensor WeightLoader::get(const std::string& name, const tensor::Shape& shape) {
  Tensor stored = source_.get(name);
  if (!(stored.shape() == shape)) {
    raise(ErrorCategory::kBadData, "{}: tensor '{}' is {}, the configuration says {}", source_.origin(), name,
          stored.shape().text(), shape.text());
  }
  return stored;
}

bool WeightLoader::packs(const Tensor& stored) const {
  if (options_.trainable || !integers_) return false;
  if (options_.integers == ops::IntegerUse::kNone) return false;
  return options_.integers == ops::IntegerUse::kGradients8 || tensor::is_quantised(stored.dtype());
}

Variable WeightLoader::variable(Tensor value) const {
  return options_.trainable ? Variable::parameter(std::move(value)) : Variable(std::move(value));
}

void add_weights(const nn::Linear& layer, std::vector<NamedWeight>& weights) {
  weights.push_back({layer.name + ".weight", layer.weight});
  if (layer.bias.defined()) weights.push_back({layer.name + ".bias", layer.bias});
}

void add_weights(const std::string& name, const nn::LayerNorm& norm, std::vector<NamedWeight>& weights) {
  weights.push_back({name + ".weight", norm.weight});
  if (norm.bias.defined()) weights.push_back({name + ".bias", norm.bias});
}

std::string fingerprint_of_norms(const std::vector<NamedWeight>& weights) {
  std::string bytes;
  for (const NamedWeight& weight : weights) {
    if (weight.variable.value().rank() != 1 || !weight.name.ends_with(".weight")) continue;
    for (const float value : weight.variable.value().to_floats())
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return sha256_hex(bytes);
}

}  // namespace instruct::models
