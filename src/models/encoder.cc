#include "models/encoder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/checkpoint.h"
#include "ops/rows.h"

namespace instruct::models {
namespace {

// What the files of this source put in front of the encoder's weights: nothing, or what models with heads do.
std::string prefix_of(const WeightSource& source, const EncoderNames& names) {
  const bool bare = source.has(std::string(names.words));
  return bare ? "" : std::string(names.prefix);
}

}  // namespace

Encoder::Encoder(EncoderConfig config, const WeightSource& source, const WeightOptions& options,
                 tensor::Allocator& allocator)
    : config_(std::move(config)), dtype_(options.dtype) {
  config_.check(source.origin());
  const EncoderNames& names = encoder_family_of(config_.architecture).names;
  const std::string prefix = prefix_of(source, names);
  WeightLoader loader(source, options, allocator);
  const std::int64_t d = config_.width;
  const auto matrix = [&](std::string_view name, std::int64_t rows) {
    return rows > 0 ? loader.matrix(prefix + std::string(name), rows, d) : Variable();
  };
  const auto norm = [&](std::string_view name) {
    return name.empty() ? nn::LayerNorm()
                        : loader.norm(prefix + std::string(name), d, config_.norm_bias, config_.norm_epsilon);
  };
  words_ = matrix(names.words, config_.vocabulary);
  positions_ = matrix(names.positions, config_.position_rows);
  types_ = matrix(names.types, config_.types);
  embedding_norm_ = norm(names.embedding_norm);
  for (std::int64_t i = 0; i < config_.layers; ++i) blocks_.push_back(load_block(i, loader, prefix));
  final_norm_ = norm(names.final_norm);
  const std::string pooler = prefix + std::string(names.pooler);
  if (!names.pooler.empty() && source.has(pooler + ".weight")) {
    pooler_ = loader.linear(pooler, d, d, true);
    pooler_.name = std::string(names.prefix) + std::string(names.pooler);
  }
  if (!loader.kept()) source.release();
}

nn::EncoderBlock Encoder::load_block(std::int64_t index, WeightLoader& loader, const std::string& prefix) const {
  const EncoderFamily& family = encoder_family_of(config_.architecture);
  const EncoderNames& names = family.names;
  const std::int64_t d = config_.width;
  const std::int64_t f = config_.feed_forward_width;
  const std::string place = fmt::format("{}{}.", names.block, index);
  const auto linear = [&](std::string_view name, std::int64_t outputs, std::int64_t inputs, bool bias) {
    nn::Linear layer = loader.linear(prefix + place + std::string(name), outputs, inputs, bias);
    layer.name = std::string(names.prefix) + place + std::string(name);
    return layer;
  };
  const auto norm = [&](std::string_view name) {
    return loader.norm(prefix + place + std::string(name), d, config_.norm_bias, config_.norm_epsilon);
  };
  nn::EncoderBlock block;
  block.index = index;
  block.norms = family.norms_before ? nn::EncoderBlock::Norms::kBefore : nn::EncoderBlock::Norms::kBehind;
  block.gated = family.gated;
  block.activation = config_.activation;
  block.attention.head_width = config_.head_width();
  block.attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_width())));
  const bool windowed = !config_.windowed.empty() && config_.windowed[static_cast<std::size_t>(index)];
  if (windowed) block.attention.window = config_.window;
  if (family.rotary) block.rotary = windowed ? 1 : 0;
  // ModernBERT's first block takes what the norm of the embeddings gives.
  if (!family.norms_before || index > 0) block.attention_norm = norm(names.attention_norm);
  const bool fused = names.key.empty();
  block.query = linear(names.query, fused ? 3 * d : d, d, config_.biases);
  if (!fused) {
    block.key = linear(names.key, d, d, config_.biases);
    block.value = linear(names.value, d, d, config_.biases);
  }
  block.output = linear(names.output, d, d, config_.biases);
  block.feed_forward_norm = norm(names.feed_forward_norm);
  block.up = linear(names.up, family.gated ? 2 * f : f, d, config_.feed_forward_biases);
  block.down = linear(names.down, d, f, config_.feed_forward_biases);
  return block;
}

Encoder::Tables Encoder::tables_for(std::int64_t positions, tensor::Allocator& allocator) {
  if (!config_.rotary) return {};
  const std::lock_guard lock(tables_mutex_);
  if (!tables_[0].cosine.defined() || tables_[0].cosine.dim(0) < positions) {
    std::int64_t size = 512;
    while (size < positions) size *= 2;
    tables_[0] = nn::make_rotary_tables(*config_.rotary, size, size, allocator);
    if (config_.window_rotary) tables_[1] = nn::make_rotary_tables(*config_.window_rotary, size, size, allocator);
  }
  return tables_;
}

std::shared_ptr<std::vector<tensor::AttentionPlan>> Encoder::plans_of(const EncoderPass& pass, bool training) const {
  auto plans = std::make_shared<std::vector<tensor::AttentionPlan>>();
  if (!is_sparse(config_.blocks, *pass.plan)) return plans;
  if (!training) plans->push_back(sparse_plan(config_.blocks, *pass.plan));
  for (std::int64_t layer = 0; training && layer < config_.layers; ++layer)
    plans->push_back(drawn_plan(config_.blocks, *pass.plan, config_.heads, layer));
  return plans;
}

Variable Encoder::embed(const ops::Context& context, const EncoderPass& pass) const {
  constexpr std::uint64_t kPlace = 0;  // of dropout; blocks have the numbers from 1 on
  const std::int64_t padding = config_.padding;
  Variable x = ops::embedding(context, words_, pass.tokens, dtype_, padding);  // [T, D]
  if (types_.defined()) x = ops::add(context, x, ops::embedding(context, types_, pass.types, dtype_));
  // RoBERTa's table has a row for padding too, which no token takes.
  if (positions_.defined()) x = ops::add(context, x, ops::embedding(context, positions_, pass.positions, dtype_));
  if (encoder_family_of(config_.architecture).drops_before_norm)
    return embedding_norm_(context, pass.dropout(context, x, kPlace));
  return pass.dropout(context, embedding_norm_(context, x), kPlace);
}

Variable Encoder::hidden(const ops::Context& context, const EncoderPass& pass, std::vector<Tensor>* layers) {
  std::int64_t longest = 0;
  for (const std::int32_t position : pass.positions)
    longest = std::max<std::int64_t>(longest, position + 1 - config_.first_position);
  if (longest > config_.context_length) {
    raise(ErrorCategory::kInvalidArgument, "the text has {} tokens, the model's context is {}", longest,
          config_.context_length);
  }
  const auto plans = plans_of(pass, context.tape != nullptr);
  if (context.tape != nullptr && !plans->empty()) context.tape->record([plans] {});  // runs last: all others read them
  const bool by_head = context.tape != nullptr;
  const nn::EncoderInput input{.positions = pass.positions,
                               .plan = plans->empty() || by_head ? pass.plan : plans->data(),
                               .plans_by_head = by_head ? *plans : std::span<const tensor::AttentionPlan>(),
                               .rotary = tables_for(longest, context.allocator()),
                               .dropout = pass.dropout};
  Variable x = embed(context, pass);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (layers != nullptr) layers->push_back(x.value());
    const auto rows = i + 1 == blocks_.size() ? pass.rows : std::span<const std::int32_t>();
    if (!pass.checkpoint) {
      x = blocks_[i](context, x, input, rows);
      continue;
    }
    x = ops::checkpoint(context, x, [&block = blocks_[i], input, rows](const ops::Context& again, const Variable& in) {
      return block(again, in, input, rows);
    });
  }
  return final_norm_(context, x);
}

Variable Encoder::pooled(const ops::Context& context, const EncoderPass& pass,
                         std::span<const tensor::KeyRange> parts) {
  const Variable last = hidden(context, pass);
  return pass.rows.empty() ? ops::mean_rows(context, last, parts) : last;
}

std::vector<nn::Linear*> Encoder::linears() {
  std::vector<nn::Linear*> result;
  for (nn::EncoderBlock& block : blocks_) {
    for (nn::Linear* layer : {&block.query, &block.key, &block.value, &block.output, &block.up, &block.down}) {
      if (layer->weight.defined()) result.push_back(layer);
    }
  }
  return result;
}

std::vector<NamedWeight> Encoder::weights() const {
  const EncoderNames& names = encoder_family_of(config_.architecture).names;
  const auto named = [&](std::string_view name) { return std::string(names.prefix) + std::string(name); };
  std::vector<NamedWeight> result{{named(names.words), words_}};
  if (positions_.defined()) result.push_back({named(names.positions), positions_});
  if (types_.defined()) result.push_back({named(names.types), types_});
  add_weights(named(names.embedding_norm), embedding_norm_, result);
  for (const nn::EncoderBlock& block : blocks_) {
    const std::string place = fmt::format("{}{}.", named(names.block), block.index);
    const auto add_norm = [&](std::string_view name, const nn::LayerNorm& norm) {
      if (norm.weight.defined()) add_weights(place + std::string(name), norm, result);
    };
    for (const nn::Linear* layer : {&block.query, &block.key, &block.value, &block.output}) {
      if (layer->weight.defined()) add_weights(*layer, result);
    }
    add_norm(names.attention_norm, block.attention_norm);
    add_weights(block.up, result);
    add_weights(block.down, result);
    add_norm(names.feed_forward_norm, block.feed_forward_norm);
  }
  if (final_norm_.weight.defined()) add_weights(named(names.final_norm), final_norm_, result);
  if (pooler_.weight.defined()) add_weights(pooler_, result);
  return result;
}

std::string Encoder::fingerprint() const {
  return fingerprint_of_norms(weights());
}

}  // namespace instruct::models
