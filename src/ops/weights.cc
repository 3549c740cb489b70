#include "ops/weights.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "tensor/block_codec.h"

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

bool has_integer_products() {
  return kernels::cpu::has_integer_products(kernels::detect_cpu_features());
}

namespace {

using tensor::DType;
using tensor::Tensor;

constexpr std::int64_t kBlock = 32;    // elements of a block of Q8_0
constexpr std::int64_t kStripe = 256;  // rows converted at a time for the transpose

std::shared_ptr<const kernels::IntegerWeight> packed(kernels::Stream& stream, const Tensor& quantised) {
  return std::make_shared<kernels::IntegerWeight>(kernels::cpu::pack_integer_weight(stream, quantised));
}

// Encodes a matrix of f32 as rows of Q8_0.
void encode_rows(kernels::Stream& stream, const Tensor& values, const Tensor& target, std::int64_t first_column) {
  stream.threads.run(values.dim(0), [&](std::int64_t row) {
    const std::span<const float> numbers(values.data<float>() + row * values.row_stride(),
                                         static_cast<std::size_t>(values.dim(1)));
    const std::int64_t at = tensor::bytes_of(DType::kQ8_0, row * target.row_stride() + first_column);
    tensor::encode_elements(DType::kQ8_0, numbers, const_cast<std::byte*>(target.raw()) + at);
  });
}

Tensor as_q8_0(kernels::Stream& stream, const Tensor& source) {
  Tensor result = Tensor::empty(source.shape(), DType::kQ8_0, stream.allocator);
  for (std::int64_t row = 0; row < source.dim(0); row += kStripe) {
    const std::int64_t end = std::min(source.dim(0), row + kStripe);
    Tensor values = Tensor::empty({end - row, source.dim(1)}, DType::kF32, stream.allocator);
    kernels::cpu::dequantise_rows(stream, source, row, values);
    encode_rows(stream, values, result.rows(row, end), 0);
  }
  return result;
}

Tensor transposed_as_q8_0(kernels::Stream& stream, const Tensor& source) {
  const std::int64_t columns = source.dim(1);
  Tensor result = Tensor::empty({columns, source.dim(0)}, DType::kQ8_0, stream.allocator);
  for (std::int64_t row = 0; row < source.dim(0); row += kStripe) {
    const std::int64_t count = std::min(source.dim(0) - row, kStripe);
    Tensor values = Tensor::empty({count, columns}, DType::kF32, stream.allocator);
    kernels::cpu::dequantise_rows(stream, source, row, values);
    Tensor turned = Tensor::empty({columns, count}, DType::kF32, stream.allocator);
    stream.threads.run_ranges(columns, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t k = begin; k < end; ++k)
          turned.data<float>()[k * count + i] = values.data<float>()[i * columns + k];
      }
    });
    encode_rows(stream, turned, result, row);
  }
  return result;
}

}  // namespace

IntegerForms pack_for_integers(const Tensor& source, IntegerUse use, tensor::Allocator& allocator,
                               ThreadPool& threads) {
  kernels::Stream stream{threads, allocator, nullptr};
  IntegerForms forms;
  if (use == IntegerUse::kForward16) forms.bits = kernels::ActivationBits::k16;
  if (source.dim(1) % kBlock != 0) return forms;
  forms.forward = packed(stream, tensor::is_quantised(source.dtype()) ? source : as_q8_0(stream, source));
  if (use == IntegerUse::kGradients8 && source.dim(0) % kBlock == 0)
    forms.transposed = packed(stream, transposed_as_q8_0(stream, source));
  return forms;
}

}  // namespace instruct::ops
