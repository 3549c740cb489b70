#include "models/encoder_gguf.h"

#include <fmt/core.h>

#include "base/error.h"
#include "models/export_parts.h"
#include "models/sources.h"

namespace instruct::models {
namespace {

using formats::GgufFile;
using tensor::DType;

constexpr const char* kArchitecture = "bert";
constexpr std::uint32_t kMean = 1, kFirst = 2;  // llama.cpp's kinds of pooling

struct Part {
  std::string_view EncoderNames::*ours;
  std::string_view gguf;
};
// Names of matrices that are no layer, of layers, and of layers inside a block.
constexpr Part kTables[] = {{&EncoderNames::words, "token_embd.weight"},
                            {&EncoderNames::positions, "position_embd.weight"},
                            {&EncoderNames::types, "token_types.weight"}};
constexpr Part kBlock[] = {{&EncoderNames::query, "attn_q"},
                           {&EncoderNames::key, "attn_k"},
                           {&EncoderNames::value, "attn_v"},
                           {&EncoderNames::output, "attn_output"},
                           {&EncoderNames::attention_norm, "attn_output_norm"},
                           {&EncoderNames::up, "ffn_up"},
                           {&EncoderNames::down, "ffn_down"},
                           {&EncoderNames::feed_forward_norm, "layer_output_norm"}};

// Behind the prefix of files; empty for what GGUF has no place for.
std::string gguf_name(const EncoderNames& names, std::string_view name) {
  if (name.starts_with(names.prefix)) name.remove_prefix(names.prefix.size());
  for (const Part& part : kTables) {
    if (name == names.*part.ours) return std::string(part.gguf);
  }
  const std::size_t last = name.rfind('.');
  const std::string_view kind = last == std::string_view::npos ? "" : name.substr(last);
  if (kind != ".weight" && kind != ".bias") return {};
  name.remove_suffix(kind.size());
  if (name == names.embedding_norm) return fmt::format("token_embd_norm{}", kind);
  const std::size_t dot = name.find('.', names.block.size());
  if (!name.starts_with(names.block) || dot == std::string_view::npos) return {};
  const std::string_view number = name.substr(names.block.size(), dot - names.block.size());
  for (const Part& part : kBlock) {
    if (name.substr(dot + 1) == names.*part.ours) return fmt::format("blk.{}.{}{}", number, part.gguf, kind);
  }
  return {};
}

// What llama.cpp takes for granted must be so. Raises Unsupported where it is not.
void refuse_what_gguf_cannot_say(const EncoderConfig& c, const GgufOptions& options) {
  const EncoderFamily& family = encoder_family_of(c.architecture);
  if (family.names.positions.empty() || family.names.key.empty() || family.block_sparse)
    raise(ErrorCategory::kUnsupported,
          "GGUF files of encoders are those of BERT, DistilBERT, RoBERTa and XLM-RoBERTa here, not of {}: use "
          "--format hf",
          c.architecture);
  if (c.activation != ops::Activation::kGelu)
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has the activation gelu: use --format hf");
  if (tensor::is_quantised(options.type.dtype))
    raise(ErrorCategory::kInvalidArgument, "--quantize {}: GGUF files of encoders take f32, f16 or bf16",
          options.type.name);
}

}  // namespace

bool is_encoder(const GgufFile& file) {
  return file.text_or("general.architecture", "") == kArchitecture;
}

bool has_mean_pooling(const GgufFile& file) {
  return file.integer_or(std::string(kArchitecture) + ".pooling_type", kFirst) == kMean;
}

EncoderConfig encoder_config_from_gguf(const GgufFile& file) {
  const std::string prefix = std::string(kArchitecture) + ".";
  const auto rows = [&](const char* name) { return file.has_tensor(name) ? file.tensor(name).dim(0) : 0; };
  EncoderConfig config;
  config.architecture = kArchitecture;
  config.layers = file.integer(prefix + "block_count");
  config.width = file.integer(prefix + "embedding_length");
  config.feed_forward_width = file.integer(prefix + "feed_forward_length");
  config.heads = file.integer(prefix + "attention.head_count");
  config.norm_epsilon = static_cast<float>(file.number(prefix + "attention.layer_norm_epsilon"));
  config.context_length = file.integer(prefix + "context_length");
  config.vocabulary = rows("token_embd.weight");
  config.position_rows = rows("position_embd.weight");
  config.types = rows("token_types.weight");
  if (config.context_length > config.position_rows)
    raise(ErrorCategory::kBadData, "{}: {}context_length is {}, and position_embd has {} rows", file.origin(), prefix,
          config.context_length, config.position_rows);
  config.padding = file.integer_or("tokenizer.ggml.padding_token_id", -1);
  return config;
}

std::unique_ptr<WeightSource> make_encoder_source(std::shared_ptr<const GgufFile> file) {
  return make_gguf_source(std::move(file), [](const std::string& name) {
    std::string found = gguf_name(encoder_family_of(kArchitecture).names, name);
    return found.empty() ? name : found;
  });
}

void write_gguf_encoder(const std::filesystem::path& path, const Package& package, bool mean_pooling,
                        const WeightLookup& weights, const GgufOptions& options) {
  const EncoderConfig& c = package.encoder->config();
  refuse_what_gguf_cannot_say(c, options);
  formats::GgufWriter writer;
  const std::string prefix = std::string(kArchitecture) + ".";
  const auto number = [&](const char* key, std::int64_t value) {
    writer.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  writer.set("general.architecture", std::string(kArchitecture));
  writer.set("general.type", std::string("model"));
  number("block_count", c.layers);
  number("context_length", c.position_rows - c.first_position);
  number("embedding_length", c.width);
  number("feed_forward_length", c.feed_forward_width);
  number("attention.head_count", c.heads);
  number("vocab_size", c.vocabulary);
  number("pooling_type", mean_pooling ? kMean : kFirst);
  writer.set(prefix + "attention.causal", false);
  writer.set(prefix + "attention.layer_norm_epsilon", c.norm_epsilon);
  writer.set("general.file_type", options.type.number);
  set_tokenizer(writer, package);
  writer.set("tokenizer.ggml.token_type_count", static_cast<std::uint32_t>(std::max<std::int64_t>(1, c.types)));
  const EncoderNames& names = encoder_family_of(c.architecture).names;
  const auto allocator = tensor::make_host_allocator();
  for (const NamedWeight& entry : package.encoder->weights()) {
    const std::string gguf = gguf_name(names, entry.name);
    if (gguf.empty()) continue;  // the pooler
    const tensor::Shape shape = entry.variable.value().shape();
    // Positions are counted from 0 there: RoBERTa's first rows, which no token takes, stay behind.
    const bool positions = gguf == kTables[1].gguf;
    const std::int64_t first = positions ? c.first_position : 0;
    const tensor::Shape kept = positions ? tensor::Shape{shape[0] - first, shape[1]} : shape;
    const bool plain = shape.rank() == 1 || positions || gguf == kTables[2].gguf;
    const DType stored = plain ? DType::kF32 : options.type.dtype;
    writer.add(gguf, kept, stored, [&, name = entry.name, first, positions, stored] {
      const Tensor weight = weights(name);
      return encoded_weight(name, positions ? weight.rows(first, weight.dim(0)) : weight, stored, *allocator,
                            options.threads);
    });
  }
  writer.write(path);
}

}  // namespace instruct::models
