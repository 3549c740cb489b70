// Prepared oneDNN matrix products, one thread each. Internal to kernels/cpu.
//
// Every product here runs on the calling thread alone; matmul.cc and attention.cc cut their work into tiles by size and
// spread the tiles over the pool. Two reasons: the result then cannot depend on the number of threads, and a tile of
// 128 rows already reaches the speed of oneDNN's own threading (425-445 GFLOP/s for both on two AVX-512-bf16 cores).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "kernels/cpu/tiles.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

struct IntegerProducts;  // integer_products.h
// What this processor has of them; null when nothing.
const IntegerProducts* integer_products(const CpuFeatures& features);

// The better of what this processor has.
tiles::Unit tile_unit(const CpuFeatures& features);

// Shape and layout of one product c [m, n] = alpha * a [m, k] * b [k, n] (+ c). Strides are leading dimensions of the
// stored (not transposed) matrices.
struct ProductKey {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  Accumulate accumulate = Accumulate::kNo;
  tensor::DType input = tensor::DType::kF32;   // of a and b
  tensor::DType output = tensor::DType::kF32;  // of c
  float alpha = 1.0F;
  bool operator==(const ProductKey&) const = default;
};

struct ProductKeyHash {
  std::size_t operator()(const ProductKey& key) const;
};

// A compiled product; run() may be called from several threads at once.
class Product {
 public:
  virtual ~Product() = default;
  virtual void run(const void* a, const void* b, void* c) const = 0;
};

class Products : public ProductCache {
 public:
  explicit Products(const CpuFeatures& features) : tiles_(tile_unit(features)), integers_(integer_products(features)) {}
  // What bf16 products by tiles (tiles.h) run on, where they suit.
  tiles::Unit tiles() const { return tiles_; }
  // Products on 8-bit integers, or null.
  const IntegerProducts* integers() const { return integers_; }
  // Finds or compiles. The reference stays valid as long as the cache; raises Internal when oneDNN refuses.
  const Product& get(const ProductKey& key);

 private:
  tiles::Unit tiles_;
  const IntegerProducts* integers_;
  std::mutex mutex_;
  std::unordered_map<ProductKey, std::unique_ptr<Product>, ProductKeyHash> products_;
};

// The cache of a stream; the stream must have one.
Products& products_of(Stream& stream);

}  // namespace instruct::kernels::cpu
