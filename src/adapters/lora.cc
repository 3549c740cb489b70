#include "adapters/lora.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace instruct::adapters {
namespace {

// PEFT's rule for patterns and targets: a key names a module when the module path equals it or ends with ".key".
bool names_module(std::string_view key, std::string_view module) {
  if (module == key) return true;
  return module.size() > key.size() && module.ends_with(key) && module[module.size() - key.size() - 1] == '.';
}

template <typename T>
T from_pattern(const std::vector<std::pair<std::string, T>>& pattern, const std::string& module, T otherwise) {
  for (const auto& [key, value] : pattern) {
    if (names_module(key, module)) return value;
  }
  return otherwise;
}

std::string last_part(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

// A copy of an f32 tensor as f32 or bf16.
Tensor as_dtype(const Tensor& source, DType dtype, tensor::Allocator& allocator) {
  Tensor result = Tensor::empty(source.shape(), dtype, allocator);
  const std::vector<float> values = source.to_floats();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      result.data<float>()[i] = values[i];
    } else {
      result.data<tensor::BFloat16>()[i] = tensor::to_bfloat16(values[i]);
    }
  }
  return result;
}

constexpr std::string_view kHead = "lm_head";

// Its logits never exist as a whole, and nothing would add a branch's to them.
[[noreturn]] void refuse_head() {
  raise(ErrorCategory::kUnsupported,
        "LoRA on the head (lm_head) is not supported: leave it out of the target modules, or tune the whole model");
}

}  // namespace

std::int64_t LoraConfig::rank_of(const std::string& module) const {
  return from_pattern(rank_pattern, module, rank);
}
double LoraConfig::alpha_of(const std::string& module) const {
  return from_pattern(alpha_pattern, module, alpha);
}
double LoraConfig::scale_of(const std::string& module) const {
  const auto r = static_cast<double>(rank_of(module));
  return alpha_of(module) / (rank_stabilised ? std::sqrt(r) : r);
}

std::vector<nn::Linear*> match_targets(std::span<const std::string> targets, std::span<nn::Linear* const> layers) {
  std::vector<nn::Linear*> matched;
  std::vector<bool> used(targets.size(), false);
  for (nn::Linear* layer : layers) {
    bool wanted = false;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const bool all = targets[i] == "all-linear" || targets[i] == "all";
      if (all ? (layer->name != kHead && !layer->by_name_only) : names_module(targets[i], layer->name)) {
        if (layer->name == kHead) refuse_head();
        wanted = true;
        used[i] = true;
      }
    }
    if (wanted) matched.push_back(layer);
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (used[i]) continue;
    std::vector<std::string> known;
    for (const nn::Linear* layer : layers) {
      const std::string part = last_part(layer->name);
      if (std::find(known.begin(), known.end(), part) == known.end()) known.push_back(part);
    }
    raise(ErrorCategory::kInvalidArgument, "LoRA target module '{}' names no layer of this model{}", targets[i],
          did_you_mean(targets[i], known));
  }
  return matched;
}

LoraAdapter::LoraAdapter(LoraConfig config, std::vector<LoraModule> modules)
    : config_(std::move(config)), modules_(std::move(modules)) {
  attach(0, 0);
}

LoraAdapter::~LoraAdapter() {
  detach();
}

std::unique_ptr<LoraAdapter> LoraAdapter::create(const LoraConfig& config, std::span<nn::Linear* const> layers,
                                                 DType dtype, std::uint64_t seed, tensor::Allocator& allocator) {
  std::vector<LoraModule> modules;
  for (nn::Linear* layer : match_targets(config.target_modules, layers)) {
    const std::int64_t rank = config.rank_of(layer->name);
    if (rank < 1 || rank > std::min(layer->inputs(), layer->outputs())) {
      raise(ErrorCategory::kInvalidArgument, "LoRA rank {} does not fit {} [{}, {}]: expected 1 to {}", rank,
            layer->name, layer->outputs(), layer->inputs(), std::min(layer->inputs(), layer->outputs()));
    }
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer->inputs()));
    RandomStream random(seed, RandomPurpose::kInitialise, modules.size());
    Tensor a = Tensor::empty({rank, layer->inputs()}, DType::kF32, allocator);
    for (std::int64_t i = 0; i < a.elements(); ++i) {
      a.data<float>()[i] = static_cast<float>((2.0 * random.next_uniform() - 1.0) * bound);
    }
    modules.push_back({.name = layer->name,
                       .layer = layer,
                       .a = Variable::parameter(as_dtype(a, dtype, allocator)),
                       .b = Variable::parameter(Tensor::zeros({layer->outputs(), rank}, dtype, allocator)),
                       .scale = static_cast<float>(config.scale_of(layer->name))});
  }
  return std::unique_ptr<LoraAdapter>(new LoraAdapter(config, std::move(modules)));
}

std::unique_ptr<LoraAdapter> LoraAdapter::load(const LoraConfig& config, std::span<const Weights> weights,
                                               std::span<nn::Linear* const> layers, DType dtype,
                                               tensor::Allocator& allocator) {
  std::vector<LoraModule> modules;
  for (const Weights& stored : weights) {
    if (stored.module == kHead) refuse_head();
    const auto found = std::find_if(layers.begin(), layers.end(),
                                    [&](const nn::Linear* layer) { return layer->name == stored.module; });
    if (found == layers.end()) {
      std::vector<std::string> known;
      for (const nn::Linear* layer : layers) known.push_back(layer->name);
      raise(ErrorCategory::kNotFound, "adapter module '{}' is not a layer of this model: is it for another base?{}",
            stored.module, did_you_mean(stored.module, known));
    }
    nn::Linear* layer = *found;
    if (stored.a.rank() != 2 || stored.b.rank() != 2 || stored.a.dim(1) != layer->inputs() ||
        stored.b.dim(0) != layer->outputs() || stored.a.dim(0) != stored.b.dim(1)) {
      raise(ErrorCategory::kInvalidArgument,
            "adapter module '{}': A {} and B {} do not fit the base weight [{}, {}]: is it for another base model?",
            stored.module, stored.a.shape().text(), stored.b.shape().text(), layer->outputs(), layer->inputs());
    }
    if (config.rank_of(stored.module) != stored.a.dim(0)) {
      raise(ErrorCategory::kBadData, "adapter module '{}' has rank {}, its configuration says {}", stored.module,
            stored.a.dim(0), config.rank_of(stored.module));
    }
    modules.push_back({.name = stored.module,
                       .layer = layer,
                       .a = Variable::parameter(as_dtype(stored.a, dtype, allocator)),
                       .b = Variable::parameter(as_dtype(stored.b, dtype, allocator)),
                       .scale = static_cast<float>(config.scale_of(stored.module))});
  }
  return std::unique_ptr<LoraAdapter>(new LoraAdapter(config, std::move(modules)));
}

void LoraAdapter::attach(std::uint64_t seed, std::uint64_t step) {
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    LoraModule& module = modules_[i];
    // Each module and step has its own stream: step in the upper bits, module in the lower.
    module.branch = std::make_shared<const ops::LowRank>(
        ops::LowRank{.a = module.a,
                     .b = module.b,
                     .scale = module.scale,
                     .dropout = static_cast<float>(config_.dropout),
                     .random = RandomStream(seed, RandomPurpose::kDropout, step << 20 | i)});
    module.layer->attach(module.branch);
  }
}

void LoraAdapter::detach() {
  for (LoraModule& module : modules_) {
    if (module.layer->branch == module.branch) module.layer->attach(nullptr);
    module.branch.reset();
  }
}

void merge_low_rank(const Tensor& a, const Tensor& b, float scale, Tensor& weight) {
  const std::vector<float> left = b.to_floats();
  const std::vector<float> right = a.to_floats();
  const std::int64_t rank = a.dim(0);
  const std::int64_t columns = a.dim(1);
  std::vector<double> row(static_cast<std::size_t>(columns));
  for (std::int64_t n = 0; n < b.dim(0); ++n) {
    std::fill(row.begin(), row.end(), 0.0);
    for (std::int64_t r = 0; r < rank; ++r) {
      const auto factor = static_cast<double>(left[static_cast<std::size_t>(n * rank + r)]);
      for (std::int64_t k = 0; k < columns; ++k) {
        row[static_cast<std::size_t>(k)] +=
            factor * static_cast<double>(right[static_cast<std::size_t>(r * columns + k)]);
      }
    }
    float* target = weight.data<float>() + n * weight.row_stride();
    for (std::int64_t k = 0; k < columns; ++k) {
      target[k] = static_cast<float>(static_cast<double>(target[k]) +
                                     static_cast<double>(scale) * row[static_cast<std::size_t>(k)]);
    }
  }
}

}  // namespace instruct::adapters
