#include "models/export.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "base/error.h"
#include "models/export_parts.h"
#include "models/sources.h"
#include "ops/weights.h"
#include "tensor/block_codec.h"

namespace instruct::models {

using tensor::DType;

namespace {

// Values encoded at a time: a multiple of every block, and enough to be worth handing to a thread.
constexpr std::int64_t kValues = 1 << 16;

// Scales of block-quantised types are half-precision numbers too.
float largest_in(DType dtype) {
  if (dtype == DType::kF32) return std::numeric_limits<float>::max();
  return dtype == DType::kBF16 ? to_float(tensor::BFloat16{0x7F7F}) : 65504.0F;
}

// Adds to a weight what the adapter's branch beside its layer does.
void merge(const LoadedAdapter* adapter, const std::string& name, Tensor& weight) {
  if (adapter == nullptr || adapter->adapter == nullptr) return;
  const auto modules = adapter->adapter->modules();
  for (std::size_t i = 0; i < modules.size(); ++i) {
    if (modules[i].name + ".weight" == name)
      adapters::merge_low_rank(adapter->masters[i].first, adapter->masters[i].second, modules[i].scale, weight);
  }
}

}  // namespace

Tensor encoded_weight(const std::string& name, const Tensor& f32, DType dtype, tensor::Allocator& allocator,
                      ThreadPool& threads) {
  Tensor result = dtype == DType::kF32 ? f32 : Tensor::empty(f32.shape(), dtype, allocator);
  const float most = largest_in(dtype);
  threads.run_ranges(f32.elements(), kValues, [&](std::int64_t begin, std::int64_t end) {
    const std::span values(f32.data<float>() + begin, static_cast<std::size_t>(end - begin));
    const auto bad =
        std::find_if(values.begin(), values.end(), [most](float value) { return !(std::abs(value) <= most); });
    if (bad != values.end()) {
      raise(ErrorCategory::kNumeric, "weight '{}' has the value {}, which {} cannot hold{}", name, *bad,
            tensor::info(dtype).name, std::isfinite(*bad) ? ": use bf16 or f32" : "");
    }
    if (dtype != DType::kF32) tensor::encode_elements(dtype, values, result.raw() + tensor::bytes_of(dtype, begin));
  });
  return result;
}

WeightLookup merged_weights(const Package& package, const LoadedAdapter* adapter, ops::Engine& engine) {
  // The stored weights themselves, not the compute copies: a bf16 session must not round an f32 model.
  std::shared_ptr<WeightSource> source;
  if (package.gguf != nullptr) {
    source = make_gguf_source(package);
  } else {
    source = package.seq2seq ? make_folder_source(package.path, kHeadlessPrefix)
                             : make_folder_source(package.path, package.config);
  }
  return [source, adapter, &engine](const std::string& name) {
    Tensor weight = ops::converted_copy(source->get(name), DType::kF32, engine.allocator(), engine.threads());
    merge(adapter, name, weight);
    return weight;
  };
}

WeightLookup merged_weights(const TextModel& model, const LoadedAdapter* adapter, ops::Engine& engine) {
  auto index = std::make_shared<std::map<std::string, Tensor>>();
  for (const NamedWeight& weight : model.weights()) index->emplace(weight.name, weight.variable.value());
  return [index, adapter, &engine](const std::string& name) {
    Tensor weight = ops::converted_copy(index->at(name), DType::kF32, engine.allocator(), engine.threads());
    merge(adapter, name, weight);
    return weight;
  };
}

void set_stored_type(Value& config, DType dtype) {
  const char* name = dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
  config.set("torch_dtype", name);
  if (config.find("dtype") != nullptr) config.set("dtype", name);  // newer folders; it wins over the other
}

}  // namespace instruct::models
