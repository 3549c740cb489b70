// Products of activations with block-quantised weights on integers: packing, quantising, and cutting into tasks.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/integer_products.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/rounding.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::IntegerBlock;
using tensor::IntegerFormat;

constexpr std::int64_t kTaskBytes = std::int64_t{12} << 10;  // of weights: about a microsecond of reading from memory
constexpr std::int64_t kTaskRows = 96;                       // their integers stay in the second cache
constexpr std::int64_t kAlone = 16 * 1024;                   // activations that one thread quantises sooner than two

// Places one output's integers and scales in its panel.
class PanelWriter {
 public:
  PanelWriter(const IntegerFormat& format, std::int64_t output) : format_(format), output_(output) {}

  // Group `g` of the block, at `to`, where the group begins in the panel.
  void put(const IntegerBlock& block, std::size_t g, std::byte* to) const {
    put_number(block.scales[g], to);
    if (format_.has_minimum) put_number(block.minimums[g], to);
    const std::uint8_t* integers = block.integers + g * static_cast<std::size_t>(format_.group);
    to += output_ * 4;
    if (format_.bits == 4) {
      for (std::int64_t i = 0; i < format_.group; i += 8, to += 4 * kPanel) {
        std::uint64_t eight = 0;
        std::memcpy(&eight, integers + i, sizeof(eight));
        const auto four = static_cast<std::uint32_t>(eight | eight >> 28);  // the second four in the high halves
        std::memcpy(to, &four, sizeof(four));
      }
    } else {
      for (std::int64_t i = 0; i < format_.group; i += 4, to += 4 * kPanel) std::memcpy(to, integers + i, 4);
    }
  }

 private:
  void put_number(float number, std::byte*& to) const {
    if (format_.half_scales) {
      const tensor::Half half = tensor::to_half(number);
      std::memcpy(to + output_ * 2, &half, 2);
    } else {
      std::memcpy(to + output_ * 4, &number, 4);
    }
    to += kPanel * (format_.half_scales ? 2 : 4);
  }

  const IntegerFormat& format_;
  std::int64_t output_;
};

void pack_panel(const Tensor& weight, const IntegerFormat& format, std::int64_t first, std::byte* panel) {
  const tensor::DTypeInfo& layout = tensor::info(weight.dtype());
  const std::int64_t group_bytes = panel_block_bytes(format) / (kBlock / format.group);
  const std::int64_t groups = layout.block_elements / format.group;
  for (std::int64_t i = 0; i < std::min(kPanel, weight.dim(0) - first); ++i) {
    const PanelWriter writer(format, i);
    const std::byte* stored = weight.raw() + tensor::bytes_of(weight.dtype(), (first + i) * weight.row_stride());
    std::byte* to = panel;
    for (std::int64_t k = 0; k < weight.dim(1); k += layout.block_elements, stored += layout.block_bytes) {
      IntegerBlock block;
      format.read(reinterpret_cast<const std::uint8_t*>(stored), block);
      for (std::int64_t g = 0; g < groups; ++g, to += group_bytes) writer.put(block, static_cast<std::size_t>(g), to);
    }
  }
}

// Rows of x in groups: as many as go into one product, then powers of two for the rest.
struct RowGroup {
  std::int64_t first = 0;
  std::int64_t rows = 0;
};
std::vector<RowGroup> groups_of(std::int64_t rows, std::int64_t most) {
  std::vector<RowGroup> groups;
  std::int64_t first = 0;
  for (; rows - first >= most; first += most) groups.push_back({first, most});
  for (std::int64_t size = 64; size > 0; size /= 2) {
    for (; size < most && rows - first >= size; first += size) groups.push_back({first, size});
  }
  return groups;
}

// Activations as 8-bit integers, group after group.
class QuantisedRows {
 public:
  // `span` blocks share a scale.
  QuantisedRows(Stream& stream, const IntegerProducts& products, const Tensor& x, ActivationBits bits,
                std::int64_t span)
      : groups_(groups_of(x.dim(0), products.most_rows)),
        blocks_(x.dim(1) / kBlock),
        planes_(bits == ActivationBits::k8 ? 1 : 2) {
    storage_ = stream.allocator.allocate(x.dim(0) * row_bytes());
    const std::int64_t row_stride = tensor::bytes_of(x.dtype(), x.row_stride());
    const auto quantise = [&](std::int64_t g) {
      const RowGroup& group = groups_[static_cast<std::size_t>(g)];
      const GroupShape shape{.rows = group.rows, .blocks = blocks_, .span = span, .planes = planes_};
      for (std::int64_t r = 0; r < group.rows; ++r)
        products.quantise_row(x.raw() + (group.first + r) * row_stride, x.dtype(), shape, r, data(group));
    };
    const auto count = static_cast<std::int64_t>(groups_.size());
    if (x.elements() > kAlone) {
      stream.threads.run(count, quantise);
    } else {
      for (std::int64_t g = 0; g < count; ++g) quantise(g);
    }
  }

  const std::vector<RowGroup>& groups() const { return groups_; }
  std::int64_t blocks() const { return blocks_; }
  int planes() const { return planes_; }
  std::byte* data(const RowGroup& group) const { return storage_->data + group.first * row_bytes(); }

 private:
  std::int64_t row_bytes() const { return blocks_ * kRowBytes * planes_; }

  std::vector<RowGroup> groups_;
  std::int64_t blocks_;
  int planes_;
  std::shared_ptr<tensor::Storage> storage_;
};

// A product of low rank as f32: left [T, R], right [panels, R, kPanel].
struct LowPart {
  std::int64_t rank = 0;  // 0: there is none
  std::shared_ptr<tensor::Storage> storage;
  float* left = nullptr;
  float* right = nullptr;
};

template <typename Element>
float value_at(const Element* x, std::int64_t index) {
  if constexpr (std::is_same_v<Element, float>) {
    return x[index];
  } else {
    return tensor::to_float(x[index]);
  }
}

LowPart low_part(Stream& stream, const IntegerMatmul& product) {
  LowPart part;
  if (!product.low_a.defined()) return part;
  const Tensor& a = product.low_a;
  const Tensor& b = product.low_b;
  const std::int64_t rows = a.dim(0);
  const std::int64_t outputs = product.weight->outputs;
  part.rank = a.dim(1);
  part.storage = stream.allocator.allocate((rows + round_up(outputs, kPanel)) * part.rank * 4);
  part.left = reinterpret_cast<float*>(part.storage->data);
  part.right = part.left + rows * part.rank;
  const std::int64_t output_step = product.transpose_low_b == Transpose::kYes ? b.row_stride() : 1;
  const std::int64_t rank_step = product.transpose_low_b == Transpose::kYes ? 1 : b.row_stride();
  visit_dtype(a.dtype(), [&](auto type) {
    const auto* from_a = a.data<decltype(type)>();
    const auto* from_b = b.data<decltype(type)>();
    stream.threads.run_ranges(rows, kAlone / part.rank, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < part.rank; ++k)
          part.left[r * part.rank + k] = value_at(from_a, r * a.row_stride() + k);
      }
    });
    stream.threads.run_ranges(ceil_div(outputs, kPanel), kAlone / (kPanel * part.rank),
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t panel = begin; panel < end; ++panel) {
                                  float* to = part.right + panel * kPanel * part.rank;
                                  const std::int64_t count = std::min(kPanel, outputs - panel * kPanel);
                                  for (std::int64_t k = 0; k < part.rank; ++k, to += kPanel) {
                                    for (std::int64_t n = 0; n < kPanel; ++n) {
                                      const std::int64_t at = (panel * kPanel + n) * output_step + k * rank_step;
                                      to[n] = n < count ? value_at(from_b, at) : 0.0F;
                                    }
                                  }
                                }
                              });
  });
  return part;
}

// One product of several over the same rows.
class PreparedProduct {
 public:
  PreparedProduct(Stream& stream, const IntegerProducts& kernels, const IntegerMatmul& product)
      : kernels_(kernels), product_(product), result_(product.result), low_(low_part(stream, product)) {}

  std::int64_t panels() const { return product_.weight->data.dim(0); }
  std::int64_t panel_bytes() const { return product_.weight->data.dim(1); }
  // A group of rows times one panel.
  void run(const QuantisedRows& rows, const RowGroup& group, std::int64_t panel) {
    alignas(64) float sums[kMostGroupRows * kPanel];
    const DType dtype = result_.dtype();
    const std::int64_t element = tensor::info(dtype).block_bytes;
    const std::int64_t column = panel * kPanel;
    const std::int64_t columns = std::min(kPanel, result_.dim(1) - column);
    std::byte* y = result_.raw() + (group.first * result_.row_stride() + column) * element;
    const std::int64_t stride = result_.row_stride() * element;
    if (product_.accumulate == Accumulate::kYes) {
      kernels_.load_sums(y, dtype, group.rows, columns, stride, sums);
    } else {
      std::fill_n(sums, group.rows * kPanel, 0.0F);
    }
    if (low_.rank > 0) {
      kernels_.low_product(low_.left + group.first * low_.rank, low_.right + column * low_.rank, low_.rank, group.rows,
                           sums);
    }
    kernels_.panel_product(product_.weight->dtype, group.rows, rows.planes())(
        rows.data(group), product_.weight->data.raw() + panel * panel_bytes(), rows.blocks(), sums);
    kernels_.store_sums(sums, dtype, group.rows, columns, stride, y);
  }

 private:
  const IntegerProducts& kernels_;
  const IntegerMatmul& product_;
  Tensor result_;
  LowPart low_;
};

// Neighbouring panels of one product.
struct Chunk {
  std::size_t product = 0;
  std::int64_t first = 0, last = 0;
};
// Of about `bytes`.
std::vector<Chunk> chunks_of(const std::vector<PreparedProduct>& products, std::int64_t bytes) {
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const std::int64_t panels = products[i].panels();
    const std::int64_t step = std::max<std::int64_t>(1, bytes / products[i].panel_bytes());
    for (std::int64_t panel = 0; panel < panels; panel += step)
      chunks.push_back({i, panel, std::min(panels, panel + step)});
  }
  return chunks;
}

}  // namespace

bool has_integer_products(const CpuFeatures& features) {
  return integer_products(features) != nullptr;
}

const IntegerProducts* integer_products(const CpuFeatures& features) {
#if defined(__x86_64__)
  if (features.avx512_vnni) return &kVnniProducts;
  if (features.avx2) return &kAvx2Products;
#endif
  return nullptr;
}

IntegerWeight pack_integer_weight(Stream& stream, const Tensor& weight) {
  const IntegerFormat* format = tensor::integer_format(weight.dtype());
  INSTRUCT_CHECK(format != nullptr && weight.rank() == 2);
  const std::int64_t panel_bytes = panel_block_bytes(*format) * (weight.dim(1) / kBlock);
  const std::int64_t panels = ceil_div(weight.dim(0), kPanel);
  Tensor packed = Tensor::empty({panels, panel_bytes}, DType::kU8, stream.allocator);
  stream.threads.run(panels, [&](std::int64_t p) {
    std::byte* panel = packed.raw() + p * panel_bytes;
    if ((p + 1) * kPanel > weight.dim(0)) std::memset(panel, 0, static_cast<std::size_t>(panel_bytes));
    pack_panel(weight, *format, p * kPanel, panel);
  });
  return {weight.dtype(), weight.dim(0), weight.dim(1), packed};
}

IntegerWeight pack_scaled_integers(Stream& stream, const Tensor& integers, const Tensor& scales) {
  INSTRUCT_CHECK(integers.dtype() == DType::kI8 && integers.dim(1) % kBlock == 0);
  const std::int64_t depth = integers.dim(1);
  const std::int64_t panels = ceil_div(integers.dim(0), kPanel);
  const std::int64_t groups = scales.dim(1);
  Tensor packed = Tensor::zeros({panels, kPanel * (groups * 4 + depth)}, DType::kU8, stream.allocator);
  stream.threads.run(panels, [&](std::int64_t p) {
    std::byte* panel = packed.raw() + p * packed.dim(1);
    const std::int64_t count = std::min(kPanel, integers.dim(0) - p * kPanel);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::byte* row = integers.raw() + (p * kPanel + i) * integers.row_stride();
      const float* scale = scales.data<float>() + (p * kPanel + i) * groups;
      std::byte* to = panel + i * 4;
      for (std::int64_t k = 0; k < depth; k += 4, to += 4 * kPanel) {
        if (k % kScaledInputs == 0) {
          std::memcpy(to, scale++, 4);
          to += 4 * kPanel;
        }
        for (std::int64_t t = 0; t < 4; ++t) to[t] = row[k + t] ^ std::byte{0x80};  // from 128 on
      }
    }
  });
  return {DType::kI8, integers.dim(0), depth, packed};
}

void integer_matmul(Stream& stream, const Tensor& x, ActivationBits bits, std::span<const IntegerMatmul> products) {
  if (x.dim(0) == 0) return;
  const IntegerProducts& kernels = *products_of(stream).integers();
  const std::int64_t span = span_of(products.front().weight->dtype);
  for (const IntegerMatmul& product : products) INSTRUCT_CHECK(span_of(product.weight->dtype) == span);
  const QuantisedRows rows(stream, kernels, x, bits, span);
  std::vector<PreparedProduct> prepared;
  prepared.reserve(products.size());
  for (const IntegerMatmul& product : products) prepared.emplace_back(stream, kernels, product);
  const auto& groups = rows.groups();
  const std::int64_t groups_a_task = std::max<std::int64_t>(1, kTaskRows / kernels.most_rows);
  const auto count = static_cast<std::int64_t>(groups.size());
  const std::int64_t stretches = ceil_div(count, groups_a_task);
  const std::vector<Chunk> chunks = chunks_of(prepared, stretches * kTaskBytes);
  const auto chunk_count = static_cast<std::int64_t>(chunks.size());
  // All weights against one stretch of rows after another: the rows stay in the second cache, the weights in the third.
  stream.threads.run(chunk_count * stretches, [&](std::int64_t task) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(task % chunk_count)];
    const std::int64_t first = task / chunk_count * groups_a_task;
    for (std::int64_t panel = chunk.first; panel < chunk.last; ++panel) {
      for (std::int64_t g = first; g < std::min(count, first + groups_a_task); ++g)
        prepared[chunk.product].run(rows, groups[static_cast<std::size_t>(g)], panel);
    }
  });
}

}  // namespace instruct::kernels::cpu
