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

void KeyValueCache::keep(std::span<const tensor::KeyRange> ranges) {
  for (std::vector<Tensor>* of_layers : {&keys_, &values_}) {
    for (Tensor& rows : *of_layers) {
      std::int64_t to = 0;
      for (const tensor::KeyRange& range : ranges) {
        const std::int64_t count = range.end - range.begin;
        INSTRUCT_CHECK(range.begin >= to && range.end <= slots());
        if (count == 0) continue;
        const Tensor moved = rows.rows(range.begin, range.end);
        std::memmove(rows.rows(to, to + count).raw(), moved.raw(), static_cast<std::size_t>(moved.bytes()));
        to += count;
      }
    }
  }
}

}  // namespace instruct::nn
