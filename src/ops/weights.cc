#include "ops/weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/error.h"
#include "kernels/kernels.h"

namespace instruct::ops {

tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator,
                              ThreadPool& threads) {
  kernels::Stream stream{threads, allocator, nullptr};
  tensor::Tensor copy = tensor::Tensor::empty(source.shape(), dtype, allocator);
  const std::int64_t columns = source.dim(-1);
  tensor::Tensor matrix = copy.reshape({copy.elements() / columns, columns});
  const tensor::Tensor rows = source.rank() == 2 ? source : source.reshape({source.elements() / columns, columns});
  kernels::cpu::dequantise_rows(stream, rows, 0, matrix);
  return copy;
}

tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator) {
  ThreadPool threads(1);
  return converted_copy(source, dtype, allocator, threads);
}

namespace {

// By squares that stay in the cache.
template <typename Element>
void transpose(const tensor::Tensor& from, tensor::Tensor& to) {
  constexpr std::int64_t kSide = 32;
  const std::int64_t rows = from.dim(0), columns = from.dim(1);
  const auto* source = reinterpret_cast<const Element*>(from.raw());
  auto* target = reinterpret_cast<Element*>(to.raw());
  for (std::int64_t top = 0; top < rows; top += kSide) {
    for (std::int64_t left = 0; left < columns; left += kSide) {
      for (std::int64_t i = top; i < std::min(top + kSide, rows); ++i) {
        for (std::int64_t j = left; j < std::min(left + kSide, columns); ++j)
          target[j * rows + i] = source[i * columns + j];
      }
    }
  }
}

}  // namespace

tensor::Tensor transposed_copy(const tensor::Tensor& source, tensor::Allocator& allocator) {
  tensor::Tensor result = tensor::Tensor::empty({source.dim(1), source.dim(0)}, source.dtype(), allocator);
  switch (tensor::info(source.dtype()).block_bytes) {
    case 2:
      transpose<std::uint16_t>(source, result);
      break;
    case 4:
      transpose<std::uint32_t>(source, result);
      break;
    default:
      raise(ErrorCategory::kUnsupported, "a matrix of {} is not transposed", tensor::info(source.dtype()).name);
  }
  return result;
}

bool has_integer_products() {
  return kernels::cpu::has_integer_products(kernels::detect_cpu_features());
}

namespace {

using tensor::DType;
using tensor::Tensor;

constexpr std::int64_t kBlock = 32;    // integers that a product takes at once
constexpr std::int64_t kStripe = 256;  // rows converted at a time

// Calls body(first row, values) over stripes of rows as f32.
template <typename Body>
void for_stripes(kernels::Stream& stream, const Tensor& source, const Body& body) {
  for (std::int64_t row = 0; row < source.dim(0); row += kStripe) {
    Tensor values =
        Tensor::empty({std::min(source.dim(0) - row, kStripe), source.dim(1)}, DType::kF32, stream.allocator);
    kernels::cpu::dequantise_rows(stream, source, row, values);
    body(row, values);
  }
}

// 8-bit integers; one scale for kScaledInputs neighbours in a row makes the largest magnitude of them 127.
struct ScaledIntegers {
  Tensor integers;  // [N, K]
  Tensor scales;    // [N, groups]

  ScaledIntegers(std::int64_t rows, std::int64_t columns, tensor::Allocator& allocator)
      : integers(Tensor::empty({rows, columns}, DType::kI8, allocator)),
        scales(Tensor::zeros({rows, (columns + kernels::kScaledInputs - 1) / kernels::kScaledInputs}, DType::kF32,
                             allocator)) {}

  float& scale_at(std::int64_t row, std::int64_t column) {
    return scales.data<float>()[row * scales.dim(1) + column / kernels::kScaledInputs];
  }
  void see(std::int64_t row, std::int64_t column, float value) {
    float& most = scale_at(row, column);
    most = std::max(most, std::abs(value) / 127.0F);
  }
  void put(std::int64_t row, std::int64_t column, float value) {
    const float scale = scale_at(row, column);
    const float integer = scale > 0 ? std::clamp(std::nearbyint(value / scale), -127.0F, 127.0F) : 0.0F;
    integers.raw()[row * integers.row_stride() + column] = static_cast<std::byte>(static_cast<std::int8_t>(integer));
  }
};

using Packed = std::shared_ptr<const kernels::IntegerWeight>;

Packed packed(kernels::Stream& stream, const ScaledIntegers& made) {
  return std::make_shared<kernels::IntegerWeight>(
      kernels::cpu::pack_scaled_integers(stream, made.integers, made.scales));
}

Packed scaled_rows(kernels::Stream& stream, const Tensor& source) {
  ScaledIntegers made(source.dim(0), source.dim(1), stream.allocator);
  for_stripes(stream, source, [&](std::int64_t first, const Tensor& values) {
    stream.threads.run(values.dim(0), [&](std::int64_t i) {
      const float* row = values.data<float>() + i * values.row_stride();
      for (std::int64_t k = 0; k < values.dim(1); ++k) made.see(first + i, k, row[k]);
      for (std::int64_t k = 0; k < values.dim(1); ++k) made.put(first + i, k, row[k]);
    });
  });
  return packed(stream, made);
}

Packed scaled_columns(kernels::Stream& stream, const Tensor& source) {
  ScaledIntegers made(source.dim(1), source.dim(0), stream.allocator);
  const auto for_columns = [&](const auto& body) {
    for_stripes(stream, source, [&](std::int64_t first, const Tensor& values) {
      stream.threads.run_ranges(values.dim(1), 16, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < values.dim(0); ++i) {
          for (std::int64_t k = begin; k < end; ++k)
            body(k, first + i, values.data<float>()[i * values.row_stride() + k]);
        }
      });
    });
  };
  for_columns([&](std::int64_t k, std::int64_t row, float value) { made.see(k, row, value); });
  for_columns([&](std::int64_t k, std::int64_t row, float value) { made.put(k, row, value); });
  return packed(stream, made);
}

}  // namespace

IntegerForms pack_for_integers(const Tensor& source, IntegerUse use, tensor::Allocator& allocator,
                               ThreadPool& threads) {
  kernels::Stream stream{threads, allocator, nullptr};
  IntegerForms forms;
  if (use == IntegerUse::kForward16) forms.bits = kernels::ActivationBits::k16;
  if (source.dim(1) % kBlock != 0) return forms;
  if (use == IntegerUse::kGradients8) {
    forms.forward = scaled_rows(stream, source);
    if (source.dim(0) % kBlock == 0) forms.transposed = scaled_columns(stream, source);
  } else if (tensor::is_quantised(source.dtype())) {
    forms.forward = std::make_shared<kernels::IntegerWeight>(kernels::cpu::pack_integer_weight(stream, source));
  }
  return forms;
}

}  // namespace instruct::ops
