#include "ops/experts.h"

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

void sort_by_expert(std::span<const std::int32_t> chosen, std::int64_t experts, std::int64_t count, Routing& routing) {
  routing.begins.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (const std::int32_t expert : chosen) ++routing.begins[static_cast<std::size_t>(expert) + 1];
  for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) routing.begins[e + 1] += routing.begins[e];
  std::vector<std::int64_t> next = routing.begins;
  routing.rows.resize(chosen.size());
  routing.places.resize(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto place = static_cast<std::size_t>(next[static_cast<std::size_t>(chosen[i])]++);
    routing.rows[place] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) / count);
    routing.places[i] = static_cast<std::int32_t>(place);
  }
}

}  // namespace

void Balance::add(const Tensor& probabilities, std::span<const std::int32_t> chosen) {
  if (!open_) return;
  const std::int64_t experts = probabilities.dim(1);
  chosen_.resize(static_cast<std::size_t>(experts), 0.0);
  probabilities_.resize(static_cast<std::size_t>(experts), 0.0);
  for (const std::int32_t expert : chosen) chosen_[static_cast<std::size_t>(expert)] += 1;
  for (std::int64_t t = 0; t < probabilities.dim(0); ++t) {
    const float* row = probabilities.data<float>() + t * probabilities.row_stride();
    for (std::int64_t e = 0; e < experts; ++e)
      probabilities_[static_cast<std::size_t>(e)] += static_cast<double>(row[e]);
  }
  rows_ += static_cast<double>(probabilities.dim(0));
}

double Balance::loss() const {
  double sum = 0;
  for (std::size_t e = 0; e < chosen_.size(); ++e) sum += chosen_[e] / rows_ * probabilities_[e] / rows_;
  return static_cast<double>(chosen_.size()) * sum;
}

std::vector<float> Balance::gradient() const {
  std::vector<float> gradient;
  for (const double count : chosen_)
    gradient.push_back(
        static_cast<float>(static_cast<double>(weight_) * static_cast<double>(chosen_.size()) * count / rows_ / rows_));
  return gradient;
}

std::shared_ptr<const Routing> route(const Context& context, const Variable& logits, const RouteOptions& options,
                                     Balance* balance) {
  const std::int64_t rows = logits.value().dim(0);
  const std::int64_t experts = logits.value().dim(1);
  if (options.count < 1 || options.count > experts)
    raise(ErrorCategory::kInvalidArgument, "route: {} experts a row of {}", options.count, experts);
  Tensor probabilities = Tensor::empty({rows, experts}, DType::kF32, context.allocator());
  auto routing = std::make_shared<Routing>();
  routing->weights =
      Variable(Tensor::empty({rows, options.count}, DType::kF32, context.allocator()), context.records({&logits}));
  // Evenly spread where the kernel computes nothing (Engine::rehearse).
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(rows * options.count));
  for (std::size_t i = 0; i < chosen.size(); ++i)
    chosen[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % experts);
  INSTRUCT_KERNEL(route)
  (context, logits.value(), options.renormalise, probabilities, chosen, routing->weights.mutable_value());
  if (balance != nullptr) balance->add(probabilities, chosen);
  sort_by_expert(chosen, experts, options.count, *routing);
  if (routing->weights.requires_gradient()) {
    // Keeps the probabilities and the choice, and the routing for as long as what was recorded after this needs it.
    context.tape->record([context, logits, options, balance, probabilities, routing, chosen = std::move(chosen)] {
      const Variable& weights = routing->weights;
      if (!weights.gradient().defined()) return;
      const std::vector<float> even = balance != nullptr ? balance->gradient() : std::vector<float>();
      Tensor dlogits = Tensor::empty(logits.shape(), logits.dtype(), context.allocator());
      INSTRUCT_KERNEL(route_backward)
      (context, probabilities, chosen, options.renormalise, weights.value(), weights.gradient(), even, dlogits);
      logits.mutable_gradient() = dlogits;  // read by nothing else
      weights.mutable_gradient() = Tensor();
    });
  }
  return routing;
}

Variable mix_experts(const Context& context, const std::shared_ptr<const Routing>& routing,
                     std::span<const Variable> outputs) {
  const Variable* any = nullptr;
  bool records = context.records({&routing->weights});
  for (const Variable& output : outputs) {
    if (!output.defined()) continue;
    any = &output;
    records = records || context.records({&output});
  }
  INSTRUCT_CHECK(any != nullptr);
  const std::int64_t width = any->value().dim(1);
  Tensor all = Tensor::empty({routing->begins.back(), width}, any->dtype(), context.allocator());
  for (std::size_t e = 0; e < outputs.size(); ++e) {
    if (!outputs[e].defined()) continue;
    Tensor part = all.rows(routing->begins[e], routing->begins[e + 1]);
    INSTRUCT_KERNEL(convert)(context, outputs[e].value(), part);
    outputs[e].forget();  // it stands in `all`
  }
  Variable y(Tensor::empty({routing->weights.shape()[0], width}, all.dtype(), context.allocator()), records);
  INSTRUCT_KERNEL(mix_rows)(context, all, routing->places, routing->weights.value(), y.mutable_value());
  if (records) {
    // Keeps what the experts gave, for the gradients of the weights.
    context.tape->record([context, routing, y, all, parts = std::vector<Variable>(outputs.begin(), outputs.end())] {
      if (!y.gradient().defined()) return;
      const Variable& weights = routing->weights;
      Tensor dall = Tensor::empty(all.shape(), all.dtype(), context.allocator());
      Tensor dweights = Tensor::empty(weights.shape(), DType::kF32, context.allocator());
      INSTRUCT_KERNEL(mix_rows_backward)
      (context, all, routing->places, weights.value(), y.gradient(), dall, dweights);
      if (weights.requires_gradient()) weights.mutable_gradient() = dweights;
      for (std::size_t e = 0; e < parts.size(); ++e) {
        if (parts[e].requires_gradient())
          parts[e].mutable_gradient() = dall.rows(routing->begins[e], routing->begins[e + 1]);
      }
      y.mutable_gradient() = Tensor();
    });
  }
  return y;
}

void take_no_part(const Context& context, const Variable& parameter) {
  if (!context.records({&parameter})) return;
  context.tape->record([context, parameter] {
    GradientTarget target = gradient_target(context, parameter);
    if (target.fresh) target.gradient.fill_zero();
  });
}

}  // namespace instruct::ops
