#include "models/llama.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "models/config_check.h"
#include "models/families.h"
#include "models/long_texts.h"
#include "models/weight_loader.h"
#include "ops/checkpoint.h"
#include "ops/rows.h"

namespace instruct::models {
namespace {

void check_rotary(const nn::RotaryConfig& rotary, std::int64_t head_width, const std::string& origin) {
  require(rotary.theta > 1 && std::isfinite(rotary.theta), origin, "rope_theta", rotary.theta);
  require(rotary.original_context >= 1 && rotary.original_context <= 1 << 24, origin,
          "original_max_position_embeddings", rotary.original_context);
  require(rotary.low_frequency_factor > 0 && rotary.high_frequency_factor > rotary.low_frequency_factor &&
              std::isfinite(rotary.high_frequency_factor),
          origin, "high_freq_factor", rotary.high_frequency_factor);
  require(rotary.beta_slow > 0 && rotary.beta_fast >= rotary.beta_slow && std::isfinite(rotary.beta_fast), origin,
          "beta_fast", rotary.beta_fast);
  require(rotary.width >= 2 && rotary.width <= head_width && rotary.width % 2 == 0, origin,
          "the width that is rotated of a head", static_cast<double>(rotary.width));
  using Scaling = nn::RotaryConfig::Scaling;
  const bool longrope = rotary.scaling == Scaling::kLong;
  for (const auto& [factors, may_lack, name] : {std::tuple{&rotary.frequency_factors, true, "rope frequency factors"},
                                                std::tuple{&rotary.short_factors, !longrope, "short_factor"},
                                                std::tuple{&rotary.long_factors, !longrope, "long_factor"}}) {
    if (factors->empty() ? !may_lack : static_cast<std::int64_t>(factors->size()) * 2 != rotary.width)
      raise(ErrorCategory::kBadData, "{}: {}: {} numbers, one for each of {} pairs is needed", origin, name,
            factors->size(), rotary.width / 2);
    for (const float divisor : *factors)
      require(divisor > 0 && std::isfinite(divisor), origin, name, static_cast<double>(divisor));
  }
  require(rotary.factor > 0 && std::isfinite(rotary.factor), origin, "rope scaling factor", rotary.factor);
  require(!longrope || rotary.original_context > 1, origin, "original_max_position_embeddings",
          rotary.original_context);
  require(rotary.attention_factor >= 0 && rotary.attention_factor <= 1e6, origin, "attention_factor",
          rotary.attention_factor);
}

nn::ExpertMixture load_mixture(const LlamaConfig& config, const std::string& prefix, WeightLoader& loader) {
  const Family& family = family_of(config.architecture);
  const std::string module = prefix + std::string(family.experts_module);
  const auto linear = [&](const std::string& name, std::int64_t outputs, std::int64_t inputs) {
    nn::Linear layer = loader.linear(name, outputs, inputs, false);
    layer.by_name_only = true;
    return layer;
  };
  nn::ExpertMixture mixture{.router = linear(module + ".gate", config.experts, config.width)};
  mixture.routing = {.count = config.chosen_experts,
                     .renormalise = config.renormalise_experts ? ops::Renormalise::kYes : ops::Renormalise::kNo};
  const auto [gate, up, down] = family.expert_names;
  for (std::int64_t e = 0; e < config.experts; ++e) {
    const std::string expert = fmt::format("{}.experts.{}.", module, e);
    mixture.experts.push_back({.gate = linear(expert + std::string(gate), config.expert_width, config.width),
                               .up = linear(expert + std::string(up), config.expert_width, config.width),
                               .down = linear(expert + std::string(down), config.width, config.expert_width)});
  }
  return mixture;
}

bool is_longrope(const LlamaConfig& config) {
  return config.rotary.scaling == nn::RotaryConfig::Scaling::kLong;
}

// Tables of `size` positions for short texts, and behind them those for long ones.
ops::RotaryTables short_and_long(const nn::RotaryConfig& rotary, std::int64_t size, tensor::Allocator& allocator) {
  ops::RotaryTables both;
  const auto past = static_cast<std::int64_t>(rotary.original_context) + 1;
  for (const std::int64_t length : {std::int64_t{1}, past}) {
    const ops::RotaryTables part = nn::make_rotary_tables(rotary, size, length, allocator);
    for (const auto& [to, from] : {std::pair{&both.cosine, &part.cosine}, std::pair{&both.sine, &part.sine}}) {
      const std::int64_t pairs = from->dim(1);
      if (!to->defined()) *to = Tensor::empty({2 * size, pairs}, DType::kF32, allocator);
      std::copy_n(from->data<float>(), size * pairs, to->data<float>() + (length == past ? size * pairs : 0));
    }
  }
  return both;
}

// Where each token's position stands in such tables.
std::vector<std::int32_t> rows_of_long_texts(const LlamaConfig& config, const Pass& pass, std::int64_t size) {
  const std::vector<bool> is_long = tokens_of_long_texts(*pass.plan, pass.positions, config.rotary.original_context,
                                                         pass.cache != nullptr ? Keys::kCached : Keys::kOfPass);
  std::vector<std::int32_t> rows(pass.positions.begin(), pass.positions.end());
  for (std::size_t t = 0; t < rows.size(); ++t) rows[t] += is_long[t] ? static_cast<std::int32_t>(size) : 0;
  return rows;
}

std::string weight_of(std::string_view module) {
  return std::string(module) + ".weight";
}
std::string block_prefix(const DecoderNames& names, std::int64_t index) {
  return fmt::format("{}{}.", names.block, index);
}

nn::LayerNorm load_norm(const LlamaConfig& config, const std::string& name, std::int64_t width, WeightLoader& loader) {
  nn::LayerNorm norm{.weight = loader.vector(weight_of(name), width),
                     .epsilon = config.norm_epsilon,
                     .centred = config.layer_norms,
                     .offset = config.norm_offset};
  if (config.layer_norms) norm.bias = loader.vector(name + ".bias", width);
  return norm;
}

// What scores of queries and keys are multiplied by.
float score_scale(const LlamaConfig& config, std::int64_t layer) {
  const auto scalar = static_cast<double>(config.query_scalar > 0 ? config.query_scalar : config.head_width);
  return static_cast<float>(1.0 / std::sqrt(scalar) / (config.scores_by_layer ? static_cast<double>(layer + 1) : 1.0));
}

// The layers of a block as files name them.
template <typename Block>
auto attention_layers(Block& block) {
  using Layer = decltype(&block.output);
  if (block.fused_attention.weight.defined()) return std::vector<Layer>{&block.fused_attention, &block.output};
  return std::vector<Layer>{&block.query, &block.key, &block.value, &block.output};
}
template <typename Block>
auto feed_forward_layers(Block& block) {
  using Layer = decltype(&block.output);
  if (!block.mixture.experts.empty()) {
    std::vector<Layer> layers{&block.mixture.router};
    for (auto& expert : block.mixture.experts) layers.insert(layers.end(), {&expert.gate, &expert.up, &expert.down});
    return layers;
  }
  if (block.fused_gating.weight.defined()) return std::vector<Layer>{&block.fused_gating, &block.down};
  if (!block.gate.weight.defined()) return std::vector<Layer>{&block.up, &block.down};
  return std::vector<Layer>{&block.gate, &block.up, &block.down};
}

}  // namespace

void LlamaConfig::check(const std::string& origin) const {
  const auto in_range = [&](std::int64_t value, std::int64_t most, const char* what) {
    require(value >= 1 && value <= most, origin, what, static_cast<double>(value));
  };
  in_range(layers, 1024, "num_hidden_layers");
  in_range(width, 1 << 17, "hidden_size");
  in_range(feed_forward_width, 1 << 20, "intermediate_size");
  in_range(heads, 4096, "num_attention_heads");
  in_range(key_value_heads, 4096, "num_key_value_heads");
  in_range(head_width, 1024, "head_dim");
  in_range(vocabulary, 1 << 22, "vocab_size");
  in_range(context_length, std::int64_t{1} << 24, "max_position_embeddings");
  require(heads % key_value_heads == 0, origin, "num_attention_heads modulo num_key_value_heads",
          static_cast<double>(heads % key_value_heads));
  require(head_width % 2 == 0, origin, "head_dim (odd)", static_cast<double>(head_width));
  require(norm_epsilon > 0 && norm_epsilon < 1, origin, layer_norms ? "layer_norm_epsilon" : "rms_norm_eps",
          static_cast<double>(norm_epsilon));
  require(unrotated.empty() || static_cast<std::int64_t>(unrotated.size()) == layers, origin,
          "the number of no_rope_layers", static_cast<double>(unrotated.size()));
  require(windowed.empty() || static_cast<std::int64_t>(windowed.size()) == layers, origin, "the number of layer_types",
          static_cast<double>(windowed.size()));
  require(query_scalar >= 0 && query_scalar <= 1 << 20, origin, "query_pre_attn_scalar",
          static_cast<double>(query_scalar));
  for (const auto& [cap, name] :
       {std::pair{attention_soft_cap, "attn_logit_softcapping"}, std::pair{logit_soft_cap, "final_logit_softcapping"}})
    require(cap >= 0 && cap <= 1e6F, origin, name, static_cast<double>(cap));
  if (experts > 0) {
    in_range(experts, 4096, "num_experts");
    in_range(expert_width, 1 << 20, "moe_intermediate_size");
    if (chosen_experts < 1 || chosen_experts > experts)
      raise(ErrorCategory::kBadData, "{}: num_experts_per_tok is {}, expected 1 to {}, the number of experts", origin,
            chosen_experts, experts);
    require(balance_weight >= 0 && balance_weight <= 1e6, origin, "router_aux_loss_coef", balance_weight);
  }
  if (!learned_positions) check_rotary(rotary, head_width, origin);
  if (window_rotary) check_rotary(*window_rotary, head_width, origin);
}

Llama::Llama(LlamaConfig config, const WeightSource& source, const WeightOptions& options, tensor::Allocator& allocator)
    : config_(std::move(config)), dtype_(options.dtype) {
  config_.check(source.origin());
  WeightLoader loader(source, options, allocator);
  const DecoderNames& names = family_of(config_.architecture).names;
  const std::int64_t d = config_.width;
  const std::int64_t q = config_.heads * config_.head_width;
  const std::int64_t kv = config_.key_value_heads * config_.head_width;
  const std::int64_t f = config_.feed_forward_width;
  blocks_.reserve(static_cast<std::size_t>(config_.layers));  // layers refer to each other
  embedding_ = loader.matrix(weight_of(names.embedding), config_.vocabulary, d);
  if (config_.learned_positions) positions_ = loader.matrix(weight_of(names.positions), config_.context_length, d);
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    nn::DecoderBlock& block = blocks_.emplace_back(load_block(i, loader));
    if (block.fused_attention.weight.defined())
      loader.cut(block.fused_attention, {{&block.query, q}, {&block.key, kv}, {&block.value, kv}});
    if (block.fused_gating.weight.defined()) loader.cut(block.fused_gating, {{&block.gate, f}, {&block.up, f}});
    if (!loader.kept()) source.release();  // block by block, so that loading needs less than computing
  }
  norm_ = load_norm(config_, std::string(names.norm), d, loader);
  if (config_.tied_embeddings) {
    head_.integer = loader.packed(embedding_);
  } else {
    head_ = loader.linear("lm_head", config_.vocabulary, d, false);
  }
  if (!loader.kept()) source.release();
}

nn::DecoderBlock Llama::load_block(std::int64_t index, WeightLoader& loader) const {
  const Family& family = family_of(config_.architecture);
  const DecoderNames& names = family.names;
  const std::int64_t d = config_.width;
  const std::int64_t q = config_.heads * config_.head_width;
  const std::int64_t kv = config_.key_value_heads * config_.head_width;
  const std::int64_t f = config_.feed_forward_width;
  const std::string prefix = block_prefix(names, index);
  const auto named = [&](std::string_view name) { return prefix + std::string(name); };
  const auto norm = [&](std::string_view name, std::int64_t width) {
    return load_norm(config_, named(name), width, loader);
  };
  const auto linear = [&](std::string_view name, std::int64_t outputs, std::int64_t inputs, bool bias) {
    return loader.linear(named(name), outputs, inputs, bias);
  };
  nn::DecoderBlock block;
  block.index = index;
  block.attention.head_width = config_.head_width;
  block.attention.scale = score_scale(config_, index);
  block.attention.soft_cap = config_.attention_soft_cap;
  if (config_.windowed.empty() || config_.windowed[static_cast<std::size_t>(index)])
    block.attention.window = config_.sliding_window;
  const bool rotated = config_.unrotated.empty() || !config_.unrotated[static_cast<std::size_t>(index)];
  if (rotated && !config_.learned_positions) block.rotary = block.attention.window > 0 && config_.window_rotary ? 1 : 0;
  block.activation = config_.activation;
  block.attention_norm = norm(names.attention_norm, d);
  if (config_.fused_projections) {
    block.fused_attention = loader.whole(named(names.fused_attention), q + 2 * kv, d, config_.attention_bias);
  } else {
    block.query = linear(names.query, q, d, config_.attention_bias);
    block.key = linear(names.key, kv, d, config_.attention_bias);
    block.value = linear(names.value, kv, d, config_.attention_bias);
  }
  block.output = linear(names.output, d, q, config_.output_bias);
  if (config_.head_norms) {
    block.query_norm = norm("self_attn.q_norm", config_.head_width);
    block.key_norm = norm("self_attn.k_norm", config_.head_width);
  }
  if (config_.out_norms) {
    block.attention_out_norm = norm("post_attention_layernorm", d);
    block.feed_forward_norm = norm("pre_feedforward_layernorm", d);
    block.feed_forward_out_norm = norm("post_feedforward_layernorm", d);
  } else {
    block.feed_forward_norm = norm(names.feed_forward_norm, d);
  }
  if (config_.has_experts(index)) {
    block.mixture = load_mixture(config_, prefix, loader);
  } else {
    if (config_.gated && config_.fused_projections) {
      block.fused_gating = loader.whole(named(names.fused_gating), 2 * f, d, config_.layer_norms);
    } else {
      if (config_.gated) block.gate = linear(names.gate, f, d, config_.layer_norms);
      block.up = linear(names.up, f, d, config_.layer_norms);
    }
    block.down = linear(names.down, d, f, config_.layer_norms);
  }
  for (nn::Linear* layer : attention_layers(block)) layer->inputs_first = family.inputs_first;
  for (nn::Linear* layer : feed_forward_layers(block)) layer->inputs_first = family.inputs_first;
  return block;
}

Llama::Tables Llama::tables_for(std::int64_t positions, tensor::Allocator& allocator) {
  const std::lock_guard lock(tables_mutex_);
  const bool both = is_longrope(config_);
  const std::int64_t stage = both ? 0 : nn::rotary_stage(config_.rotary, positions);
  if (!tables_[0].cosine.defined() || tables_[0].cosine.dim(0) < (both ? 2 : 1) * positions || stage != tables_stage_) {
    // Those of dynamic scaling serve one length only; others grow by doubling.
    std::int64_t size = stage == positions ? positions : 1024;
    while (size < positions) size *= 2;
    size = std::min(size, config_.context_length);
    const auto make = [&](const nn::RotaryConfig& rotary) {
      return both ? short_and_long(rotary, size, allocator)
                  : nn::make_rotary_tables(rotary, size, positions, allocator);
    };
    tables_[0] = make(config_.rotary);
    if (config_.window_rotary) tables_[1] = make(*config_.window_rotary);
    tables_stage_ = stage;
  }
  return tables_;
}

Variable Llama::hidden(const Context& context, const Pass& pass) {
  std::int64_t longest = 0;
  for (const std::int32_t position : pass.positions) longest = std::max<std::int64_t>(longest, position + 1);
  if (longest > config_.context_length) {
    raise(ErrorCategory::kInvalidArgument, "the text has {} tokens, the model's context is {}", longest,
          config_.context_length);
  }
  const Tables tables = config_.learned_positions ? Tables() : tables_for(longest, context.allocator());
  const auto rows_of_tables = std::make_shared<std::vector<std::int32_t>>();
  if (is_longrope(config_)) {
    *rows_of_tables = rows_of_long_texts(config_, pass, tables[0].cosine.dim(0) / 2);
    if (context.tape != nullptr) context.tape->record([rows_of_tables] {});  // runs last: all others read them
  }
  const nn::PassInput input{.positions = rows_of_tables->empty() ? pass.positions : *rows_of_tables,
                            .plan = pass.plan,
                            .rotary = tables,
                            .cache = pass.cache,
                            .slots = pass.slots,
                            .adapters = pass.adapters,
                            .balance = pass.balance};
  // The balance of experts counts all tokens in all layers.
  const bool all_rows = pass.balance != nullptr;
  Variable x = ops::embedding(context, embedding_, pass.tokens, dtype_, config_.padding);  // [T, D]
  // Rounded as transformers rounds it, with which the models were trained.
  const float scale = config_.embedding_scale;
  x = ops::scale(context, x, dtype_ == DType::kBF16 ? tensor::to_float(tensor::to_bfloat16(scale)) : scale);
  if (positions_.defined()) x = ops::add(context, x, ops::embedding(context, positions_, pass.positions, dtype_));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const auto rows = i + 1 == blocks_.size() && !all_rows ? pass.rows : std::span<const std::int32_t>();
    if (!pass.checkpoint) {
      x = blocks_[i](context, x, input, rows);
      continue;
    }
    x = ops::checkpoint(context, x, [&block = blocks_[i], input, rows](const Context& again, const Variable& in) {
      return block(again, in, input, rows);
    });
  }
  if (all_rows && !pass.rows.empty()) x = ops::select_rows(context, x, pass.rows);
  if (all_rows) pass.balance->close();
  return norm_(context, x);
}

std::vector<float> Llama::log_probabilities(const Context& context, const Pass& pass,
                                            const ops::Predictions& predictions, std::int64_t vocabulary) {
  return ops::linear_cross_entropy(context, hidden(context, pass), head(), predictions, vocabulary, head_.integer,
                                   {.soft_cap = config_.logit_soft_cap});
}

Tensor Llama::logits(const Context& context, const Pass& pass) {
  return ops::logits(context, hidden(context, pass).value(), head().value(), head_.integer,
                     {.soft_cap = config_.logit_soft_cap});
}

nn::KeyValueCache Llama::make_cache(std::int64_t slots, tensor::Allocator& allocator,
                                    std::optional<DType> dtype) const {
  return {config_.layers, slots, config_.key_value_heads, config_.head_width, dtype.value_or(dtype_), allocator};
}

bool Llama::has_integer_products() const {
  return head_.integer.forward != nullptr ||
         std::any_of(blocks_.begin(), blocks_.end(), [](const nn::DecoderBlock& block) {
           return block.query.integer.forward != nullptr || block.down.integer.forward != nullptr;
         });
}

std::vector<nn::Linear*> Llama::linears() {
  std::vector<nn::Linear*> result;
  for (nn::DecoderBlock& block : blocks_) {
    for (nn::Linear* layer : attention_layers(block)) result.push_back(layer);
    for (nn::Linear* layer : feed_forward_layers(block)) result.push_back(layer);
  }
  if (!config_.tied_embeddings) result.push_back(&head_);
  return result;
}

std::vector<NamedWeight> Llama::weights() const {
  const DecoderNames& names = family_of(config_.architecture).names;
  std::vector<NamedWeight> result{{weight_of(names.embedding), embedding_}};
  if (positions_.defined()) result.push_back({weight_of(names.positions), positions_});
  for (const nn::DecoderBlock& block : blocks_) {
    const auto add_norm = [&](std::string_view name, const nn::LayerNorm& norm) {
      if (norm.defined()) add_weights(block_prefix(names, block.index) + std::string(name), norm, result);
    };
    add_norm(names.attention_norm, block.attention_norm);
    for (const nn::Linear* layer : attention_layers(block)) add_weights(*layer, result);
    add_norm("self_attn.q_norm", block.query_norm);
    add_norm("self_attn.k_norm", block.key_norm);
    if (config_.out_norms) {
      add_norm("post_attention_layernorm", block.attention_out_norm);
      add_norm("pre_feedforward_layernorm", block.feed_forward_norm);
      add_norm("post_feedforward_layernorm", block.feed_forward_out_norm);
    } else {
      add_norm(names.feed_forward_norm, block.feed_forward_norm);
    }
    for (const nn::Linear* layer : feed_forward_layers(block)) add_weights(*layer, result);
  }
  add_weights(std::string(names.norm), norm_, result);
  if (!config_.tied_embeddings) add_weights(head_, result);
  return result;
}

std::string Llama::fingerprint() const {
  std::string bytes;
  for (const NamedWeight& weight : weights()) {
    if (weight.variable.value().rank() != 1 || !weight.name.ends_with(".weight")) continue;  // norms have vectors
    // With the offset: GGUF keeps the sum.
    for (float value : weight.variable.value().to_floats()) {
      value += config_.norm_offset;
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
  }
  return sha256_hex(bytes);
}

}  // namespace instruct::models
