#include "models/rotary_files.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/json_fields.h"

namespace instruct::models {
namespace {

using formats::GgufFile;
using Scaling = nn::RotaryConfig::Scaling;

Scaling scaling_from_name(const std::string& name, const std::string& origin) {
  if (name.empty() || name == "none" || name == "default") return Scaling::kNone;
  if (name == "linear") return Scaling::kLinear;
  if (name == "dynamic") return Scaling::kDynamic;
  if (name == "yarn") return Scaling::kYarn;
  if (name == "llama3") return Scaling::kLlama3;
  if (name == "longrope" || name == "su") return Scaling::kLong;  // "su" in the first files of Phi-3
  raise(ErrorCategory::kUnsupported,
        "{}: rope scaling '{}': this program knows linear, dynamic, yarn, llama3 and longrope", origin, name);
}

std::vector<float> factors_from(const Value& scaling, const char* key) {
  std::vector<float> factors;
  for (const Value& factor : scaling.at(key).as_array()) factors.push_back(static_cast<float>(factor.as_double()));
  return factors;
}

// The factor of attention as DeepSeek's configurations put it (transformers, modeling_rope_utils.py).
double scaled_by(double factor, double share) {
  return factor <= 1 ? 1 : 0.1 * share * std::log(factor) + 1;
}

void read_yarn(const Value& scaling, nn::RotaryConfig& rotary) {
  rotary.beta_fast = number_or(scaling, "beta_fast", 32.0);
  rotary.beta_slow = number_or(scaling, "beta_slow", 1.0);
  rotary.truncate = boolean_or(scaling, "truncate", true);
  const double share = number_or(scaling, "mscale", 0);
  const double all = number_or(scaling, "mscale_all_dim", 0);
  if (rotary.attention_factor == 0 && share != 0 && all != 0)
    rotary.attention_factor = scaled_by(rotary.factor, share) / scaled_by(rotary.factor, all);
}

std::int64_t rotated_width(const Value& json, const Value* scaling, const Family& family, std::int64_t head_width) {
  double part = number_or(json, "partial_rotary_factor", 1.0);
  if (scaling != nullptr) part = number_or(*scaling, "partial_rotary_factor", part);
  if (part == 1.0) return head_width;
  if (!family.partial_rotary)
    raise(ErrorCategory::kUnsupported, "partial_rotary_factor: {} with heads that are rotated in part is not supported",
          family.model_type);
  if (!(part > 0 && part < 1)) raise(ErrorCategory::kBadData, "partial_rotary_factor is {}, expected 0 to 1", part);
  return static_cast<std::int64_t>(static_cast<double>(head_width) * part);
}

// From the parameters of a kind of layers, or null.
nn::RotaryConfig rotary_of(const Value& json, const Value* scaling, double theta, const Family& family,
                           const std::string& origin, const LlamaConfig& config) {
  nn::RotaryConfig rotary;
  rotary.width = rotated_width(json, scaling, family, config.head_width);
  rotary.theta = theta;
  const auto context = static_cast<double>(config.context_length);
  rotary.original_context = context;
  if (scaling == nullptr) return rotary;
  rotary.theta = number_or(*scaling, "rope_theta", rotary.theta);
  const Value* type = given(*scaling, "rope_type");
  if (type == nullptr) type = given(*scaling, "type");
  if (type == nullptr && given(*scaling, "factor") != nullptr)
    raise(ErrorCategory::kBadData, "rope_scaling has a factor but no rope_type");
  rotary.scaling = scaling_from_name(type != nullptr ? type->as_string() : "", origin);
  if (rotary.scaling == Scaling::kYarn && family.yarn_is_longrope) rotary.scaling = Scaling::kLong;
  if (rotary.scaling == Scaling::kNone) return rotary;
  // Beside the scaling it wins over one within (transformers, standardize_rope_params). Dynamic scaling starts past
  // the context that the model was trained with, which is max_position_embeddings itself.
  if (rotary.scaling != Scaling::kDynamic) {
    const double otherwise = family.original_context > 0 ? static_cast<double>(family.original_context) : context;
    rotary.original_context = number_or(json, "original_max_position_embeddings",
                                        number_or(*scaling, "original_max_position_embeddings", otherwise));
  }
  rotary.attention_factor = number_or(*scaling, "attention_factor", 0.0);
  const bool from_lengths = (rotary.scaling == Scaling::kYarn || rotary.scaling == Scaling::kLong) &&
                            given(*scaling, "factor") == nullptr && rotary.original_context > 0;
  rotary.factor = from_lengths ? context / rotary.original_context : scaling->at("factor").as_double();
  if (rotary.scaling == Scaling::kLlama3) {
    rotary.low_frequency_factor = number_or(*scaling, "low_freq_factor", 1.0);
    rotary.high_frequency_factor = number_or(*scaling, "high_freq_factor", 4.0);
  }
  if (rotary.scaling == Scaling::kYarn) read_yarn(*scaling, rotary);
  if (rotary.scaling == Scaling::kLong) {
    rotary.short_factors = factors_from(*scaling, "short_factor");
    rotary.long_factors = factors_from(*scaling, "long_factor");
  }
  return rotary;
}

// Hugging Face has no list of factors, so they are traced back to the llama3 scaling that gives them (frequency bounds
// 1 and 4, as in every Llama 3).
nn::RotaryConfig without_factors(const nn::RotaryConfig& rotary) {
  if (rotary.frequency_factors.empty()) return rotary;
  const std::vector<float>& wanted = rotary.frequency_factors;
  nn::RotaryConfig guess = rotary;
  guess.frequency_factors.clear();
  if (std::all_of(wanted.begin(), wanted.end(), [](float factor) { return factor == 1.0F; })) return guess;
  guess.scaling = Scaling::kLlama3;
  guess.factor = static_cast<double>(*std::max_element(wanted.begin(), wanted.end()));
  for (guess.original_context = 32; guess.original_context <= 1 << 20; guess.original_context *= 2) {
    const std::vector<float> factors = frequency_factors(guess);
    const auto near = [](float a, float b) { return std::abs(a - b) <= 1e-4F * std::abs(b); };
    if (std::equal(factors.begin(), factors.end(), wanted.begin(), wanted.end(), near)) return guess;
  }
  raise(ErrorCategory::kUnsupported,
        "a Hugging Face folder cannot hold this model's rope_freqs: they are no llama3 scaling; export it as gguf");
}

Value list_of(const std::vector<float>& factors) {
  Value list = Value::array();
  for (const float factor : factors) list.push(static_cast<double>(factor));
  return list;
}

std::vector<float> factors_from(const GgufFile& file, const std::string& name) {
  return file.has_tensor(name) ? file.tensor(name).to_floats() : std::vector<float>();
}

void add_factors(formats::GgufWriter& writer, const std::string& name, std::vector<float> factors) {
  if (factors.empty()) return;
  const auto size = static_cast<std::int64_t>(factors.size());
  writer.add(name, {size}, tensor::DType::kF32, [factors = std::move(factors), size] {
    return Tensor::from_floats(factors, {size}, *tensor::make_host_allocator());
  });
}

}  // namespace

// Newer folders keep everything about rotary positions in rope_parameters, where kinds of layers differ one by one;
// older ones in rope_theta, rope_scaling and rope_local_base_freq.
void read_rotary(const Value& json, const Family& family, const std::string& origin, LlamaConfig& config) {
  const Value* parameters = given(json, "rope_parameters");
  if (parameters == nullptr) parameters = given(json, "rope_scaling");
  const Value* full = parameters;
  const Value* windowed = nullptr;
  if (parameters != nullptr && family.window_theta > 0 && parameters->find("full_attention") != nullptr) {
    full = given(*parameters, "full_attention");
    windowed = given(*parameters, "sliding_attention");
  }
  config.rotary = rotary_of(json, full, number_or(json, "rope_theta", family.default_theta), family, origin, config);
  if (family.window_theta > 0) {
    const double theta = number_or(json, "rope_local_base_freq", family.window_theta);
    config.window_rotary = rotary_of(json, windowed, theta, family, origin, config);
  }
  // NTK-aware scaling has no last position; `factor` says how far it is meant to reach.
  if (config.rotary.scaling == Scaling::kDynamic && config.rotary.factor > 1) {
    const double most = std::min(config.rotary.factor * static_cast<double>(config.context_length), 1.0 * (1 << 24));
    config.context_length = std::max(config.context_length, static_cast<std::int64_t>(most));
  }
}

void read_rotary(const GgufFile& file, const std::string& prefix, const Family& family, LlamaConfig& config) {
  nn::RotaryConfig& rotary = config.rotary;
  const auto context = static_cast<double>(config.context_length);
  const auto number = [&](const char* key, double otherwise) { return file.number_or(prefix + key, otherwise); };
  rotary.theta = number("rope.freq_base", family.default_theta);
  rotary.width = file.integer_or(prefix + "rope.dimension_count", config.head_width);
  rotary.scaling = scaling_from_name(file.text_or(prefix + "rope.scaling.type", "none"), file.origin());
  rotary.factor = number("rope.scaling.factor", 1.0);
  rotary.original_context = number("rope.scaling.original_context_length", context);
  rotary.frequency_factors = factors_from(file, "rope_freqs.weight");
  rotary.short_factors = factors_from(file, "rope_factors_short.weight");
  rotary.long_factors = factors_from(file, "rope_factors_long.weight");
  // Files of Phi-3 have the factors and no word of a scaling.
  if (!rotary.long_factors.empty()) rotary.scaling = Scaling::kLong;
  const double attention_factor = number("rope.scaling.attn_factor", 1.0);
  if (rotary.scaling == Scaling::kLong) {
    rotary.factor = context / std::max(1.0, rotary.original_context);
    rotary.attention_factor = attention_factor;
  } else if (rotary.scaling == Scaling::kYarn) {
    rotary.beta_fast = number("rope.scaling.yarn_beta_fast", 32.0);
    rotary.beta_slow = number("rope.scaling.yarn_beta_slow", 1.0);
    // llama.cpp multiplies the usual factor by this one.
    if (attention_factor != 1) rotary.attention_factor = attention_factor * nn::usual_attention_factor(rotary);
  }
  if (family.window_theta > 0) {
    config.window_rotary = {
        .theta = number("rope.freq_base_swa", family.window_theta), .width = rotary.width, .original_context = context};
  }
  if (rotary.width != config.head_width && !family.partial_rotary) {
    raise(ErrorCategory::kUnsupported, "{}: rotary width {} differs from the head width {}", file.origin(),
          rotary.width, config.head_width);
  }
}

Value rope_scaling_json(const nn::RotaryConfig& given) {
  const nn::RotaryConfig rotary = without_factors(given);
  const Value original(static_cast<std::int64_t>(rotary.original_context));
  switch (rotary.scaling) {
    case Scaling::kNone:
      return {};
    case Scaling::kLinear:
      return Value::object({{"rope_type", "linear"}, {"factor", rotary.factor}});
    case Scaling::kDynamic:
      return Value::object({{"rope_type", "dynamic"}, {"factor", rotary.factor}});
    case Scaling::kYarn: {
      Value scaling = Value::object({{"rope_type", "yarn"},
                                     {"factor", rotary.factor},
                                     {"beta_fast", rotary.beta_fast},
                                     {"beta_slow", rotary.beta_slow},
                                     {"original_max_position_embeddings", original}});
      if (rotary.attention_factor > 0) scaling.set("attention_factor", rotary.attention_factor);
      if (!rotary.truncate) scaling.set("truncate", false);
      return scaling;
    }
    case Scaling::kLlama3:
      return Value::object({{"rope_type", "llama3"},
                            {"factor", rotary.factor},
                            {"low_freq_factor", rotary.low_frequency_factor},
                            {"high_freq_factor", rotary.high_frequency_factor},
                            {"original_max_position_embeddings", original}});
    case Scaling::kLong: {
      Value scaling = Value::object({{"rope_type", "longrope"},
                                     {"short_factor", list_of(rotary.short_factors)},
                                     {"long_factor", list_of(rotary.long_factors)},
                                     {"original_max_position_embeddings", original}});
      if (rotary.attention_factor > 0) scaling.set("attention_factor", rotary.attention_factor);
      return scaling;
    }
  }
  return {};
}

std::int64_t max_position_embeddings(const LlamaConfig& config) {
  const bool dynamic = config.rotary.scaling == Scaling::kDynamic;
  return dynamic ? static_cast<std::int64_t>(config.rotary.original_context) : config.context_length;
}

void write_rotary(formats::GgufWriter& writer, const std::string& prefix, const LlamaConfig& config) {
  const nn::RotaryConfig& rotary = config.rotary;
  const auto set = [&](const char* key, double value) { writer.set(prefix + key, static_cast<float>(value)); };
  const double usual = nn::usual_attention_factor(rotary);
  const double attention_factor = rotary.attention_factor > 0 ? rotary.attention_factor : usual;
  set("rope.freq_base", rotary.theta);
  writer.set(prefix + "rope.dimension_count", static_cast<std::uint32_t>(rotary.width));
  if (rotary.scaling == Scaling::kLinear || rotary.scaling == Scaling::kYarn) {
    writer.set(prefix + "rope.scaling.type", std::string(rotary.scaling == Scaling::kLinear ? "linear" : "yarn"));
    set("rope.scaling.factor", rotary.factor);
  }
  if (rotary.scaling == Scaling::kYarn) {
    if (!rotary.truncate)
      raise(ErrorCategory::kUnsupported,
            "a GGUF file cannot say that yarn blends within pairs (truncate: false): use hf");
    set("rope.scaling.yarn_beta_fast", rotary.beta_fast);
    set("rope.scaling.yarn_beta_slow", rotary.beta_slow);
    if (std::abs(attention_factor - usual) > 1e-6) set("rope.scaling.attn_factor", attention_factor / usual);
  }
  if (rotary.scaling == Scaling::kLong) set("rope.scaling.attn_factor", attention_factor);
  if (rotary.scaling == Scaling::kYarn || rotary.scaling == Scaling::kLong) {
    writer.set(prefix + "rope.scaling.original_context_length", static_cast<std::uint32_t>(rotary.original_context));
  }
  add_factors(writer, "rope_freqs.weight", frequency_factors(rotary));
  add_factors(writer, "rope_factors_short.weight", rotary.short_factors);
  add_factors(writer, "rope_factors_long.weight", rotary.long_factors);
}

std::vector<float> frequency_factors(const nn::RotaryConfig& rotary) {
  if (rotary.scaling != Scaling::kLlama3) return rotary.frequency_factors;
  nn::RotaryConfig plain = rotary;
  plain.scaling = Scaling::kNone;
  const std::vector<double> before = nn::rotary_frequencies(plain, 1);
  const std::vector<double> after = nn::rotary_frequencies(rotary, 1);
  std::vector<float> factors;
  for (std::size_t i = 0; i < before.size(); ++i) factors.push_back(static_cast<float>(before[i] / after[i]));
  return factors;
}

}  // namespace instruct::models
