#include "models/encoder_gguf.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <span>

#include "base/error.h"
#include "models/export_parts.h"
#include "models/sources.h"

namespace instruct::models {
namespace {

using formats::GgufFile;
using tensor::DType;

constexpr std::uint32_t kMean = 1, kFirst = 2;  // llama.cpp's kinds of pooling

struct Part {
  std::string_view EncoderNames::*ours;
  std::string_view gguf;
};
// Names of matrices that are no layer, of layers, and of layers inside a block.
constexpr Part kTables[] = {{&EncoderNames::words, "token_embd.weight"},
                            {&EncoderNames::positions, "position_embd.weight"},
                            {&EncoderNames::types, "token_types.weight"}};
constexpr Part kBertBlock[] = {{&EncoderNames::query, "attn_q"},
                               {&EncoderNames::key, "attn_k"},
                               {&EncoderNames::value, "attn_v"},
                               {&EncoderNames::output, "attn_output"},
                               {&EncoderNames::attention_norm, "attn_output_norm"},
                               {&EncoderNames::up, "ffn_up"},
                               {&EncoderNames::down, "ffn_down"},
                               {&EncoderNames::feed_forward_norm, "layer_output_norm"}};
constexpr Part kModernBertBlock[] = {{&EncoderNames::query, "attn_qkv"},
                                     {&EncoderNames::output, "attn_output"},
                                     {&EncoderNames::attention_norm, "attn_norm"},
                                     {&EncoderNames::up, "ffn_up"},
                                     {&EncoderNames::down, "ffn_down"},
                                     {&EncoderNames::feed_forward_norm, "ffn_norm"}};

// What llama.cpp knows, and as which family it is read here.
struct Architecture {
  const char* name;
  const char* model_type;
  std::span<const Part> block;
};
constexpr Architecture kArchitectures[] = {{"bert", "bert", kBertBlock},
                                           {"modern-bert", "modernbert", kModernBertBlock}};

const Architecture* architecture_of(const GgufFile& file) {
  const std::string name = file.text_or("general.architecture", "");
  const auto* found = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                   [&](const Architecture& known) { return name == known.name; });
  return found == std::end(kArchitectures) ? nullptr : found;
}

const Architecture& architecture_of(const EncoderConfig& config) {
  return kArchitectures[encoder_family_of(config.architecture).rotary ? 1 : 0];
}

// Behind the prefix of files; empty for what GGUF has no place for.
std::string gguf_name(const EncoderNames& names, std::span<const Part> block, std::string_view name) {
  if (name.starts_with(names.prefix)) name.remove_prefix(names.prefix.size());
  for (const Part& part : kTables) {
    if (name == names.*part.ours) return std::string(part.gguf);
  }
  const std::size_t last = name.rfind('.');
  const std::string_view kind = last == std::string_view::npos ? "" : name.substr(last);
  if (kind != ".weight" && kind != ".bias") return {};
  name.remove_suffix(kind.size());
  if (name == names.embedding_norm) return fmt::format("token_embd_norm{}", kind);
  if (name == names.final_norm) return fmt::format("output_norm{}", kind);
  const std::size_t dot = name.find('.', names.block.size());
  if (!name.starts_with(names.block) || dot == std::string_view::npos) return {};
  const std::string_view number = name.substr(names.block.size(), dot - names.block.size());
  for (const Part& part : block) {
    if (name.substr(dot + 1) == names.*part.ours) return fmt::format("blk.{}.{}{}", number, part.gguf, kind);
  }
  return {};
}

// Every how many layers, from the first on, one has no window; nullopt for another pattern.
std::optional<std::int64_t> window_interval(const EncoderConfig& c) {
  std::int64_t interval = 1;
  while (interval < c.layers && c.windowed[static_cast<std::size_t>(interval)]) ++interval;
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    if (c.windowed[static_cast<std::size_t>(layer)] != (layer % interval != 0)) return std::nullopt;
  }
  return interval;
}

// The window and the rotary positions of a ModernBERT.
void set_layers(formats::GgufWriter& writer, const std::string& prefix, const EncoderConfig& c) {
  writer.set(prefix + "attention.sliding_window", static_cast<std::uint32_t>(2 * (c.window - 1)));
  writer.set(prefix + "attention.sliding_window_pattern", static_cast<std::uint32_t>(window_interval(c).value()));
  writer.set(prefix + "rope.freq_base", static_cast<float>(c.rotary->theta));
  writer.set(prefix + "rope.freq_base_swa", static_cast<float>(c.window_rotary->theta));
  writer.set(prefix + "rope.scaling.type", std::string("none"));
}

void read_layers(const GgufFile& file, const std::string& prefix, EncoderConfig& config) {
  config.norm_bias = config.biases = config.feed_forward_biases = config.head_bias = false;
  const std::int64_t window = file.integer(prefix + "attention.sliding_window");
  const std::int64_t interval = file.integer_or(prefix + "attention.sliding_window_pattern", 3);
  if (window < 2 || interval < 1)
    raise(ErrorCategory::kBadData, "{}: {}attention.sliding_window is {} and its pattern {}", file.origin(), prefix,
          window, interval);
  config.window = window / 2 + 1;
  for (std::int64_t layer = 0; layer < std::clamp<std::int64_t>(config.layers, 0, 1024); ++layer)
    config.windowed.push_back(layer % interval != 0);
  const auto rotary = [&](const std::string& key, double otherwise) {
    return nn::RotaryConfig{.theta = file.number_or(prefix + key, otherwise),
                            .width = config.heads > 0 ? config.head_width() : 0,
                            .original_context = static_cast<double>(config.context_length)};
  };
  config.rotary = rotary("rope.freq_base", 160000);
  config.window_rotary = rotary("rope.freq_base_swa", 10000);
}

// What llama.cpp takes for granted must be so. Raises Unsupported where it is not.
void refuse_what_gguf_cannot_say(const EncoderConfig& c, const GgufOptions& options) {
  const EncoderFamily& family = encoder_family_of(c.architecture);
  if (family.block_sparse)
    raise(ErrorCategory::kUnsupported,
          "GGUF files of encoders are those of BERT, DistilBERT, RoBERTa, XLM-RoBERTa and ModernBERT, not of {}: use "
          "--format hf",
          c.architecture);
  if (family.rotary && (c.norm_bias || c.biases || c.feed_forward_biases))
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has no biases: use --format hf");
  if (family.rotary && !window_interval(c))
    raise(ErrorCategory::kUnsupported,
          "a GGUF file can say that every so many layers are without the window, the first one too, and not which: use "
          "--format hf");
  if (c.activation != ops::Activation::kGelu)
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has the activation gelu: use --format hf");
  if (tensor::is_quantised(options.type.dtype))
    raise(ErrorCategory::kInvalidArgument, "--quantize {}: GGUF files of encoders take f32, f16 or bf16",
          options.type.name);
}

}  // namespace

bool is_encoder(const GgufFile& file) {
  return architecture_of(file) != nullptr;
}

bool has_mean_pooling(const GgufFile& file) {
  return file.integer_or(std::string(architecture_of(file)->name) + ".pooling_type", kFirst) == kMean;
}

EncoderConfig encoder_config_from_gguf(const GgufFile& file) {
  const Architecture& architecture = *architecture_of(file);
  const std::string prefix = std::string(architecture.name) + ".";
  const auto rows = [&](const char* name) { return file.has_tensor(name) ? file.tensor(name).dim(0) : 0; };
  EncoderConfig config;
  config.architecture = architecture.model_type;
  config.layers = file.integer(prefix + "block_count");
  config.width = file.integer(prefix + "embedding_length");
  config.feed_forward_width = file.integer(prefix + "feed_forward_length");
  config.heads = file.integer(prefix + "attention.head_count");
  config.norm_epsilon = static_cast<float>(file.number(prefix + "attention.layer_norm_epsilon"));
  config.context_length = file.integer(prefix + "context_length");
  config.vocabulary = rows("token_embd.weight");
  config.position_rows = rows("position_embd.weight");
  config.types = rows("token_types.weight");
  if (encoder_family_of(architecture.model_type).rotary) {
    read_layers(file, prefix, config);
  } else if (config.context_length > config.position_rows)
    raise(ErrorCategory::kBadData, "{}: {}context_length is {}, and position_embd has {} rows", file.origin(), prefix,
          config.context_length, config.position_rows);
  config.padding = file.integer_or("tokenizer.ggml.padding_token_id", -1);
  return config;
}

std::unique_ptr<WeightSource> make_encoder_source(std::shared_ptr<const GgufFile> file) {
  return make_gguf_source(file, [architecture = *architecture_of(*file)](const std::string& name) {
    std::string found = gguf_name(encoder_family_of(architecture.model_type).names, architecture.block, name);
    return found.empty() ? name : found;
  });
}

void write_gguf_encoder(const std::filesystem::path& path, const Package& package, bool mean_pooling,
                        const WeightLookup& weights, const GgufOptions& options) {
  const EncoderConfig& c = package.encoder->config();
  refuse_what_gguf_cannot_say(c, options);
  formats::GgufWriter writer;
  const Architecture& architecture = architecture_of(c);
  const std::string prefix = std::string(architecture.name) + ".";
  const auto number = [&](const char* key, std::int64_t value) {
    writer.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  writer.set("general.architecture", std::string(architecture.name));
  writer.set("general.type", std::string("model"));
  number("block_count", c.layers);
  number("context_length", c.rotary ? c.context_length : c.position_rows - c.first_position);
  number("embedding_length", c.width);
  number("feed_forward_length", c.feed_forward_width);
  number("attention.head_count", c.heads);
  number("vocab_size", c.vocabulary);
  number("pooling_type", mean_pooling ? kMean : kFirst);
  writer.set(prefix + "attention.causal", false);
  writer.set(prefix + "attention.layer_norm_epsilon", c.norm_epsilon);
  if (c.rotary) set_layers(writer, prefix, c);
  writer.set("general.file_type", options.type.number);
  set_tokenizer(writer, package);
  writer.set("tokenizer.ggml.token_type_count", static_cast<std::uint32_t>(std::max<std::int64_t>(1, c.types)));
  const EncoderNames& names = encoder_family_of(c.architecture).names;
  const auto allocator = tensor::make_host_allocator();
  for (const NamedWeight& entry : package.encoder->weights()) {
    const std::string gguf = gguf_name(names, architecture.block, entry.name);
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
