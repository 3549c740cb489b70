#include "nn/key_value_cache.h"

#include <cstring>

#include "base/error.h"

namespace instruct::nn {

using tensor::Tensor;

KeyValueCache::KeyValueCache(std::int64_t layers, std::int64_t slots, std::int64_t width, tensor::DType dtype,
                             tensor::Allocator& allocator) {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    keys_.push_back(Tensor::empty({slots, width}, dtype, allocator));
    values_.push_back(Tensor::empty({slots, width}, dtype, allocator));
  }
}

std::int64_t KeyValueCache::bytes_per_slot() const {
  const Tensor& keys = keys_.front();
  return 2 * static_cast<std::int64_t>(keys_.size()) * tensor::bytes_of(keys.dtype(), keys.dim(1));
}

void KeyValueCache::store(std::int64_t layer, std::span<const std::int32_t> slots, const Tensor& keys,
                          const Tensor& values) {
  const auto index = static_cast<std::size_t>(layer);
  const auto bytes = static_cast<std::size_t>(tensor::bytes_of(keys.dtype(), keys.dim(1)));
  for (std::size_t t = 0; t < slots.size(); ++t) {
    INSTRUCT_CHECK(slots[t] >= 0 && slots[t] < this->slots());
    const auto row = static_cast<std::int64_t>(t);
    std::memcpy(keys_[index].rows(slots[t], slots[t] + 1).raw(), keys.rows(row, row + 1).raw(), bytes);
    std::memcpy(values_[index].rows(slots[t], slots[t] + 1).raw(), values.rows(row, row + 1).raw(), bytes);
  }
}

}  // namespace instruct::nn
