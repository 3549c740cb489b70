#include "nn/expert_mixture.h"

#include "ops/checkpoint.h"
#include "ops/rows.h"

namespace instruct::nn {
namespace {

Variable apply(const Context& context, const Expert& expert, const Variable& x, ops::Activation activation,
               std::span<const std::int32_t> adapters) {
  const auto [opened, raised] = apply_all<2>(context, x, {&expert.gate, &expert.up}, adapters);
  const auto gating = [activation, opened = opened, raised = raised](const Context& c) {
    return ops::gate(c, activation, opened, raised);
  };
  const Variable gated = gating(context);
  const Variable lowered = expert.down(context, gated, adapters);
  ops::forget(context, gated, gating);
  return lowered;
}

}  // namespace

Variable ExpertMixture::operator()(const Context& context, const Variable& x, ops::Activation activation,
                                   std::span<const std::int32_t> adapters, ops::Balance* balance) const {
  const auto chosen = ops::route(context, router(context, x, adapters), routing, balance);
  const Variable gathered = ops::select_rows(context, x, chosen->rows);  // [T * count, D]
  std::vector<std::int32_t> of_rows;
  if (!adapters.empty()) {
    for (const std::int32_t row : chosen->rows) of_rows.push_back(adapters[static_cast<std::size_t>(row)]);
  }
  std::vector<Variable> outputs(experts.size());
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::int64_t begin = chosen->begins[e];
    const std::int64_t end = chosen->begins[e + 1];
    if (begin == end) {
      for (const Linear* layer : {&experts[e].gate, &experts[e].up, &experts[e].down})
        ops::take_no_part(context, layer->weight);
      continue;
    }
    const auto part = adapters.empty() ? std::span<const std::int32_t>()
                                       : std::span<const std::int32_t>(of_rows).subspan(
                                             static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    outputs[e] = apply(context, experts[e], gathered.rows(begin, end), activation, part);
  }
  return ops::mix_experts(context, chosen, outputs);
}

}  // namespace instruct::nn
