// Rotary position tables with the scaling variants of the LLaMA family.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/elementwise.h"

namespace instruct::nn {

struct RotaryConfig {
  enum class Scaling { kNone, kLinear, kDynamic, kYarn, kLlama3, kLong };
  double theta = 10000.0;
  std::int64_t width = 0;  // that is rotated of a head: K, or less of it, from its start
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_frequency_factor = 1.0;     // llama3
  double high_frequency_factor = 4.0;    // llama3
  double original_context = 8192;        // llama3, dynamic, yarn, longrope
  double beta_fast = 32.0;               // yarn
  double beta_slow = 1.0;                // yarn
  bool truncate = true;                  // yarn: blended between whole pairs
  double attention_factor = 0.0;         // yarn, longrope: multiplies the tables; 0 takes usual_attention_factor()
  std::vector<float> frequency_factors;  // GGUF rope_freqs: divides each frequency; empty for none
  std::vector<float> short_factors;      // longrope: so in texts within the original context ...
  std::vector<float> long_factors;       // ... and so in longer ones
};

// What multiplies the tables where a configuration says nothing (Peng et al., "YaRN", 2023, and Ding et al.,
// "LongRoPE", 2024, as transformers has them); 1 for scalings without such a factor.
double usual_attention_factor(const RotaryConfig& config);

// Whether a text of `length` tokens turns by other frequencies than a short one: some number for each such set, 0 for
// that of short texts. Dynamic scaling (NTK-aware) has one for every length past the original context, longrope one.
std::int64_t rotary_stage(const RotaryConfig& config, std::int64_t length);

// Angular frequencies, [width/2], in a text of `length` tokens.
std::vector<double> rotary_frequencies(const RotaryConfig& config, std::int64_t length);

// Tables for positions 0 .. positions-1 in a text of `length` tokens: cosine and sine [positions, width/2], f32,
// computed in f64.
ops::RotaryTables make_rotary_tables(const RotaryConfig& config, std::int64_t positions, std::int64_t length,
                                     tensor::Allocator& allocator);

}  // namespace instruct::nn
