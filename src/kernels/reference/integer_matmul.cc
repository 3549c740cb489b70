// Products on 8-bit integers, plain: activations are rounded to their integers and back, weights decoded, and products
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
void round_to_integers(std::vector<float>& values) {
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
      const float integer = usable ? std::nearbyint(x * (127.0F / largest)) : 0.0F;
      x = finite ? integer * (largest / 127.0F) : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

}  // namespace

IntegerWeight pack_integer_weight(Stream& /*stream*/, const Tensor& weight) {
  return {weight, {}};
}

void integer_matmul(Stream& /*stream*/, const Tensor& x, std::span<const IntegerWeight* const> weights,
                    std::span<Tensor> results) {
  std::vector<float> left = read_matrix(x, false);
  round_to_integers(left);
  const auto depth = static_cast<std::size_t>(x.dim(1));
  std::vector<float> right(depth);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (std::int64_t n = 0; n < weights[i]->stored.dim(0); ++n) {
      tensor::decode_rows(weights[i]->stored, n, 1, right);
      for (std::int64_t m = 0; m < x.dim(0); ++m) {
        double sum = 0;
        for (std::size_t k = 0; k < depth; ++k) {
          sum += static_cast<double>(left[static_cast<std::size_t>(m) * depth + k]) * static_cast<double>(right[k]);
        }
        write(results[i], m, n, static_cast<float>(sum));
      }
    }
  }
}

}  // namespace instruct::kernels::reference
