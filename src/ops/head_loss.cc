// Losses of logits that exist, as heads of encoders give them: a few columns, or a few rows.
#include "ops/cross_entropy.h"
#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// A private copy in f32.
Tensor in_f32(const Context& context, const Tensor& logits) {
  Tensor copy = Tensor::empty(logits.shape(), DType::kF32, context.allocator());
  INSTRUCT_KERNEL(convert)(context, logits, copy);
  return copy;
}

// Where the backward pass of a loss starts: the logits' gradient is known.
void start_backward(const Context& context, const Variable& logits, const Tensor& dlogits) {
  context.tape->record([context, logits, dlogits] {
    GradientTarget target = gradient_target(context, logits);
    if (target.fresh) {
      INSTRUCT_KERNEL(convert)(context, dlogits, target.gradient);
    } else {
      INSTRUCT_KERNEL(add_into)(context, dlogits, target.gradient);
    }
  });
}

}  // namespace

std::vector<float> softmax_cross_entropy(const Context& context, const Variable& logits,
                                         std::span<const std::int32_t> targets, std::span<const float> weights) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const std::int64_t columns = logits.value().dim(1);
  if (logits.value().dim(0) != rows || targets.size() != weights.size())
    raise(ErrorCategory::kInvalidArgument, "softmax_cross_entropy: {} rows, {} targets and {} weights",
          logits.value().dim(0), rows, weights.size());
  for (const std::int32_t target : targets) {
    if (target < 0 || target >= columns)
      raise(ErrorCategory::kInvalidArgument, "softmax_cross_entropy: target {} is outside the {} columns", target,
            columns);
  }
  std::vector<float> log_probabilities(targets.size());
  const bool records = context.records({&logits});
  Tensor values = in_f32(context, logits.value());
  INSTRUCT_KERNEL(cross_entropy)
  (context, values, columns, targets, weights, std::span(log_probabilities), records ? &values : nullptr);
  if (records) start_backward(context, logits, values);
  return log_probabilities;
}

std::vector<float> column_cross_entropy(const Context& context, const Variable& scores,
                                        std::span<const tensor::KeyRange> ranges, std::span<const std::int32_t> targets,
                                        float weight) {
  const Tensor values = in_f32(context, scores.value());
  const std::int64_t columns = values.dim(1);
  INSTRUCT_CHECK(targets.size() == ranges.size() * static_cast<std::size_t>(columns));
  const bool records = context.records({&scores});
  Tensor dscores;
  if (records) dscores = Tensor::zeros(values.shape(), DType::kF32, context.allocator());
  std::vector<float> log_probabilities(targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const tensor::KeyRange range = ranges[i / static_cast<std::size_t>(columns)];
    const auto column = static_cast<std::int64_t>(i % static_cast<std::size_t>(columns));
    if (range.begin < 0 || range.end > values.dim(0) || targets[i] < range.begin || targets[i] >= range.end)
      raise(ErrorCategory::kInvalidArgument, "column_cross_entropy: target {} is outside of rows {} to {} of {}",
            targets[i], range.begin, range.end, values.dim(0));
    const std::int64_t count = range.end - range.begin;
    Tensor line = Tensor::empty({1, count}, DType::kF32, context.allocator());
    for (std::int64_t t = 0; t < count; ++t)
      line.data<float>()[t] = values.data<float>()[(range.begin + t) * values.row_stride() + column];
    const auto target = static_cast<std::int32_t>(targets[i] - range.begin);
    INSTRUCT_KERNEL(cross_entropy)
    (context, line, count, std::span(&target, 1), std::span(&weight, 1), std::span(log_probabilities).subspan(i, 1),
     records ? &line : nullptr);
    for (std::int64_t t = 0; records && t < count; ++t)
      dscores.data<float>()[(range.begin + t) * columns + column] = line.data<float>()[t];
  }
  if (records) start_backward(context, scores, dscores);
  return log_probabilities;
}

std::vector<float> sigmoid_cross_entropy(const Context& context, const Variable& logits, const Tensor& truth,
                                         std::span<const float> weights) {
  require_shape(truth.shape() == logits.value().shape() && truth.dtype() == DType::kF32 &&
                    truth.dim(0) == static_cast<std::int64_t>(weights.size()),
                "sigmoid_cross_entropy", logits.value(), truth);
  std::vector<float> log_probabilities(weights.size());
  const bool records = context.records({&logits});
  const Tensor values = in_f32(context, logits.value());
  Tensor dlogits;
  if (records) dlogits = Tensor::empty(values.shape(), DType::kF32, context.allocator());
  INSTRUCT_KERNEL(sigmoid_cross_entropy)
  (context, values, truth, weights, std::span(log_probabilities), dlogits);
  if (records) start_backward(context, logits, dlogits);
  return log_probabilities;
}

}  // namespace instruct::ops
