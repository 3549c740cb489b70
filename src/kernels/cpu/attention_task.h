// What a task of attention works with: one query head, its gathered keys and values, and the products between them.
// Internal to kernels/cpu; attention.cc tells the idea.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_relative.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/rounding.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

using tensor::DType;
using tensor::KeyRange;
using tensor::QuerySegment;

inline constexpr std::int64_t kBlock = 64;  // queries a block

// Columns that are computed for a row of so many: whole blocks, or parts of the first one. Few enough that a few dozen
// compiled products serve every length.
inline std::int64_t padded_columns(std::int64_t columns) {
  return round_up(columns, columns < kBlock ? 16 : kBlock);
}

// A task's memory, cut from one allocation.
class Scratch {
 public:
  Scratch(Stream& stream, std::int64_t bytes) : storage_(stream.allocator.allocate(bytes)), left_(bytes) {}
  template <typename T = std::byte>
  T* take(std::int64_t bytes) {
    bytes = round_up(bytes, 64);
    INSTRUCT_CHECK(bytes <= left_);
    std::byte* result = storage_->data + used_;
    used_ += bytes;
    left_ -= bytes;
    return reinterpret_cast<T*>(result);
  }

 private:
  std::shared_ptr<tensor::Storage> storage_;
  std::int64_t used_ = 0;
  std::int64_t left_;
};

// What one task works with: one query head of one family or tree.
class HeadTask {
 public:
  HeadTask(Stream& stream, const AttentionArgs& args, std::int64_t head)
      : args_(args),
        products_(products_of(stream)),
        dtype_(args.query.dtype()),
        size_(tensor::info(dtype_).block_bytes),
        width_(args.head_width) {
    take_head(head);
  }

 protected:
  // From here on another query head.
  void take_head(std::int64_t head) {
    head_ = head;
    key_head_ = head / (args_.query.dim(1) / width_ / args_.key_heads());
  }
  // Memory for the keys or values of the head, [columns, width].
  std::int64_t gathered_bytes(std::int64_t columns) const { return columns * width_ * size_; }

  const std::byte* head_row(const Tensor& matrix, std::int64_t row, std::int64_t head) const {
    return matrix.raw() + (row * matrix.row_stride() + head * width_) * size_;
  }
  // Copies `count` rows of one head into a dense buffer.
  void gather(const Tensor& matrix, std::int64_t first, std::int64_t count, std::int64_t head,
              std::byte* target) const {
    copy_heads(matrix, first, count, head * head_columns(matrix.dtype(), width_), width_, dtype_, target);
  }
  // The keys or values that a family shares.
  void gather_visible(const Tensor& matrix, const std::vector<KeyRange>& ranges, std::byte* target) const {
    std::int64_t row = 0;
    for (const KeyRange& range : ranges) {
      gather(matrix, range.begin, range.end - range.begin, key_head_, target + row * width_ * size_);
      row += range.end - range.begin;
    }
  }
  // A segment's own behind the first `visible`, and zeros up to the end of the block.
  void gather_own(const Tensor& matrix, const QuerySegment& segment, std::int64_t visible, std::byte* target) const {
    const std::int64_t length = segment.own_keys();
    gather(matrix, segment.self_begin, length, key_head_, target + visible * width_ * size_);
    zero_rows(target, visible + length, padded_columns(visible + length));
  }
  void zero_rows(std::byte* buffer, std::int64_t first, std::int64_t last) const {
    std::memset(buffer + first * width_ * size_, 0, static_cast<std::size_t>((last - first) * width_ * size_));
  }
  // Columns that query `query` of a segment may see behind `visible` shared keys, in a row of `width` columns.
  RowSpan visible_columns(const QuerySegment& segment, std::int64_t visible, std::int64_t query,
                          std::int64_t width) const {
    const ColumnRange seen = seen_columns(segment, visible, query, args_.window);
    return {.begin = seen.begin, .end = seen.end, .width = width};
  }

  // Adds the bias of distances to a row of scores, of the query at `position` among its columns.
  void add_bias(const RowSpan& span, std::int64_t position, float* scores) const {
    if (args_.relative.defined()) add_relative(args_.relative, head_, position, span, scores);
  }

  // The product of one task over rows of `columns`: by short_product where these are few, else by oneDNN.
  void multiply(const ProductKey& key, std::int64_t columns, const std::byte* left, const std::byte* right,
                float* result) const;
  // result [rows, columns] (stride `stride`, f32) = alpha * left [rows, width] * keys [columns, width]^T.
  void against(const std::byte* left, const std::byte* keys, std::int64_t rows, std::int64_t columns,
               std::int64_t stride, float alpha, float* result) const;
  // result [rows, width] f32 = left [rows, columns] (stride `stride`) * values [columns, width].
  void times(const std::byte* left, const std::byte* values, std::int64_t rows, std::int64_t columns,
             std::int64_t stride, float* result) const;
  // result [columns, width] f32 += left [rows, columns]^T (stride `stride`) * right [rows, width].
  void add_transposed(const std::byte* left, const std::byte* right, std::int64_t rows, std::int64_t columns,
                      std::int64_t stride, float* result) const;

  const AttentionArgs& args_;
  Products& products_;
  DType dtype_;
  std::int64_t size_;
  std::int64_t width_;
  std::int64_t head_ = 0;
  std::int64_t key_head_ = 0;
};

}  // namespace instruct::kernels::cpu
