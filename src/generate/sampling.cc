#include "generate/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace instruct::generate {

void penalise_repeats(std::span<float> logits, std::span<const std::int32_t> seen, double penalty) {
  if (penalty == 1.0) return;
  std::vector<std::int32_t> tokens(seen.begin(), seen.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= static_cast<std::int64_t>(logits.size())) continue;
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

std::int32_t argmax(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, RandomStream& random) {
  if (options.temperature <= 0) return argmax(logits);
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::size_t keep = order.size();
  if (options.top_k > 0) keep = std::min(keep, static_cast<std::size_t>(options.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(), more_likely);
  order.resize(keep);
  std::vector<double> weights;
  const double most = static_cast<double>(logits[static_cast<std::size_t>(order.front())]);
  double total = 0;
  for (const std::int32_t token : order) {
    const double weight =
        std::exp((static_cast<double>(logits[static_cast<std::size_t>(token)]) - most) / options.temperature);
    if (weight < options.min_p) break;
    weights.push_back(weight);
    total += weight;
  }
  double kept = 0;
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < options.top_p * total)) kept += weights[count++];
  double draw = random.next_uniform() * kept;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    draw -= weights[i];
    if (draw < 0) return order[i];
  }
  return order[count - 1];
}

double log_probability(std::span<const float> logits, std::int32_t token) {
  const double most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - most - std::log(sum);
}

}  // namespace instruct::generate
