// Rotary position tables with the scaling variants of the LLaMA family.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/elementwise.h"

namespace instruct::nn {

struct RotaryConfig {
  enum class Scaling { kNone, kLinear, kDynamic, kYarn, kLlama3 };
  double theta = 10000.0;
  std::int64_t width = 0;  // rotated width of a head, K
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_frequency_factor = 1.0;     // llama3
  double high_frequency_factor = 4.0;    // llama3
  double original_context = 8192;        // llama3, dynamic, yarn
  double beta_fast = 32.0;               // yarn
  double beta_slow = 1.0;                // yarn
  double attention_factor = 0.0;         // yarn; 0 takes 0.1 ln(factor) + 1
  std::vector<float> frequency_factors;  // GGUF rope_freqs: divides each frequency; empty for none
};

// Angular frequencies, [K/2]. kDynamic depends on the number of positions (NTK-aware scaling).
std::vector<double> rotary_frequencies(const RotaryConfig& config, std::int64_t positions);

// Tables for positions 0 .. positions-1: cosine and sine [positions, K/2], f32, computed in f64. YaRN's attention
// factor multiplies both (Peng et al., "YaRN", 2023).
ops::RotaryTables make_rotary_tables(const RotaryConfig& config, std::int64_t positions, tensor::Allocator& allocator);

}  // namespace instruct::nn
