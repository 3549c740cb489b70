#include "nn/key_value_cache.h"

#include <cstring>

#include "base/error.h"
#include "ops/attention.h"

namespace instruct::nn {

using tensor::Tensor;

KeyValueCache::KeyValueCache(std::int64_t layers, std::int64_t slots, std::int64_t heads, std::int64_t head_width,
                             tensor::DType dtype, tensor::Allocator& allocator)
    : head_width_(head_width) {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    keys_.push_back(ops::make_head_rows(slots, heads, head_width, dtype, allocator));
    values_.push_back(ops::make_head_rows(slots, heads, head_width, dtype, allocator));
  }
}

std::int64_t KeyValueCache::bytes_per_slot() const {
  const Tensor& keys = keys_.front();
  return 2 * static_cast<std::int64_t>(keys_.size()) * tensor::bytes_of(keys.dtype(), keys.dim(1));
}

void KeyValueCache::store(const ops::Context& context, std::int64_t layer, std::span<const std::int32_t> slots,
                          const Tensor& keys, const Tensor& values) {
  const auto index = static_cast<std::size_t>(layer);
  ops::store_heads(context, keys, slots, head_width_, keys_[index]);
  ops::store_heads(context, values, slots, head_width_, values_[index]);
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
