// Keys and values of past tokens, per layer, addressed by slot.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/context.h"
#include "tensor/segments.h"

namespace instruct::nn {

// A slot holds one token's key and value in every layer. Which slots belong to which sequence is the caller's business
// (see generate/): attention reads them through the key ranges of a plan.
class KeyValueCache {
 public:
  // `heads` of `head_width` in each slot and layer, as f32, bf16 or 8-bit integers (ops::make_head_rows); of undefined
  // content until stored.
  KeyValueCache(std::int64_t layers, std::int64_t slots, std::int64_t heads, std::int64_t head_width,
                tensor::DType dtype, tensor::Allocator& allocator);

  std::int64_t slots() const { return keys_.front().dim(0); }
  // In all layers. Of memory that no slot was written to the system gives none, in pages.
  std::int64_t bytes_per_slot() const;
  // Copies keys and values [T, heads * head_width]: row t goes to slots[t]. Raises as ops::store_heads().
  void store(const ops::Context& context, std::int64_t layer, std::span<const std::int32_t> slots,
             const tensor::Tensor& keys, const tensor::Tensor& values);
  // Moves the slots of ascending ranges to the front, in order.
  void keep(std::span<const tensor::KeyRange> ranges);
  const tensor::Tensor& keys(std::int64_t layer) const { return keys_[static_cast<std::size_t>(layer)]; }
  const tensor::Tensor& values(std::int64_t layer) const { return values_[static_cast<std::size_t>(layer)]; }

 private:
  std::int64_t head_width_;
  std::vector<tensor::Tensor> keys_;
  std::vector<tensor::Tensor> values_;
};

}  // namespace instruct::nn
