#include "nn/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace instruct::nn {
namespace {

using Scaling = RotaryConfig::Scaling;

// Long wavelengths are slowed by `factor`, short ones kept, those between blended (Llama 3.1).
double llama3_frequency(const RotaryConfig& config, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double longest_kept = config.original_context / config.high_frequency_factor;
  const double shortest_slowed = config.original_context / config.low_frequency_factor;
  if (wavelength < longest_kept) return frequency;
  if (wavelength > shortest_slowed) return frequency / config.factor;
  const double smooth = (config.original_context / wavelength - config.low_frequency_factor) /
                        (config.high_frequency_factor - config.low_frequency_factor);
  return (1.0 - smooth) * frequency / config.factor + smooth * frequency;
}

// Pair index at which a full turn happens `turns` times within the original context.
double yarn_index(const RotaryConfig& config, double turns) {
  return static_cast<double>(config.width) * std::log(config.original_context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

double yarn_frequency(const RotaryConfig& config, double frequency, std::int64_t pair) {
  const double first = yarn_index(config, config.beta_fast);
  const double last = yarn_index(config, config.beta_slow);
  const double low = std::max(config.truncate ? std::floor(first) : first, 0.0);
  double high = std::min(config.truncate ? std::ceil(last) : last, static_cast<double>(config.width) - 1.0);
  if (high == low) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return frequency / config.factor * ramp + frequency * (1.0 - ramp);
}

}  // namespace

double usual_attention_factor(const RotaryConfig& config) {
  if (config.factor <= 1.0) return 1.0;
  if (config.scaling == Scaling::kYarn) return 0.1 * std::log(config.factor) + 1.0;
  if (config.scaling == Scaling::kLong)
    return std::sqrt(1.0 + std::log(config.factor) / std::log(config.original_context));
  return 1.0;
}

std::int64_t rotary_stage(const RotaryConfig& config, std::int64_t length) {
  if (static_cast<double>(length) <= config.original_context) return 0;
  if (config.scaling == Scaling::kDynamic) return length;
  return config.scaling == Scaling::kLong ? 1 : 0;
}

std::vector<double> rotary_frequencies(const RotaryConfig& config, std::int64_t length) {
  const bool past = rotary_stage(config, length) > 0;
  double theta = config.theta;
  const auto width = static_cast<double>(config.width);
  if (config.scaling == Scaling::kDynamic && past) {
    const double stretch =
        config.factor * static_cast<double>(length) / config.original_context - (config.factor - 1.0);
    theta *= std::pow(stretch, width / (width - 2.0));
  }
  std::vector<double> frequencies(static_cast<std::size_t>(config.width / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / width);
    switch (config.scaling) {
      case Scaling::kNone:
      case Scaling::kDynamic:
        break;
      case Scaling::kLinear:
        frequency /= config.factor;
        break;
      case Scaling::kLlama3:
        frequency = llama3_frequency(config, frequency);
        break;
      case Scaling::kYarn:
        frequency = yarn_frequency(config, frequency, static_cast<std::int64_t>(i));
        break;
      case Scaling::kLong:
        frequency /= static_cast<double>((past ? config.long_factors : config.short_factors)[i]);
        break;
    }
    if (i < config.frequency_factors.size()) frequency /= static_cast<double>(config.frequency_factors[i]);
    frequencies[i] = frequency;
  }
  return frequencies;
}

ops::RotaryTables make_rotary_tables(const RotaryConfig& config, std::int64_t positions, std::int64_t length,
                                     tensor::Allocator& allocator) {
  const std::vector<double> frequencies = rotary_frequencies(config, length);
  double magnitude = 1.0;
  if (config.scaling == Scaling::kYarn || config.scaling == Scaling::kLong)
    magnitude = config.attention_factor > 0 ? config.attention_factor : usual_attention_factor(config);
  magnitude = static_cast<double>(static_cast<float>(magnitude));  // as GGUF keeps it
  const auto half = static_cast<std::int64_t>(frequencies.size());
  ops::RotaryTables tables{tensor::Tensor::empty({positions, half}, tensor::DType::kF32, allocator),
                           tensor::Tensor::empty({positions, half}, tensor::DType::kF32, allocator)};
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      // The reference computes the angle in f32: frequency and product are rounded the same way here.
      const float angle = static_cast<float>(p) * static_cast<float>(frequencies[static_cast<std::size_t>(i)]);
      tables.cosine.data<float>()[p * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)) * magnitude);
      tables.sine.data<float>()[p * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * magnitude);
    }
  }
  return tables;
}

}  // namespace instruct::nn
