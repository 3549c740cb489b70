// Matrix products through oneDNN, tiled by size over the pool (see products.h).
#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_matmul.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

dnnl::memory::data_type vendor_type(DType dtype) {
  return dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// oneDNN asks OpenMP how many threads to use, when it compiles and when it runs: one, for this thread only.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc describe(std::int64_t rows, std::int64_t columns, std::int64_t stride, Transpose transpose,
                            DType dtype) {
  const dnnl::memory::dims strides =
      transpose == Transpose::kYes ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  return {dnnl::memory::dims{rows, columns}, vendor_type(dtype), strides};
}

// Scratch of the running thread, grown as needed and kept. Tiles are small (a few MB at the most).
void* thread_scratch(std::size_t bytes) {
  struct Block {
    std::unique_ptr<std::byte[]> bytes;
    std::size_t size = 0;
  };
  thread_local Block block;
  if (block.size < bytes + 64) {
    block.bytes = std::make_unique_for_overwrite<std::byte[]>(bytes + 64);
    block.size = bytes + 64;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(block.bytes.get());
  return block.bytes.get() + ((64 - address % 64) % 64);
}

class DnnlProduct final : public Product {
 public:
  explicit DnnlProduct(const ProductKey& key) {
    const OneThread guard;
    a_ = describe(key.m, key.k, key.stride_a, key.transpose_a, key.input);
    b_ = describe(key.k, key.n, key.stride_b, key.transpose_b, key.input);
    c_ = describe(key.m, key.n, key.stride_c, Transpose::kNo, key.output);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.alpha != 1.0F) attributes.set_output_scales(0, {key.alpha});
    if (key.accumulate == Accumulate::kYes) {
      dnnl::post_ops sum;
      sum.append_sum(1.0F);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc descriptor(dnnl::matmul::desc(a_, b_, c_), attributes, cpu_engine());
    scratch_ = descriptor.scratchpad_desc();
    primitive_ = dnnl::matmul(descriptor);
  }

  void run(const void* a, const void* b, void* c) const override {
    const OneThread guard;
    thread_local dnnl::stream stream(cpu_engine());
    const auto& engine = cpu_engine();
    primitive_.execute(stream,
                       {{DNNL_ARG_SRC, dnnl::memory(a_, engine, const_cast<void*>(a))},
                        {DNNL_ARG_WEIGHTS, dnnl::memory(b_, engine, const_cast<void*>(b))},
                        {DNNL_ARG_DST, dnnl::memory(c_, engine, c)},
                        {DNNL_ARG_SCRATCHPAD, dnnl::memory(scratch_, engine, thread_scratch(scratch_.get_size()))}});
  }

 private:
  dnnl::memory::desc a_, b_, c_, scratch_;
  dnnl::matmul primitive_;
};

// How many pieces to cut a length into: the largest power of two that leaves at least `least` in each.
std::int64_t pieces(std::int64_t length, std::int64_t least, std::int64_t most) {
  std::int64_t count = 1;
  while (count * 2 <= most && length / (count * 2) >= least) count *= 2;
  return count;
}

// Length of a piece, rounded up to a multiple of 16 so that only the last one is odd.
std::int64_t piece_length(std::int64_t length, std::int64_t count) {
  const std::int64_t even = (length + count - 1) / count;
  return count == 1 ? length : std::min(length, (even + 15) / 16 * 16);
}

struct Tiling {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

// Tiles depend on the shape alone. Rows are cut first (a tile of at least 96 rows amortises reading b, one of 192 does
// so better by 7%, and is taken where 16 are left); columns only when that leaves fewer than 8 tiles, and never below
// 64 columns or about 64k multiply-adds.
Tiling choose_tiling(std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::int64_t row_pieces = pieces(m, m >= 16 * 192 ? 192 : 96, 64);
  std::int64_t column_pieces = 1;
  if (row_pieces < 8) {
    const std::int64_t work_pieces = std::max<std::int64_t>(1, m * n * k / (64 * 1024));
    column_pieces = pieces(n, 64, std::min<std::int64_t>(work_pieces, m >= 96 ? 8 / row_pieces : 64));
  }
  return {piece_length(m, row_pieces), piece_length(n, column_pieces)};
}

const std::byte* at(const Tensor& matrix, std::int64_t row, std::int64_t column) {
  return matrix.raw() + (row * matrix.row_stride() + column) * tensor::info(matrix.dtype()).block_bytes;
}

}  // namespace

std::size_t ProductKeyHash::operator()(const ProductKey& key) const {
  std::size_t hash = 0;
  const auto mix = [&hash](std::uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 29;
  };
  for (const std::int64_t value : {key.m, key.n, key.k, key.stride_a, key.stride_b, key.stride_c}) {
    mix(static_cast<std::uint64_t>(value));
  }
  mix(static_cast<std::uint64_t>(key.transpose_a) | static_cast<std::uint64_t>(key.transpose_b) << 8 |
      static_cast<std::uint64_t>(key.accumulate) << 16 | static_cast<std::uint64_t>(key.input) << 24 |
      static_cast<std::uint64_t>(key.output) << 32);
  mix(std::bit_cast<std::uint32_t>(key.alpha));
  return hash;
}

const Product& Products::get(const ProductKey& key) {
  const std::lock_guard lock(mutex_);
  auto& slot = products_[key];
  if (slot == nullptr) {
    try {
      slot = std::make_unique<DnnlProduct>(key);
    } catch (const dnnl::error& error) {
      products_.erase(key);
      raise(ErrorCategory::kInternal, "oneDNN matmul [{}, {}] x [{}, {}], {} to {}: {}", key.m, key.k, key.k, key.n,
            tensor::info(key.input).name, tensor::info(key.output).name, error.what());
    }
  }
  return *slot;
}

tiles::Unit tile_unit(const CpuFeatures& features) {
  if (features.amx_bf16) return tiles::Unit::kAmx;
  return features.avx512_bf16 ? tiles::Unit::kRegisters : tiles::Unit::kNone;
}

Products& products_of(Stream& stream) {
  INSTRUCT_CHECK(stream.products != nullptr);
  return static_cast<Products&>(*stream.products);
}

std::unique_ptr<ProductCache> make_product_cache(const CpuFeatures& features) {
  return std::make_unique<Products>(features);
}

namespace {

// A product with a second one of low rank as two products.
void multiply_low_apart(Stream& stream, const Matmul& product) {
  Matmul part = product;
  part.low_a = Tensor();
  part.low_b = Tensor();
  matmul(stream, part);
  part.a = product.low_a;
  part.b = product.low_b;
  part.accumulate = Accumulate::kYes;
  matmul(stream, part);
}

}  // namespace

void matmul(Stream& stream, const Matmul& product) {
  const std::int64_t m = product.c.dim(0);
  const std::int64_t n = product.c.dim(1);
  const std::int64_t k = product.transpose_a == Transpose::kYes ? product.a.dim(0) : product.a.dim(1);
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (product.accumulate == Accumulate::kNo) {
      for (std::int64_t row = 0; row < m; ++row) product.c.rows(row, row + 1).fill_zero();
    }
    return;
  }
  const tiles::Unit unit = products_of(stream).tiles();
  if (suits_few_rows(product, unit)) {
    few_rows_matmul(stream, product);
    return;
  }
  if (unit != tiles::Unit::kNone && suits_tiles(product)) {
    tile_matmul(stream, product);
    return;
  }
  if (product.low_a.defined()) {
    multiply_low_apart(stream, product);
    return;
  }
  const Tiling tiling = choose_tiling(m, n, k);
  const std::int64_t row_tiles = (m + tiling.rows - 1) / tiling.rows;
  const std::int64_t column_tiles = (n + tiling.columns - 1) / tiling.columns;
  ProductKey key{.m = 0,
                 .n = 0,
                 .k = k,
                 .stride_a = product.a.row_stride(),
                 .stride_b = product.b.row_stride(),
                 .stride_c = product.c.row_stride(),
                 .transpose_a = product.transpose_a,
                 .transpose_b = product.transpose_b,
                 .accumulate = product.accumulate,
                 .input = product.a.dtype(),
                 .output = product.c.dtype(),
                 .alpha = product.alpha};
  // At most four different tiles: inner, right edge, bottom edge, corner. Compiled before the threads start.
  const Product* compiled[2][2] = {};
  Products& cache = products_of(stream);
  for (int bottom = 0; bottom < 2; ++bottom) {
    for (int right = 0; right < 2; ++right) {
      key.m = bottom != 0 ? m - (row_tiles - 1) * tiling.rows : tiling.rows;
      key.n = right != 0 ? n - (column_tiles - 1) * tiling.columns : tiling.columns;
      if ((bottom == 0 && row_tiles == 1) || (right == 0 && column_tiles == 1)) continue;
      compiled[bottom][right] = &cache.get(key);
    }
  }
  Tensor c = product.c;
  stream.threads.run(row_tiles * column_tiles, [&](std::int64_t task) {
    const std::int64_t row = task / column_tiles;
    const std::int64_t column = task % column_tiles;
    const std::int64_t i = row * tiling.rows;
    const std::int64_t j = column * tiling.columns;
    const Product& tile = *compiled[row == row_tiles - 1 ? 1 : 0][column == column_tiles - 1 ? 1 : 0];
    tile.run(product.transpose_a == Transpose::kYes ? at(product.a, 0, i) : at(product.a, i, 0),
             product.transpose_b == Transpose::kYes ? at(product.b, j, 0) : at(product.b, 0, j),
             const_cast<std::byte*>(at(c, i, j)));
  });
}

}  // namespace instruct::kernels::cpu
