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

constexpr std::size_t kBlock = 32;  // activations that share a scale

// Replaces values by the nearest that their block's integers can say; by NaN where one of the block is not finite.
void round_to_integers(std::vector<float>& values, ActivationBits bits) {
  for (std::size_t at = 0; at < values.size(); at += kBlock) {
    const auto block = std::span(values).subspan(at, kBlock);
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

}  // namespace

IntegerWeight pack_integer_weight(Stream& /*stream*/, const Tensor& weight) {
  return {weight.dtype(), weight.dim(0), weight.dim(1), weight};
}

void integer_matmul(Stream& stream, const Tensor& x, ActivationBits bits, std::span<const IntegerMatmul> products) {
  std::vector<float> rounded = read_matrix(x, false);
  round_to_integers(rounded, bits);
  const Tensor left = Tensor::from_floats(rounded, x.shape(), stream.allocator);
  for (const IntegerMatmul& product : products) {
    std::vector<float> values(static_cast<std::size_t>(product.weight->outputs * product.weight->inputs));
    tensor::decode_rows(product.weight->data, 0, product.weight->outputs, values);
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
