#include "adapters/adapter_set.h"

#include <algorithm>

namespace instruct::adapters {
namespace {

// Copies `from` [N, R] to columns [first, first + R) of `to`.
void copy_columns(const Tensor& from, std::int64_t first, Tensor& to) {
  const std::int64_t element = tensor::bytes_of(to.dtype(), 1);
  for (std::int64_t n = 0; n < from.dim(0); ++n) {
    std::copy_n(from.raw() + n * from.row_stride() * element, from.dim(1) * element,
                to.raw() + (n * to.row_stride() + first) * element);
  }
}

// The branches of one layer; an adapter that leaves the layer alone has a part of rank 0.
ops::LowRank side_by_side(const std::vector<const LoraModule*>& modules, const nn::Linear& layer, DType dtype,
                          tensor::Allocator& allocator) {
  ops::LowRank branches;
  std::int64_t rank = 0;
  for (const LoraModule* module : modules) {
    branches.parts.push_back(
        {module != nullptr ? module->a.value() : Tensor::empty({0, layer.inputs()}, dtype, allocator),
         module != nullptr ? module->scale : 0.0F});
    rank += branches.parts.back().a.dim(0);
  }
  Tensor b = Tensor::empty({layer.outputs(), rank}, dtype, allocator);
  std::int64_t first = 0;
  for (const LoraModule* module : modules) {
    if (module == nullptr) continue;
    copy_columns(module->b.value(), first, b);
    first += module->b.value().dim(1);
  }
  branches.b = Variable(std::move(b));
  return branches;
}

}  // namespace

AdapterSet::AdapterSet(std::span<const LoraAdapter* const> adapters, std::span<nn::Linear* const> layers,
                       tensor::Allocator& allocator)
    : size_(static_cast<std::int32_t>(adapters.size())) {
  for (nn::Linear* layer : layers) {
    std::vector<const LoraModule*> modules;
    const LoraModule* any = nullptr;
    for (const LoraAdapter* adapter : adapters) {
      const auto found = std::find_if(adapter->modules().begin(), adapter->modules().end(),
                                      [&](const LoraModule& module) { return module.layer == layer; });
      modules.push_back(found == adapter->modules().end() ? nullptr : &*found);
      if (modules.back() != nullptr) any = modules.back();
    }
    layer->attach(nullptr);
    if (any == nullptr) continue;
    layers_.push_back(layer);
    layer->attach(
        std::make_shared<const ops::LowRank>(side_by_side(modules, *layer, any->a.value().dtype(), allocator)));
  }
}

AdapterSet::~AdapterSet() {
  for (nn::Linear* layer : layers_) layer->attach(nullptr);
}

}  // namespace instruct::adapters
