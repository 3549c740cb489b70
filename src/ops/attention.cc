#include "ops/attention.h"

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

// Every query covered once and in order, every key index inside the tensor.
void check_plan(const tensor::AttentionPlan& plan, std::int64_t queries, std::int64_t keys, std::int64_t window) {
  std::int64_t next = 0;
  for (const tensor::QuerySegment& segment : plan.queries) {
    bool good = segment.begin == next && segment.end >= segment.begin && segment.self_begin >= 0 &&
                segment.self_begin + segment.own_keys() <= keys;
    std::int64_t visible = 0;
    for (const tensor::KeyRange& range : segment.visible) {
      good = good && range.begin >= 0 && range.begin <= range.end && range.end <= keys;
      visible += range.end - range.begin;
    }
    // A softmax of nothing has no value, and keys of another text no distance.
    good = good && (segment.own != tensor::OwnKeys::kNone || (visible > 0 && window == 0));
    if (!good) {
      raise(ErrorCategory::kInvalidArgument, "attention: plan segment [{}, {}) does not fit {} queries and {} keys",
            segment.begin, segment.end, queries, keys);
    }
    next = segment.end;
  }
  if (next != queries) {
    raise(ErrorCategory::kInvalidArgument, "attention: plan covers {} of {} queries", next, queries);
  }
}

// The bias of every distance, [H, 2R + 1].
Tensor by_distance(const DistanceBias& bias, std::int64_t heads, const Context& context) {
  const Tensor& weights = bias.weights.value();
  require_shape(
      weights.rank() == 2 && weights.dim(1) == heads && weights.dtype() == DType::kF32 && bias.buckets.size() % 2 == 1,
      "attention's bias of distances", weights, weights);
  const auto distances = static_cast<std::int64_t>(bias.buckets.size());
  Tensor relative = Tensor::empty({heads, distances}, DType::kF32, context.allocator());
  for (std::int64_t d = 0; d < distances; ++d) {
    const std::int32_t bucket = bias.buckets[static_cast<std::size_t>(d)];
    INSTRUCT_CHECK(bucket >= 0 && bucket < weights.dim(0));
    for (std::int64_t h = 0; h < heads; ++h)
      relative.data<float>()[h * distances + d] = weights.data<float>()[bucket * weights.row_stride() + h];
  }
  return relative;
}

// Adds the gradient of by_distance().
void add_to_buckets(const Tensor& drelative, const DistanceBias& bias, const Context& context) {
  GradientTarget target = gradient_target(context, bias.weights);
  if (target.fresh) target.gradient.fill_zero();
  for (std::int64_t h = 0; h < drelative.dim(0); ++h) {
    for (std::int64_t d = 0; d < drelative.dim(1); ++d) {
      const std::int64_t bucket = bias.buckets[static_cast<std::size_t>(d)];
      target.gradient.data<float>()[bucket * target.gradient.row_stride() + h] +=
          drelative.data<float>()[h * drelative.dim(1) + d];
    }
  }
}

}  // namespace

Tensor make_head_rows(std::int64_t slots, std::int64_t heads, std::int64_t head_width, DType dtype,
                      tensor::Allocator& allocator) {
  return Tensor::empty({slots, heads * kernels::head_columns(dtype, head_width)}, dtype, allocator);
}

void store_heads(const Context& context, const Tensor& x, std::span<const std::int32_t> slots, std::int64_t head_width,
                 Tensor& rows) {
  const std::int64_t columns = kernels::head_columns(rows.dtype(), head_width);
  require_shape(x.dim(1) % head_width == 0 && x.dim(1) / head_width * columns == rows.dim(1) &&
                    x.dim(0) == static_cast<std::int64_t>(slots.size()),
                "store_heads", x, rows);
  for (const std::int32_t slot : slots) {
    if (slot < 0 || slot >= rows.dim(0))
      raise(ErrorCategory::kInvalidArgument, "store_heads: slot {} is outside the {} rows", slot, rows.dim(0));
  }
  INSTRUCT_KERNEL(store_heads)(context, x, slots, head_width, rows);
}

Variable attention(const Context& context, const Variable& query, const Variable& key, const Variable& value,
                   const tensor::AttentionPlan& plan, const AttentionOptions& options, const DistanceBias* bias) {
  const std::int64_t width = options.head_width;
  const std::int64_t columns = kernels::head_columns(key.value().dtype(), width);
  const std::int64_t key_heads = key.value().dim(1) / columns;
  const bool same_dtype = key.value().dtype() == query.value().dtype();
  require_shape(query.value().dim(1) % width == 0 && key.value().dim(1) % columns == 0 && key_heads > 0 &&
                    query.value().dim(1) / width % key_heads == 0 && value.value().dtype() == key.value().dtype() &&
                    (same_dtype || context.tape == nullptr),
                "attention", query.value(), key.value());
  require_shape(key.value().shape() == value.value().shape(), "attention", key.value(), value.value());
  check_plan(plan, query.value().dim(0), key.value().dim(0), options.window);
  kernels::AttentionArgs args{.query = query.value(),
                              .key = key.value(),
                              .value = value.value(),
                              .head_width = width,
                              .scale = options.scale,
                              .window = options.window,
                              .soft_cap = options.soft_cap,
                              .plan = &plan};
  if (bias != nullptr) {
    INSTRUCT_CHECK(options.soft_cap == 0);
    args.relative = by_distance(*bias, query.value().dim(1) / width, context);
  }
  const std::int64_t tokens = query.value().dim(0);
  Variable output(Tensor::empty(query.value().shape(), query.value().dtype(), context.allocator()),
                  bias != nullptr ? context.records({&query, &key, &value, &bias->weights})
                                  : context.records({&query, &key, &value}));
  Tensor log_sum = Tensor::empty({tokens, query.value().dim(1) / width}, DType::kF32, context.allocator());
  INSTRUCT_KERNEL(attention)(context, args, output.mutable_value(), log_sum);
  if (output.requires_gradient()) {
    args.query = args.key = args.value = Tensor();  // the variables keep them, or compute them again
    // Keeps query, key, value, output and the log of each softmax denominator; scores are recomputed.
    context.tape->record([context, args, query, key, value, output, log_sum, bias]() mutable {
      if (!output.gradient().defined()) return;
      args.query = query.value();
      args.key = key.value();
      args.value = value.value();
      Tensor dquery = Tensor::empty(args.query.shape(), args.query.dtype(), context.allocator());
      Tensor dkey = Tensor::empty(args.key.shape(), args.key.dtype(), context.allocator());
      Tensor dvalue = Tensor::empty(args.value.shape(), args.value.dtype(), context.allocator());
      Tensor drelative;
      const bool learns = bias != nullptr && bias->weights.requires_gradient();
      if (learns) drelative = Tensor::empty(args.relative.shape(), DType::kF32, context.allocator());
      INSTRUCT_KERNEL(attention_backward)
      (context, args, output.value(), log_sum, output.gradient(), dquery, dkey, dvalue, learns ? &drelative : nullptr);
      if (learns) add_to_buckets(drelative, *bias, context);
      for (auto [variable, gradient] : {std::pair{&query, &dquery}, {&key, &dkey}, {&value, &dvalue}}) {
        if (!variable->requires_gradient()) continue;
        if (variable->gradient().defined()) {
          INSTRUCT_KERNEL(add_into)(context, *gradient, variable->mutable_gradient());
        } else {
          variable->mutable_gradient() = *gradient;
        }
      }
      output.mutable_gradient() = Tensor();
    });
  }
  return output;
}

}  // namespace instruct::ops
