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

void HeadTask::multiply(const ProductKey& key, std::int64_t columns, const std::byte* left, const std::byte* right,
                        float* result) const {
  if (dtype_ != DType::kF32 || columns > kBlock || width_ > kShortWidth) {
    products_.get(key).run(left, right, result);
    return;
  }
  alignas(64) std::array<float, static_cast<std::size_t>(kBlock * kShortWidth)> transposed;
  const bool turns = key.transpose_b == Transpose::kYes;
  for (std::int64_t column = 0; turns && column < key.n; ++column) {
    for (std::int64_t i = 0; i < key.k; ++i)
      transposed[static_cast<std::size_t>(i * key.n + column)] = floats(right)[column * key.stride_b + i];
  }
  const bool across = key.transpose_a == Transpose::kYes;
  short_product({.a = floats(left),
                 .a_row = across ? 1 : key.stride_a,
                 .a_column = across ? key.stride_a : 1,
                 .b = turns ? transposed.data() : floats(right),
                 .b_row = turns ? key.n : key.stride_b,
                 .c = result,
                 .c_row = key.stride_c,
                 .m = key.m,
                 .n = key.n,
                 .k = key.k,
                 .alpha = key.alpha,
                 .accumulate = key.accumulate == Accumulate::kYes});
}

void HeadTask::against(const std::byte* left, const std::byte* keys, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, float alpha, float* result) const {
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    const std::int64_t n = std::min(kMaxColumns, columns - c);
    multiply({.m = rows,
              .n = n,
              .k = width_,
              .stride_a = width_,
              .stride_b = width_,
              .stride_c = stride,
              .transpose_b = Transpose::kYes,
              .input = dtype_,
              .output = DType::kF32,
              .alpha = alpha},
             columns, left, keys + c * width_ * size_, result + c);
  }
}

void HeadTask::times(const std::byte* left, const std::byte* values, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, float* result) const {
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    multiply({.m = rows,
              .n = width_,
              .k = std::min(kMaxColumns, columns - c),
              .stride_a = stride,
              .stride_b = width_,
              .stride_c = width_,
              .accumulate = c > 0 ? Accumulate::kYes : Accumulate::kNo,
              .input = dtype_,
              .output = DType::kF32},
             columns, left + c * size_, values + c * width_ * size_, result);
  }
}

void HeadTask::add_transposed(const std::byte* left, const std::byte* right, std::int64_t rows, std::int64_t columns,
                              std::int64_t stride, float* result) const {
  for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
    multiply({.m = std::min(kMaxColumns, columns - c),
              .n = width_,
              .k = rows,
              .stride_a = stride,
              .stride_b = width_,
              .stride_c = width_,
              .transpose_a = Transpose::kYes,
              .accumulate = Accumulate::kYes,
              .input = dtype_,
              .output = DType::kF32},
             columns, left + c * size_, right, result + c * width_);
  }
}

}  // namespace instruct::kernels::cpu
