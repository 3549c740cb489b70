// Keys and values into their slots of a cache, as its dtype, and out of it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {
namespace {

std::byte* element(const Tensor& matrix, std::int64_t row, std::int64_t column) {
  return const_cast<std::byte*>(matrix.raw()) +
         (row * matrix.row_stride() + column) * tensor::info(matrix.dtype()).block_bytes;
}

// Integers of one scale, and the scale behind them.
void store_integers(const float* x, std::int64_t width, std::byte* target) {
  float most = 0;
  float sum = 0;  // not finite where a value is not
  for (std::int64_t i = 0; i < width; ++i) {
    most = std::max(most, std::abs(x[i]));
    sum += x[i] * 0;
  }
  const bool finite = sum == 0;
  const float scale = finite ? most / 127 : NAN;
  const float inverse = finite && most > 0 ? 127 / most : 0;
  auto* integers = reinterpret_cast<std::int8_t*>(target);
  for (std::int64_t i = 0; i < width; ++i) {
    const float q = finite ? std::nearbyint(x[i] * inverse) : 0;
    integers[i] = static_cast<std::int8_t>(std::clamp(q, -127.0F, 127.0F));
  }
  std::memcpy(integers + width, &scale, sizeof(scale));
}

}  // namespace

void store_heads(Stream& stream, const Tensor& x, std::span<const std::int32_t> slots, std::int64_t head_width,
                 Tensor& rows) {
  const std::int64_t width = x.dim(1);
  const std::int64_t columns = head_columns(rows.dtype(), head_width);
  for_row_ranges(stream, x.dim(0), width, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> values(static_cast<std::size_t>(width));
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t slot = slots[static_cast<std::size_t>(t)];
      if (rows.dtype() == x.dtype()) {
        std::memcpy(element(rows, slot, 0), x.rows(t, t + 1).raw(),
                    static_cast<std::size_t>(tensor::bytes_of(x.dtype(), width)));
        continue;
      }
      load_row(x.rows(t, t + 1).raw(), width, x.dtype(), values.data());
      if (rows.dtype() != DType::kI8) {
        store_row(values.data(), width, rows.dtype(), element(rows, slot, 0));
        continue;
      }
      for (std::int64_t head = 0; head < width / head_width; ++head)
        store_integers(values.data() + head * head_width, head_width, element(rows, slot, head * columns));
    }
  });
}

void copy_heads(const Tensor& rows, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t width,
                DType dtype, std::byte* target) {
  const DType stored = rows.dtype();
  const std::int64_t bytes = tensor::bytes_of(dtype, width);
  std::vector<float> decoded(static_cast<std::size_t>(stored == dtype ? 0 : width));
  for (std::int64_t row = first; row < first + count; ++row, target += bytes) {
    const std::byte* source = element(rows, row, column);
    if (stored == dtype) {
      std::memcpy(target, source, static_cast<std::size_t>(bytes));
    } else {
      load_row(source, width, stored, decoded.data());
      store_row(decoded.data(), width, dtype, target);
    }
  }
}

}  // namespace instruct::kernels::cpu
