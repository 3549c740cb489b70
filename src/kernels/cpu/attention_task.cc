#include "kernels/cpu/attention_task.h"

#include <array>

#include "kernels/cpu/short_products.h"

namespace instruct::kernels::cpu {
namespace {

// Columns of one product of oneDNN: with widths rounded up to blocks, a few dozen compiled products serve every length.
constexpr std::int64_t kMaxColumns = 512;
constexpr std::int64_t kShortWidth = 128;  // most of a head whose short rows are multiplied here

const float* floats(const std::byte* values) {
  return reinterpret_cast<const float*>(values);
}

}  // namespace

bool HeadTask::is_short(std::int64_t columns) const {
  return dtype_ == DType::kF32 && columns <= kBlock && width_ <= kShortWidth;
}

void HeadTask::against(const std::byte* left, const std::byte* keys, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, float alpha, float* result) const {
  if (is_short(columns)) {
    alignas(64) std::array<float, static_cast<std::size_t>(kBlock* kShortWidth)> transposed;
    for (std::int64_t c = 0; c < columns; ++c) {
      for (std::int64_t i = 0; i < width_; ++i)
        transposed[static_cast<std::size_t>(i * columns + c)] = floats(keys)[c * width_ + i];
    }
    short_product({.a = floats(left),
                   .a_row = width_,
                   .b = transposed.data(),
                   .b_row = columns,
                   .c = result,
                   .c_row = stride,
                   .m = rows,
                   .n = columns,
                   .k = width_,
                   .alpha = alpha});
    return;
  }
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    const std::int64_t n = std::min(kMaxColumns, columns - c);
    products_
        .get({.m = rows,
              .n = n,
              .k = width_,
              .stride_a = width_,
              .stride_b = width_,
              .stride_c = stride,
              .transpose_b = Transpose::kYes,
              .input = dtype_,
              .output = DType::kF32,
              .alpha = alpha})
        .run(left, keys + c * width_ * size_, result + c);
  }
}

void HeadTask::times(const std::byte* left, const std::byte* values, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, float* result) const {
  if (is_short(columns)) {
    short_product({.a = floats(left),
                   .a_row = stride,
                   .b = floats(values),
                   .b_row = width_,
                   .c = result,
                   .c_row = width_,
                   .m = rows,
                   .n = width_,
                   .k = columns});
    return;
  }
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    products_
        .get({.m = rows,
              .n = width_,
              .k = std::min(kMaxColumns, columns - c),
              .stride_a = stride,
              .stride_b = width_,
              .stride_c = width_,
              .accumulate = c > 0 ? Accumulate::kYes : Accumulate::kNo,
              .input = dtype_,
              .output = DType::kF32})
        .run(left + c * size_, values + c * width_ * size_, result);
  }
}

void HeadTask::add_transposed(const std::byte* left, const std::byte* right, std::int64_t rows, std::int64_t columns,
                              std::int64_t stride, float* result) const {
  if (is_short(columns)) {
    short_product({.a = floats(left),
                   .a_row = 1,
                   .a_column = stride,
                   .b = floats(right),
                   .b_row = width_,
                   .c = result,
                   .c_row = width_,
                   .m = columns,
                   .n = width_,
                   .k = rows,
                   .accumulate = true});
    return;
  }
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    products_
        .get({.m = std::min(kMaxColumns, columns - c),
              .n = width_,
              .k = rows,
              .stride_a = stride,
              .stride_b = width_,
              .stride_c = width_,
              .transpose_a = Transpose::kYes,
              .accumulate = Accumulate::kYes,
              .input = dtype_,
              .output = DType::kF32})
        .run(left + c * size_, right, result + c * width_);
  }
}

}  // namespace instruct::kernels::cpu
