// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

namespace instruct::generate {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double min_p = 0.0;  // relative to the most likely token
  double repetition_penalty = 1.0;
  std::uint64_t seed = 0;
};

// Divides positive and multiplies negative logits of tokens seen before (Keskar et al., "CTRL", 2019). In place.
void penalise_repeats(std::span<float> logits, std::span<const std::int32_t> seen, double penalty);

// A token that may be drawn. Weights are relative to the most likely token's 1.
struct Candidate {
  std::int32_t token = 0;
  double weight = 0;
};

// The tokens that are left by temperature (above 0), then top-k, then top-p (Holtzman et al., 2019), then min-p (Nguyen
// et al., 2024), each on what the one before it left: the order of transformers. At least one; the same order each
// time.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options);

// A token by the options: the most likely one when greedy, else one draw among candidates().
std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, RandomStream& random);

}  // namespace instruct::generate
