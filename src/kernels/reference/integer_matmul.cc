// Products on integers, plain: activations are rounded to their integers and back, weights decoded, and products
// summed in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"
#include "tensor/block_codec.h"

namespace instruct::kernels::reference {
namespace {

// Replaces a row's values by the nearest that their block's integers can say; by NaN where one of the block is not
// finite. A block has `length` values, or what is left.
void round_to_integers(std::span<float> row, std::size_t length, ActivationBits bits) {
  for (std::size_t at = 0; at < row.size(); at += length) {
    const auto block = row.subspan(at, std::min(length, row.size() - at));
    float largest = 0;
    bool finite = true;
    for (const float x : block) {
      largest = std::max(largest, std::abs(x));
      finite = finite && std::isfinite(x);
    }
    const bool usable = largest > 127.0F / std::numeric_limits<float>::max();  // its inverse is a number
    for (float& x : block) {
      const float scaled = usable ? x * (127.0F / largest) : 0.0F;
      double integer = static_cast<double>(std::nearbyint(scaled));
      if (bits == ActivationBits::k16)
        integer += static_cast<double>(std::nearbyint((scaled - std::nearbyint(scaled)) * 254.0F)) / 254.0;
      x = finite ? static_cast<float>(integer * static_cast<double>(largest / 127.0F))
                 : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

std::vector<float> values_of(const IntegerWeight& weight) {
  std::vector<float> values(static_cast<std::size_t>(weight.outputs * weight.inputs));
  if (weight.dtype != DType::kI8) {
    tensor::decode_rows(weight.data, 0, weight.outputs, values);
    return values;
  }
  for (std::int64_t n = 0; n < weight.outputs; ++n) {
    for (std::int64_t k = 0; k < weight.inputs; ++k) {
      const auto integer = static_cast<std::int8_t>(weight.data.raw()[n * weight.data.row_stride() + k]);
      values[static_cast<std::size_t>(n * weight.inputs + k)] =
          integer * weight.scales.data<float>()[n * weight.scales.dim(1) + k / kScaledInputs];
    }
  }
  return values;
}

}  // namespace

IntegerWeight pack_integer_weight(Stream& /*stream*/, const Tensor& weight) {
  return {weight.dtype(), weight.dim(0), weight.dim(1), weight};
}

IntegerWeight pack_scaled_integers(Stream& /*stream*/, const Tensor& integers, const Tensor& scales) {
  return {DType::kI8, integers.dim(0), integers.dim(1), integers, scales};
}

void integer_matmul(Stream& stream, const Tensor& x, ActivationBits bits, std::span<const IntegerMatmul> products) {
  std::vector<float> rounded = read_matrix(x, false);
  const auto depth = static_cast<std::size_t>(x.dim(1));
  const std::size_t length = products.front().weight->dtype == DType::kI8 ? kScaledInputs : 32;
  for (std::size_t at = 0; at < rounded.size(); at += depth)
    round_to_integers(std::span(rounded).subspan(at, depth), length, bits);
  const Tensor left = Tensor::from_floats(rounded, x.shape(), stream.allocator);
  for (const IntegerMatmul& product : products) {
    const std::vector<float> values = values_of(*product.weight);
    const Tensor right =
        Tensor::from_floats(values, {product.weight->outputs, product.weight->inputs}, stream.allocator);
    Matmul plain{.a = left, .b = right, .c = product.result, .transpose_b = Transpose::kYes};
    plain.accumulate = product.accumulate;
    if (product.low_a.defined()) {
      plain.low_a = product.low_a;
      plain.low_b = product.transpose_low_b == Transpose::kYes
                        ? product.low_b
                        : Tensor::from_floats(read_matrix(product.low_b, true),
                                              {product.low_b.dim(1), product.low_b.dim(0)}, stream.allocator);
    }
    matmul(stream, plain);
  }
}

}  // namespace instruct::kernels::reference
