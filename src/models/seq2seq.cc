#include "models/seq2seq.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "ops/checkpoint.h"
#include "ops/rows.h"

namespace instruct::models {
namespace {

using tensor::AttentionPlan;
using tensor::KeyRange;
using tensor::OwnKeys;
using tensor::QuerySegment;

const Seq2SeqFamily& family_of(const Seq2SeqConfig& config) {
  const Seq2SeqFamily* family = find_seq2seq_family(config.architecture);
  INSTRUCT_CHECK(family != nullptr);
  return *family;
}

std::string layer_prefix(const StackNames& names, std::int64_t index) {
  return std::string(names.prefix) + fmt::format(fmt::runtime(names.block), index);
}

// The linear layers of a block in the order of files, those that it has.
template <typename Block>
auto linears_of(Block& block) {
  std::vector<decltype(&block.query)> layers;
  for (auto* layer : {&block.query, &block.key, &block.value, &block.output, &block.cross.query, &block.cross.key,
                      &block.cross.value, &block.cross.output, &block.gate, &block.up, &block.down}) {
    if (layer->weight.defined()) layers.push_back(layer);
  }
  return layers;
}

// Files may store a head that is tied as they may say that one is tied which differs (transformers writes both): what
// they hold decides.
bool has_tied_head(const WeightSource& source, const std::string& words, bool said) {
  if (!source.has("lm_head.weight")) return true;
  if (!said) return false;
  const Tensor head = source.get("lm_head.weight");
  const Tensor embedding = source.get(words);
  return head.dtype() == embedding.dtype() && head.shape() == embedding.shape() &&
         std::memcmp(head.raw(), embedding.raw(), static_cast<std::size_t>(head.bytes())) == 0;
}

}  // namespace

// Tokens of sources and of answers, each numbered on their own; plans of the keys that each stack computes, or of a
// cache's slots.
struct Seq2Seq::Parts {
  struct Tokens {
    std::vector<std::int32_t> ids, positions, slots;
  };
  Tokens sources, answers;
  AttentionPlan within_sources, within_answers, of_answers;  // the last: keys of sources
  std::vector<std::int32_t> rows;                            // of answers

  explicit Parts(const Pass& pass) : place_(pass.tokens.size()), cached_(pass.cache != nullptr) {
    for (const QuerySegment& query : pass.plan->queries) add_tokens(pass, query);
    for (const QuerySegment& query : pass.plan->queries) {
      if (query.begin == query.end) continue;
      query.own == OwnKeys::kWhole ? add_source(query) : add_answer(query);
    }
    for (const std::int32_t row : pass.rows) rows.push_back(place_[static_cast<std::size_t>(row)]);
  }

 private:
  void add_tokens(const Pass& pass, const QuerySegment& query) {
    Tokens& part = query.own == OwnKeys::kWhole ? sources : answers;
    for (std::int64_t t = query.begin; t < query.end; ++t) {
      const auto at = static_cast<std::size_t>(t);
      place_[at] = static_cast<std::int32_t>(part.ids.size());
      part.ids.push_back(pass.tokens[at]);
      part.positions.push_back(pass.positions[at]);
      if (!pass.slots.empty()) part.slots.push_back(pass.slots[at]);
    }
  }
  std::int64_t place(std::int64_t token) const { return place_[static_cast<std::size_t>(token)]; }
  // Ranges of the pass's tokens, which lie in one part, as that part counts them.
  std::vector<KeyRange> placed(const std::vector<KeyRange>& ranges) const {
    if (cached_) return ranges;
    std::vector<KeyRange> result;
    for (const KeyRange& range : ranges) {
      if (range.begin < range.end) result.push_back({place(range.begin), place(range.end - 1) + 1});
    }
    return result;
  }
  void add_source(const QuerySegment& query) {
    const std::int64_t begin = place(query.begin);
    within_sources.queries.push_back({.begin = begin,
                                      .end = begin + query.end - query.begin,
                                      .self_begin = begin,
                                      .visible = {},
                                      .own = OwnKeys::kWhole});
  }
  void add_answer(const QuerySegment& query) {
    QuerySegment own{.begin = place(query.begin),
                     .end = place(query.end - 1) + 1,
                     .self_begin = cached_ ? query.self_begin : place(query.begin),
                     .visible = placed(query.visible)};
    QuerySegment read{
        .begin = own.begin, .end = own.end, .self_begin = 0, .visible = placed(query.source), .own = OwnKeys::kNone};
    if (read.visible.empty()) raise(ErrorCategory::kInvalidArgument, "an answer has no source that it reads");
    within_answers.queries.push_back(std::move(own));
    of_answers.queries.push_back(std::move(read));
  }

  std::vector<std::int32_t> place_;  // of each token of the pass, in its part
  bool cached_;
};

Seq2Seq::Seq2Seq(Seq2SeqConfig config, const WeightSource& source, const WeightOptions& options,
                 tensor::Allocator& allocator)
    : config_(std::move(config)), dtype_(options.dtype) {
  config_.check(source.origin());
  const Seq2SeqFamily& family = family_of(config_);
  WeightLoader loader(source, options, allocator);
  const std::string words(family.words);
  words_ = loader.matrix(words, config_.vocabulary, config_.width);
  encoder_ = load_stack(family.encoder, false, loader, source);
  decoder_ = load_stack(family.decoder, true, loader, source);
  config_.tied_embeddings = has_tied_head(source, words, config_.tied_embeddings);
  if (config_.tied_embeddings) {
    head_.integer = loader.packed(words_);
  } else {
    head_ = loader.linear("lm_head", config_.vocabulary, config_.width, false);
  }
  if (!family.logits_bias.empty() && source.has(std::string(family.logits_bias))) {
    const Tensor stored = source.get(std::string(family.logits_bias));
    if (!(stored.shape() == tensor::Shape{1, config_.vocabulary})) {
      raise(ErrorCategory::kBadData, "{}: tensor '{}' is {}, [1, {}] is expected", source.origin(), family.logits_bias,
            stored.shape().text(), config_.vocabulary);
    }
    ThreadPool threads(options.threads);
    logits_bias_ = Variable(ops::converted_copy(stored, DType::kF32, allocator, threads).reshape({config_.vocabulary}));
  }
  if (!loader.kept()) source.release();
}

Seq2Seq::Stack Seq2Seq::load_stack(const StackNames& names, bool decoder, WeightLoader& loader,
                                   const WeightSource& source) const {
  const std::int64_t d = config_.width;
  const std::int64_t inner = config_.heads * config_.head_width;
  const std::int64_t f = decoder ? config_.decoder_feed_forward_width : config_.feed_forward_width;
  const std::string prefix(names.prefix);
  const auto norm = [&](const std::string& name) {
    nn::LayerNorm made = loader.norm(name, d, config_.centred_norms, config_.norm_epsilon);
    made.centred = config_.centred_norms;
    return made;
  };
  Stack stack{.names = &names};
  if (config_.positions == Seq2SeqConfig::Positions::kLearned) {
    stack.positions =
        loader.matrix(prefix + std::string(names.positions), config_.context_length + config_.position_offset, d);
  } else if (config_.positions == Seq2SeqConfig::Positions::kSinusoidal) {
    stack.positions = Variable(sinusoids(config_.context_length));
  }
  if (!names.embedding_norm.empty()) stack.embedding_norm = norm(prefix + std::string(names.embedding_norm));
  const std::int64_t layers = decoder ? config_.decoder_layers : config_.layers;
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string place = layer_prefix(names, i);
    const auto linear = [&](std::string_view name, std::int64_t outputs, std::int64_t inputs) {
      return loader.linear(place + std::string(name), outputs, inputs, config_.biases);
    };
    nn::EncoderBlock block;
    block.index = i;
    block.norms = config_.norms_before ? nn::EncoderBlock::Norms::kBefore : nn::EncoderBlock::Norms::kBehind;
    block.activation = config_.activation;
    block.attention.head_width = config_.head_width;
    block.attention.scale =
        config_.scaled_scores ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_width))) : 1.0F;
    block.attention_norm = norm(place + std::string(names.attention_norm));
    block.query = linear(names.query, inner, d);
    block.key = linear(names.key, inner, d);
    block.value = linear(names.value, inner, d);
    block.output = linear(names.output, d, inner);
    if (decoder) {
      block.cross.norm = norm(place + std::string(names.cross_norm));
      block.cross.query = linear(names.cross_query, inner, d);
      block.cross.key = linear(names.cross_key, inner, d);
      block.cross.value = linear(names.cross_value, inner, d);
      block.cross.output = linear(names.cross_output, d, inner);
    }
    block.feed_forward_norm = norm(place + std::string(names.feed_forward_norm));
    if (config_.gated) block.gate = linear(names.gate, f, d);
    block.up = linear(config_.gated ? names.gated_up : names.up, f, d);
    block.down = linear(names.down, d, f);
    stack.blocks.push_back(std::move(block));
    if (!loader.kept()) source.release();
  }
  if (!names.final_norm.empty()) stack.final_norm = norm(prefix + std::string(names.final_norm));
  if (!names.bias.empty()) {
    stack.bias = {
        .weights = loader.plain_matrix(prefix + std::string(names.bias), config_.distance_buckets, config_.heads),
        .buckets = distance_buckets(config_.distance_buckets, config_.farthest_distance,
                                    decoder ? Directions::kBackwards : Directions::kBoth)};
  }
  return stack;
}

// Sines in the first half of a row, cosines in the second.
Tensor Seq2Seq::sinusoids(std::int64_t positions) const {
  const std::int64_t d = config_.width;
  std::vector<float> values;
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < d; ++j) {
      const std::int64_t sines = (d + 1) / 2;
      const std::int64_t pair = j < sines ? j : j - sines;
      const double angle =
          static_cast<double>(p) / std::pow(10000.0, 2.0 * static_cast<double>(pair) / static_cast<double>(d));
      values.push_back(static_cast<float>(j < sines ? std::sin(angle) : std::cos(angle)));
    }
  }
  return Tensor::from_floats(values, {positions, d}, *tensor::make_host_allocator());
}

Variable Seq2Seq::embed(const Context& context, const Stack& stack, std::span<const std::int32_t> tokens,
                        std::span<const std::int32_t> positions) const {
  Variable x = ops::embedding(context, words_, tokens, dtype_, config_.padding);
  x = ops::scale(context, x, config_.embedding_scale);
  if (stack.positions.defined()) x = ops::add(context, x, ops::embedding(context, stack.positions, positions, dtype_));
  return stack.embedding_norm(context, x);
}

Variable Seq2Seq::run(const Context& context, const Stack& stack, Variable x, const nn::EncoderInput& input,
                      std::span<const std::int32_t> rows, bool checkpoint, std::vector<Tensor>* layers) const {
  for (std::size_t i = 0; i < stack.blocks.size(); ++i) {
    if (layers != nullptr) layers->push_back(x.value());
    const auto wanted = i + 1 == stack.blocks.size() ? rows : std::span<const std::int32_t>();
    if (!checkpoint) {
      x = stack.blocks[i](context, x, input, wanted);
      continue;
    }
    x = ops::checkpoint(context, x,
                        [&block = stack.blocks[i], input, wanted](const Context& again, const Variable& in) {
                          return block(again, in, input, wanted);
                        });
  }
  x = stack.final_norm(context, x);
  if (layers != nullptr) layers->push_back(x.value());
  return x;
}

Variable Seq2Seq::hidden(const Context& context, const Pass& pass, Layers* layers) {
  for (const std::int32_t position : pass.positions) {
    if (position >= config_.context_length) {
      raise(ErrorCategory::kInvalidArgument, "the text has {} tokens, the model's context is {}", position + 1,
            config_.context_length);
    }
  }
  const auto parts = std::make_shared<Parts>(pass);
  for (Parts::Tokens* tokens : {&parts->sources, &parts->answers}) {
    for (std::int32_t& position : tokens->positions) position += static_cast<std::int32_t>(config_.position_offset);
  }
  if (context.tape != nullptr) context.tape->record([parts] {});  // runs last: all others read them
  Variable source;
  if (!parts->sources.ids.empty()) {
    const nn::EncoderInput input{.plan = &parts->within_sources,
                                 .rotary = {},
                                 .dropout = {},
                                 .bias = encoder_.bias.weights.defined() ? &encoder_.bias : nullptr};
    source = run(context, encoder_, embed(context, encoder_, parts->sources.ids, parts->sources.positions), input, {},
                 pass.checkpoint, layers != nullptr ? &layers->encoder : nullptr);
  }
  const nn::EncoderInput input{.plan = &parts->within_answers,
                               .rotary = {},
                               .dropout = {},
                               .bias = decoder_.bias.weights.defined() ? &decoder_.bias : nullptr,
                               .source = source,
                               .source_plan = &parts->of_answers,
                               .cache = pass.cache,
                               .slots = parts->answers.slots,
                               .source_slots = parts->sources.slots};
  const Variable x = run(context, decoder_, embed(context, decoder_, parts->answers.ids, parts->answers.positions),
                         input, parts->rows, pass.checkpoint, layers != nullptr ? &layers->decoder : nullptr);
  return layers != nullptr ? x : ops::scale(context, x, config_.output_scale);  // in place
}

std::vector<float> Seq2Seq::log_probabilities(const Context& context, const Pass& pass,
                                              const ops::Predictions& predictions, std::int64_t vocabulary) {
  return ops::linear_cross_entropy(context, hidden(context, pass), head(), predictions, vocabulary, head_.integer,
                                   {.bias = logits_bias_});
}

Tensor Seq2Seq::logits(const Context& context, const Pass& pass) {
  Tensor logits =
      ops::logits(context, hidden(context, pass).value(), head().value(), head_.integer, {.bias = logits_bias_});
  for (std::int64_t row = 0; row < logits.dim(0); ++row) {
    for (const std::int32_t token : config_.suppressed)
      logits.data<float>()[row * logits.row_stride() + token] = -INFINITY;
  }
  return logits;
}

nn::KeyValueCache Seq2Seq::make_cache(std::int64_t slots, tensor::Allocator& allocator,
                                      std::optional<DType> dtype) const {
  return {config_.decoder_layers, slots, config_.heads, config_.head_width, dtype.value_or(dtype_), allocator};
}

bool Seq2Seq::has_integer_products() const {
  return std::any_of(encoder_.blocks.begin(), encoder_.blocks.end(),
                     [](const nn::EncoderBlock& block) { return block.query.integer.forward != nullptr; });
}

std::vector<nn::Linear*> Seq2Seq::linears() {
  std::vector<nn::Linear*> result;
  for (Stack* stack : {&encoder_, &decoder_}) {
    for (nn::EncoderBlock& block : stack->blocks) {
      for (nn::Linear* layer : linears_of(block)) result.push_back(layer);
    }
  }
  if (!config_.tied_embeddings) result.push_back(&head_);
  return result;
}

void Seq2Seq::add_stack(const Stack& stack, std::vector<NamedWeight>& weights) const {
  const StackNames& names = *stack.names;
  const std::string prefix(names.prefix);
  if (config_.positions == Seq2SeqConfig::Positions::kLearned)
    weights.push_back({prefix + std::string(names.positions), stack.positions});
  if (stack.embedding_norm.weight.defined())
    add_weights(prefix + std::string(names.embedding_norm), stack.embedding_norm, weights);
  if (stack.bias.weights.defined()) weights.push_back({prefix + std::string(names.bias), stack.bias.weights});
  for (const nn::EncoderBlock& block : stack.blocks) {
    const std::string place = layer_prefix(names, block.index);
    for (const nn::Linear* layer : linears_of(block)) add_weights(*layer, weights);
    add_weights(place + std::string(names.attention_norm), block.attention_norm, weights);
    if (block.cross.defined()) add_weights(place + std::string(names.cross_norm), block.cross.norm, weights);
    add_weights(place + std::string(names.feed_forward_norm), block.feed_forward_norm, weights);
  }
  if (stack.final_norm.weight.defined()) add_weights(prefix + std::string(names.final_norm), stack.final_norm, weights);
}

std::vector<NamedWeight> Seq2Seq::weights() const {
  std::vector<NamedWeight> result{{std::string(family_of(config_).words), words_}};
  add_stack(encoder_, result);
  add_stack(decoder_, result);
  if (!config_.tied_embeddings) add_weights(head_, result);
  if (logits_bias_.defined()) {
    const Tensor row = logits_bias_.value().reshape({1, config_.vocabulary});  // as files have it
    result.push_back({std::string(family_of(config_).logits_bias), Variable(row)});
  }
  return result;
}

std::string Seq2Seq::fingerprint() const {
  return fingerprint_of_norms(weights());
}

}  // namespace instruct::models
