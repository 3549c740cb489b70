#include "ops/cross_entropy.h"

#include <algorithm>

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

using kernels::Accumulate;
using kernels::Matmul;
using kernels::Transpose;

constexpr std::int64_t kLogitBytes = 40 << 20;  // at most this much for one chunk's logits
constexpr std::int64_t kTileRows = 4096;        // rows of a quantised weight converted at a time

// Calls body(first_row, tile) over a weight, as it is or converted to `dtype` tile by tile.
template <typename Body>
void for_tiles(const Context& context, const Tensor& weight, DType dtype, const Body& body) {
  if (weight.dtype() == dtype) {
    body(0, weight);
    return;
  }
  for (std::int64_t row = 0; row < weight.dim(0); row += kTileRows) {
    const std::int64_t end = std::min(row + kTileRows, weight.dim(0));
    Tensor tile = Tensor::empty({end - row, weight.dim(1)}, dtype, context.allocator());
    INSTRUCT_KERNEL(dequantise_rows)(context, weight, row, tile);
    body(row, tile);
  }
}

void project(const Context& context, const Tensor& x, const Tensor& weight, const IntegerForms& integer,
             const Tensor& result) {
  if (integer.forward != nullptr) {
    const kernels::IntegerMatmul product{.weight = integer.forward.get(), .result = result};
    INSTRUCT_KERNEL(integer_matmul)(context, x, integer.bits, std::span(&product, 1));
    return;
  }
  for_tiles(context, weight, x.dtype(), [&](std::int64_t row, const Tensor& tile) {
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = x, .b = tile, .c = result.columns(row, row + tile.dim(0)), .transpose_b = Transpose::kYes});
  });
}

}  // namespace

Tensor logits(const Context& context, const Tensor& x, const Tensor& weight, const IntegerForms& integer) {
  require_shape(x.dim(1) == weight.dim(1), "logits", x, weight);
  Tensor result = Tensor::empty({x.dim(0), weight.dim(0)}, DType::kF32, context.allocator());
  project(context, x, weight, integer, result);
  return result;
}

std::int32_t most_likely(std::span<const float> logits) {
  auto found = std::find(logits.begin(), logits.end(), kernels::cpu::maximum(logits));
  if (found == logits.end()) found = std::max_element(logits.begin(), logits.end());  // NaN among them
  return static_cast<std::int32_t>(found - logits.begin());
}

double log_probability(std::span<const float> logits, std::int32_t token) {
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - kernels::cpu::log_sum_exp(logits);
}

std::vector<float> linear_cross_entropy(const Context& context, const Variable& x, const Variable& weight,
                                        std::span<const std::int32_t> targets, std::span<const float> row_weights,
                                        std::int64_t vocabulary, const IntegerForms& integer) {
  const Tensor& w = weight.value();
  const std::int64_t rows = x.value().dim(0);
  require_shape(x.value().dim(1) == w.dim(1) && vocabulary <= w.dim(0), "linear_cross_entropy", x.value(), w);
  INSTRUCT_CHECK(static_cast<std::int64_t>(targets.size()) == rows && row_weights.size() == targets.size());
  for (const std::int32_t target : targets) {
    if (target < 0 || target >= vocabulary) {
      raise(ErrorCategory::kInvalidArgument, "cross-entropy: target {} is outside the vocabulary of {}", target,
            vocabulary);
    }
  }
  const bool records = context.records({&x, &weight});
  const bool on_integers = integer.serve(context) && !weight.requires_gradient();
  const DType dtype = x.value().dtype();
  Tensor dx;
  if (records && x.requires_gradient()) dx = Tensor::empty(x.value().shape(), dtype, context.allocator());
  std::vector<float> log_probabilities(targets.size());
  const std::int64_t fit = std::max<std::int64_t>(16, kLogitBytes / (4 * w.dim(0)) / 16 * 16);
  for (std::int64_t begin = 0; begin < rows; begin += fit) {
    const std::int64_t end = std::min(begin + fit, rows);
    const auto first = static_cast<std::size_t>(begin);
    const auto count = static_cast<std::size_t>(end - begin);
    const Tensor chunk = x.value().rows(begin, end);
    Tensor scores = Tensor::empty({end - begin, w.dim(0)}, DType::kF32, context.allocator());
    project(context, chunk, w, on_integers ? integer : IntegerForms(), scores);
    Tensor dscores;
    if (records) dscores = dtype == DType::kF32 ? scores : Tensor::empty(scores.shape(), dtype, context.allocator());
    INSTRUCT_KERNEL(cross_entropy)
    (context, scores, vocabulary, targets.subspan(first, count), row_weights.subspan(first, count),
     std::span(log_probabilities).subspan(first, count), records ? &dscores : nullptr);
    if (dx.defined() && on_integers) {
      const kernels::IntegerMatmul product{.weight = integer.transposed.get(), .result = dx.rows(begin, end)};
      INSTRUCT_KERNEL(integer_matmul)(context, dscores, integer.bits, std::span(&product, 1));
    } else if (dx.defined()) {
      for_tiles(context, w, dtype, [&](std::int64_t row, const Tensor& tile) {
        INSTRUCT_KERNEL(matmul)
        (context, Matmul{.a = dscores.columns(row, row + tile.dim(0)),
                         .b = tile,
                         .c = dx.rows(begin, end),
                         .accumulate = row > 0 ? Accumulate::kYes : Accumulate::kNo});
      });
    }
    if (records && weight.requires_gradient()) {
      GradientTarget target = gradient_target(context, weight);
      INSTRUCT_KERNEL(matmul)
      (context, Matmul{.a = dscores,
                       .b = chunk,
                       .c = target.gradient,
                       .transpose_a = Transpose::kYes,
                       .accumulate = target.fresh ? Accumulate::kNo : Accumulate::kYes});
    }
  }
  if (dx.defined()) {
    // The gradient is ready; the step only hands it over, in its turn.
    context.tape->record([x, dx] { x.mutable_gradient() = dx; });
  }
  return log_probabilities;
}

}  // namespace instruct::ops
