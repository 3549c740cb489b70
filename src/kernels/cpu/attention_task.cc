#include "kernels/cpu/attention_task.h"

namespace instruct::kernels::cpu {
namespace {

// Columns of one product of oneDNN: with widths rounded up to blocks, a few dozen compiled products serve every length.
constexpr std::int64_t kMaxColumns = 512;

}  // namespace

void HeadTask::against(const std::byte* left, const std::byte* keys, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, float alpha, float* result) const {
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
