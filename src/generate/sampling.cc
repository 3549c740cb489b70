#include "generate/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cross_entropy.h"

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

namespace {

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}
bool less_likely(const Candidate& a, const Candidate& b) {
  return more_likely(b, a);
}

void keep_top_k(std::vector<Candidate>& kept, std::int64_t top_k) {
  if (top_k <= 0 || static_cast<std::size_t>(top_k) >= kept.size()) return;
  std::nth_element(kept.begin(), kept.begin() + (top_k - 1), kept.end(), more_likely);
  kept.resize(static_cast<std::size_t>(top_k));
  std::sort(kept.begin(), kept.end(), more_likely);  // nth_element leaves no order of its own
}

// The fewest tokens that hold this share of the weight. A heap gives them one by one: the rest is never sorted.
void keep_top_p(std::vector<Candidate>& kept, double top_p) {
  if (top_p >= 1.0) return;
  double total = 0;
  for (const Candidate& candidate : kept) total += candidate.weight;
  std::make_heap(kept.begin(), kept.end(), less_likely);
  auto end = kept.end();
  double held = 0;
  do {
    std::pop_heap(kept.begin(), end, less_likely);
    held += (--end)->weight;
  } while (end != kept.begin() && held < top_p * total);
  kept.erase(kept.begin(), end);  // what was popped lies behind, the most likely last
  std::reverse(kept.begin(), kept.end());
}

}  // namespace

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options) {
  const auto most = static_cast<double>(logits[static_cast<std::size_t>(ops::most_likely(logits))]);
  std::vector<Candidate> kept;
  kept.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - most) / options.temperature);
    if (weight > 0) kept.push_back({static_cast<std::int32_t>(i), weight});
  }
  if (kept.empty()) return {{ops::most_likely(logits), 1.0}};  // logits that are not finite: the caller's to find
  keep_top_k(kept, options.top_k);
  keep_top_p(kept, options.top_p);
  if (options.min_p > 0) {
    std::erase_if(kept, [&](const Candidate& candidate) { return candidate.weight < std::min(1.0, options.min_p); });
  }
  return kept;
}

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, RandomStream& random) {
  if (options.temperature <= 0) return ops::most_likely(logits);
  const std::vector<Candidate> kept = candidates(logits, options);
  double total = 0;
  for (const Candidate& candidate : kept) total += candidate.weight;
  double draw = random.next_uniform() * total;
  for (const Candidate& candidate : kept) {
    draw -= candidate.weight;
    if (draw < 0) return candidate.token;
  }
  return kept.back().token;
}

}  // namespace instruct::generate
