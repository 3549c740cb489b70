// Several LoRA adapters side by side over one base: each row of a pass takes one of them (Sheng et al., "S-LoRA",
// 2023).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "adapters/lora.h"

namespace instruct::adapters {

// For forward passes that name an adapter a token (models::Pass::adapters). Detaches itself when destroyed.
class AdapterSet {
 public:
  // Takes the place of whatever is attached to the layers. The adapters' tensors are copied.
  AdapterSet(std::span<const LoraAdapter* const> adapters, std::span<nn::Linear* const> layers,
             tensor::Allocator& allocator);
  ~AdapterSet();
  AdapterSet(const AdapterSet&) = delete;
  AdapterSet& operator=(const AdapterSet&) = delete;

  std::int32_t size() const { return size_; }

 private:
  std::vector<nn::Linear*> layers_;  // with branches
  std::int32_t size_;
};

}  // namespace instruct::adapters
