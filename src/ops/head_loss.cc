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
