#include "models/seq2seq_gguf.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "models/sources.h"

namespace instruct::models {
namespace {

using formats::GgufFile;
using ops::Activation;

constexpr const char* kArchitecture = "t5";
// llama.cpp has this number in its code.
constexpr std::int64_t kFarthestDistance = 128;

struct Part {
  std::string_view StackNames::*ours;
  std::string_view gguf;
};
// The first that fits: what the decoder calls the norm of its second attention is, in the encoder, the feed-forward's.
constexpr Part kParts[] = {
    {&StackNames::feed_forward_norm, "ffn_norm"},
    {&StackNames::attention_norm, "attn_norm"},
    {&StackNames::query, "attn_q"},
    {&StackNames::key, "attn_k"},
    {&StackNames::value, "attn_v"},
    {&StackNames::output, "attn_o"},
    {&StackNames::cross_norm, "cross_attn_norm"},
    {&StackNames::cross_query, "cross_attn_q"},
    {&StackNames::cross_key, "cross_attn_k"},
    {&StackNames::cross_value, "cross_attn_v"},
    {&StackNames::cross_output, "cross_attn_o"},
    {&StackNames::gate, "ffn_gate"},
    {&StackNames::gated_up, "ffn_up"},
    {&StackNames::up, "ffn_up"},
    {&StackNames::down, "ffn_down"},
};

// Behind the stack's prefix; empty for a name that is none of the stack's.
std::string name_in_stack(const StackNames& names, std::string_view rest) {
  constexpr std::string_view kWeight = ".weight";
  if (rest == names.bias) return "blk.0.attn_rel_b.weight";
  if (!rest.ends_with(kWeight)) return {};
  rest.remove_suffix(kWeight.size());
  if (rest == names.final_norm) return "output_norm.weight";
  const std::string_view block = names.block.substr(0, names.block.find('{'));
  const std::size_t dot = rest.find('.', block.size());
  if (!rest.starts_with(block) || dot == std::string_view::npos) return {};
  for (const Part& part : kParts) {
    if (rest.substr(dot + 1) == names.*part.ours)
      return fmt::format("blk.{}.{}.weight", rest.substr(block.size(), dot - block.size()), part.gguf);
  }
  return {};
}

float root_scale(std::int64_t width) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, width))));
}

}  // namespace

bool is_seq2seq(const GgufFile& file) {
  return file.text_or("general.architecture", "") == kArchitecture;
}

std::string seq2seq_gguf_name(const std::string& name) {
  const Seq2SeqFamily& family = *find_seq2seq_family(kArchitecture);
  if (name == family.words) return "token_embd.weight";
  if (name == "lm_head.weight") return "output.weight";
  for (const auto& [names, stack] : {std::pair{&family.encoder, "enc."}, std::pair{&family.decoder, "dec."}}) {
    if (!name.starts_with(names->prefix)) continue;
    const std::string inner = name_in_stack(*names, std::string_view(name).substr(names->prefix.size()));
    if (!inner.empty()) return stack + inner;
  }
  raise(ErrorCategory::kInternal, "no GGUF name for tensor '{}'", name);
}

Seq2SeqConfig seq2seq_config_from_gguf(const GgufFile& file) {
  const std::string prefix = std::string(kArchitecture) + ".";
  Seq2SeqConfig config = t5_config();
  config.layers = file.integer(prefix + "block_count");
  config.decoder_layers = file.integer_or(prefix + "decoder_block_count", config.layers);
  config.width = file.integer(prefix + "embedding_length");
  config.feed_forward_width = config.decoder_feed_forward_width = file.integer(prefix + "feed_forward_length");
  config.heads = config.decoder_heads = config.key_value_heads = file.integer(prefix + "attention.head_count");
  config.head_width = file.integer(prefix + "attention.key_length");
  config.trained_length = file.integer_or(prefix + "context_length", config.trained_length);
  config.distance_buckets = file.integer(prefix + "attention.relative_buckets_count");
  config.farthest_distance = kFarthestDistance;
  config.norm_epsilon = static_cast<float>(file.number(prefix + "attention.layer_norm_rms_epsilon"));
  config.start = static_cast<std::int32_t>(
      std::clamp<std::int64_t>(file.integer_or(prefix + "decoder_start_token_id", 0), -1, INT32_MAX));
  config.gated = file.has_tensor("enc.blk.0.ffn_gate.weight");
  config.activation = config.gated ? Activation::kGeluTanh : Activation::kRelu;
  config.vocabulary = file.has_tensor("token_embd.weight") ? file.tensor("token_embd.weight").dim(0) : 0;
  config.tied_embeddings = !file.has_tensor("output.weight");
  // Where head and embeddings are one, T5 scales what goes into the head; converters do not say so.
  if (config.tied_embeddings)
    config.output_scale =
        static_cast<float>(file.number_or(prefix + "logit_scale", static_cast<double>(root_scale(config.width))));
  config.architecture = config.tied_embeddings && config.output_scale == 1 ? "mt5" : "t5";
  return config;
}

std::unique_ptr<WeightSource> make_seq2seq_source(std::shared_ptr<const GgufFile> file) {
  return make_gguf_source(std::move(file), seq2seq_gguf_name);
}

std::string gguf_architecture(const Seq2SeqConfig& config) {
  if (config.architecture == "t5" || config.architecture == "mt5") return kArchitecture;
  raise(ErrorCategory::kUnsupported, "GGUF has no architecture for {}, of encoder-decoders T5's alone: use --format hf",
        config.architecture);
}

void set_seq2seq(formats::GgufWriter& writer, const Seq2SeqConfig& c) {
  writer.set("general.architecture", gguf_architecture(c));
  writer.set("general.type", std::string("model"));
  if (c.farthest_distance != kFarthestDistance)
    raise(ErrorCategory::kUnsupported,
          "a GGUF file cannot say that relative_attention_max_distance is {}, llama.cpp takes {}: use --format hf",
          c.farthest_distance, kFarthestDistance);
  if (c.activation != (c.gated ? Activation::kGeluTanh : Activation::kRelu))
    raise(ErrorCategory::kUnsupported,
          "a GGUF file of T5 has the activation relu, or gelu_new with a gate (feed_forward_proj relu or gated-gelu): "
          "use --format hf");
  if (c.decoder_layers > c.layers)
    raise(ErrorCategory::kUnsupported,
          "llama.cpp loads no T5 whose decoder has more layers ({}) than its encoder ({}): use --format hf",
          c.decoder_layers, c.layers);
  if (c.forced_first || !c.suppressed.empty())
    log_warning("GGUF cannot say which token an answer begins with or never has (forced_bos_token_id, bad_words_ids)");
  if (c.output_scale != 1)
    log_warning(
        "llama.cpp does not scale what goes into T5's head: there the best token is the same, and its probability is "
        "too high");
  const std::string prefix = std::string(kArchitecture) + ".";
  const auto number = [&](const char* key, std::int64_t value) {
    writer.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  number("block_count", c.layers);
  number("decoder_block_count", c.decoder_layers);
  number("context_length", c.trained_length);
  number("embedding_length", c.width);
  number("feed_forward_length", c.feed_forward_width);
  number("attention.head_count", c.heads);
  number("attention.head_count_kv", c.heads);
  number("attention.key_length", c.head_width);
  number("attention.value_length", c.head_width);
  number("attention.relative_buckets_count", c.distance_buckets);
  number("decoder_start_token_id", c.start);
  number("vocab_size", c.vocabulary);
  writer.set(prefix + "attention.layer_norm_epsilon", c.norm_epsilon);
  writer.set(prefix + "attention.layer_norm_rms_epsilon", c.norm_epsilon);
  if (c.tied_embeddings) writer.set(prefix + "logit_scale", c.output_scale);
}

}  // namespace instruct::models
