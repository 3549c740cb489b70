#include "kernels/cpu/attention_relative.h"

#include <algorithm>
#include <vector>

namespace instruct::kernels::cpu {
namespace {

// The columns of a span by their distance: up to -reach, those between, and from reach on.
struct Parts {
  std::int64_t begin = 0, near = 0, far = 0, end = 0;
};
Parts parts_of(const RowSpan& span, std::int64_t position, std::int64_t reach) {
  const std::int64_t near = std::clamp(position - reach, span.begin, span.end);
  return {.begin = span.begin, .near = near, .far = std::clamp(position + reach, near, span.end), .end = span.end};
}

}  // namespace

void add_relative(const Tensor& relative, std::int64_t head, std::int64_t position, RowSpan span, float* scores) {
  const std::int64_t reach = relative.dim(1) / 2;
  const float* bias = relative.data<float>() + head * relative.row_stride();
  const Parts parts = parts_of(span, position, reach);
  for (std::int64_t c = parts.begin; c < parts.near; ++c) scores[c] += bias[0];
  if (parts.near < parts.far)
    add_row(bias + reach + parts.near - position, parts.far - parts.near, scores + parts.near);
  for (std::int64_t c = parts.far; c < parts.end; ++c) scores[c] += bias[2 * reach];
}

void add_relative_gradient(const void* dscores, tensor::DType dtype, float factor, std::int64_t position, RowSpan span,
                           std::int64_t reach, float* sums) {
  const std::int64_t count = span.end - span.begin;
  std::vector<float> row(static_cast<std::size_t>(count));
  const std::int64_t bytes = tensor::info(dtype).block_bytes;
  load_row(static_cast<const std::byte*>(dscores) + span.begin * bytes, count, dtype, row.data());
  for (float& value : row) value *= factor;
  const float* value = row.data() - span.begin;
  const Parts parts = parts_of(span, position, reach);
  for (std::int64_t c = parts.begin; c < parts.near; ++c) sums[0] += value[c];
  if (parts.near < parts.far) add_row(value + parts.near, parts.far - parts.near, sums + reach + parts.near - position);
  for (std::int64_t c = parts.far; c < parts.end; ++c) sums[2 * reach] += value[c];
}

}  // namespace instruct::kernels::cpu
