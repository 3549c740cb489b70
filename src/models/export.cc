#include "models/export.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "models/families.h"
#include "models/sources.h"
#include "ops/weights.h"
#include "tensor/block_codec.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using tensor::DType;
using tokenizers::TokenKind;

// A weight as stored. What the type cannot hold is refused: an infinite weight would answer nonsense without a word.
Tensor encoded(const std::string& name, const Tensor& f32, DType dtype, tensor::Allocator& allocator) {
  const std::span values(f32.data<float>(), static_cast<std::size_t>(f32.elements()));
  const float most = dtype == DType::kF16 ? 65504.0F : std::numeric_limits<float>::max();
  const auto bad =
      std::find_if(values.begin(), values.end(), [most](float value) { return !(std::abs(value) <= most); });
  if (bad != values.end()) {
    raise(ErrorCategory::kNumeric, "weight '{}' has the value {}, which {} cannot hold{}", name, *bad,
          tensor::info(dtype).name, std::isfinite(*bad) ? ": use bf16 or f32" : "");
  }
  if (dtype == DType::kF32) return f32;
  Tensor result = Tensor::empty(f32.shape(), dtype, allocator);
  tensor::encode_elements(dtype, values, result.raw());
  return result;
}

// In GGUF a model of Mistral's is a llama; in transformers only Mistral has the sliding window.
std::string model_type(const LlamaConfig& config) {
  return config.architecture == "llama" && config.sliding_window > 0 ? "mistral" : config.architecture;
}

Value architecture_name(const LlamaConfig& config) {
  return std::string(family_of(model_type(config)).architecture);
}

Value layer_types(const LlamaConfig& config) {
  Value types = Value::array();
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const bool windowed = config.windowed.empty() || config.windowed[static_cast<std::size_t>(i)];
    types.push(windowed ? "sliding_attention" : "full_attention");
  }
  return types;
}

Value rope_scaling(const nn::RotaryConfig& rotary) {
  using Scaling = nn::RotaryConfig::Scaling;
  switch (rotary.scaling) {
    case Scaling::kNone:
      return {};
    case Scaling::kLinear:
      return Value::object({{"rope_type", "linear"}, {"factor", rotary.factor}});
    case Scaling::kDynamic:
      return Value::object({{"rope_type", "dynamic"}, {"factor", rotary.factor}});
    case Scaling::kYarn:
      return Value::object({{"rope_type", "yarn"},
                            {"factor", rotary.factor},
                            {"original_max_position_embeddings", static_cast<std::int64_t>(rotary.original_context)}});
    case Scaling::kLlama3:
      return Value::object({{"rope_type", "llama3"},
                            {"factor", rotary.factor},
                            {"low_freq_factor", rotary.low_frequency_factor},
                            {"high_freq_factor", rotary.high_frequency_factor},
                            {"original_max_position_embeddings", static_cast<std::int64_t>(rotary.original_context)}});
  }
  return {};
}

// What divides each frequency in GGUF: the file's own factors, or those that llama3 scaling amounts to.
std::vector<float> frequency_factors(const nn::RotaryConfig& rotary) {
  if (rotary.scaling != nn::RotaryConfig::Scaling::kLlama3) return rotary.frequency_factors;
  nn::RotaryConfig plain = rotary;
  plain.scaling = nn::RotaryConfig::Scaling::kNone;
  const std::vector<double> before = nn::rotary_frequencies(plain, 1);
  const std::vector<double> after = nn::rotary_frequencies(rotary, 1);
  std::vector<float> factors;
  for (std::size_t i = 0; i < before.size(); ++i) factors.push_back(static_cast<float>(before[i] / after[i]));
  return factors;
}

// Hugging Face has no list of factors, so they are traced back to the llama3 scaling that gives them (frequency bounds
// 1 and 4, as in every Llama 3).
nn::RotaryConfig without_factors(const nn::RotaryConfig& rotary) {
  if (rotary.frequency_factors.empty()) return rotary;
  const std::vector<float>& wanted = rotary.frequency_factors;
  nn::RotaryConfig guess = rotary;
  guess.frequency_factors.clear();
  if (std::all_of(wanted.begin(), wanted.end(), [](float factor) { return factor == 1.0F; })) return guess;
  guess.scaling = nn::RotaryConfig::Scaling::kLlama3;
  guess.factor = static_cast<double>(*std::max_element(wanted.begin(), wanted.end()));
  for (guess.original_context = 32; guess.original_context <= 1 << 20; guess.original_context *= 2) {
    const std::vector<float> factors = frequency_factors(guess);
    const auto near = [](float a, float b) { return std::abs(a - b) <= 1e-4F * std::abs(b); };
    if (std::equal(factors.begin(), factors.end(), wanted.begin(), wanted.end(), near)) return guess;
  }
  raise(ErrorCategory::kUnsupported,
        "a Hugging Face folder cannot hold this model's rope_freqs: they are no llama3 scaling; export it as gguf");
}

Value config_json(const Package& package, DType dtype) {
  Value config = package.hugging_face_config;
  const LlamaConfig& c = package.config;
  if (!config.is_object()) {
    const Family& family = family_of(model_type(c));
    config = Value::object({{"architectures", Value(Value::Array{architecture_name(c)})},
                            {"model_type", model_type(c)},
                            {c.out_norms ? "hidden_activation" : "hidden_act", std::string(family.activation)},
                            {"hidden_size", c.width},
                            {"intermediate_size", c.feed_forward_width},
                            {"num_hidden_layers", c.layers},
                            {"num_attention_heads", c.heads},
                            {"num_key_value_heads", c.key_value_heads},
                            {"head_dim", c.head_width},
                            {"vocab_size", c.vocabulary},
                            {"max_position_embeddings", c.context_length},
                            {"rms_norm_eps", static_cast<double>(c.norm_epsilon)},
                            {"rope_theta", c.rotary.theta},
                            {"rope_scaling", rope_scaling(without_factors(c.rotary))},
                            {"attention_bias", c.output_bias},
                            {"mlp_bias", false}});
    const auto id = [](std::optional<std::int32_t> value) { return value ? Value(std::int64_t{*value}) : Value(); };
    if (c.sliding_window > 0) {
      config.set("sliding_window", c.sliding_window);
      if (!family.window_always) config.set("use_sliding_window", true);
      if (!family.window_always || family.full_interval > 0) config.set("layer_types", layer_types(c));
    }
    if (c.window_rotary) config.set("rope_local_base_freq", c.window_rotary->theta);
    if (c.query_scalar > 0) config.set("query_pre_attn_scalar", c.query_scalar);
    if (c.out_norms) {
      const auto cap = [](float value) { return value > 0 ? Value(static_cast<double>(value)) : Value(); };
      config.set("attn_logit_softcapping", cap(c.attention_soft_cap));
      config.set("final_logit_softcapping", cap(c.logit_soft_cap));
    }
    if (!c.unrotated.empty()) {
      Value rotated = Value::array();
      for (const bool without : c.unrotated) rotated.push(Value(std::int64_t{without ? 0 : 1}));
      config.set("no_rope_layers", rotated);
    }
    if (c.attention_bias && !c.output_bias && !family.projections_biased)
      raise(ErrorCategory::kUnsupported,
            "a Hugging Face folder cannot hold this model: q, k and v have biases, o has none");
    config.set("bos_token_id", id(package.tokenizer->bos()));
    config.set("eos_token_id", id(package.tokenizer->eos()));
    config.set("pad_token_id", id(package.tokenizer->pad()));
  }
  config.set("tie_word_embeddings", c.tied_embeddings);
  const char* name = dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
  config.set("torch_dtype", name);
  if (config.find("dtype") != nullptr) config.set("dtype", name);  // newer folders; it wins over the other
  return config;
}

void write_tokenizer_files(const fs::path& folder, const Package& package, const std::string& chat_template) {
  if (fs::is_directory(package.path)) {
    for (const char* name :
         {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
      if (fs::exists(package.path / name)) write_file_atomic(folder / name, read_file(package.path / name));
    }
  } else {
    write_file_atomic(folder / "tokenizer.json", dump_json(tokenizer_json_of(package.tokenizer->spec())));
    Value config = Value::object({{"tokenizer_class", "PreTrainedTokenizerFast"},
                                  {"add_bos_token", package.tokenizer->add_bos()},
                                  {"clean_up_tokenization_spaces", false},
                                  {"model_max_length", package.config.context_length}});
    const auto text = [&](const char* key, std::optional<std::int32_t> id) {
      if (id) config.set(key, package.tokenizer->token_bytes(*id));
    };
    text("bos_token", package.tokenizer->bos());
    text("eos_token", package.tokenizer->eos());
    text("pad_token", package.tokenizer->pad());
    if (!chat_template.empty()) config.set("chat_template", chat_template);
    write_file_atomic(folder / "tokenizer_config.json", dump_json(config, {.indent = 2}) + "\n");
  }
  if (!chat_template.empty()) write_file_atomic(folder / "chat_template.jinja", chat_template);
}

void copy_metadata(formats::GgufWriter& writer, const formats::GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("tokenizer.") && key != "general.name" && key != "general.license" &&
        key != "general.languages")
      continue;
    std::visit(
        [&, name = key](const auto& stored) {
          using T = std::remove_cvref_t<decltype(stored)>;
          if constexpr (std::is_same_v<T, std::int64_t>) {
            if (stored < 0 || stored > UINT32_MAX) return;  // an id of -1 means there is none
            writer.set(name, static_cast<std::uint32_t>(stored));
          } else if constexpr (std::is_same_v<T, double>) {
            writer.set(name, static_cast<float>(stored));
          } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
            writer.set(name, std::vector<std::int32_t>(stored.begin(), stored.end()));
          } else if constexpr (std::is_same_v<T, std::vector<double>>) {
            writer.set(name, std::vector<float>(stored.begin(), stored.end()));
          } else if constexpr (std::is_same_v<T, std::vector<std::string_view>>) {
            writer.set(name, std::vector<std::string>(stored.begin(), stored.end()));
          } else {
            writer.set(name, stored);
          }
        },
        value);
  }
}

// llama.cpp's name for the way a byte-level tokenizer prepares and splits text. A name also says whether whole pieces
// are looked up before merging; for a trained vocabulary that makes no difference, so such a name is second choice.
std::string split_name(const tokenizers::TokenizerSpec& spec) {
  const bool nfc = spec.normalisers.size() == 1 && spec.normalisers[0].kind == tokenizers::NormaliserKind::kNfc;
  std::string second;
  for (const std::string name : {"smollm", "llama-bpe", "dbrx", "qwen2", "stablelm2", "tekken", "gpt-2"}) {
    const auto steps = tokenizers::splits_of_gguf_name(name);
    const auto same = [](const auto& a, const auto& b) {
      return a.pattern == b.pattern && a.behaviour == b.behaviour && a.invert == b.invert;
    };
    if (!std::equal(steps.begin(), steps.end(), spec.splits.begin(), spec.splits.end(), same)) continue;
    if (name == "qwen2" ? !nfc : !spec.normalisers.empty()) continue;
    if (spec.ignore_merges == (name == "llama-bpe" || name == "tekken")) return name;
    if (second.empty()) second = name;
  }
  if (!second.empty()) return second;
  raise(ErrorCategory::kUnsupported, "{}: llama.cpp has no name for this pre-tokenizer", spec.name);
}

std::int32_t type_of(TokenKind kind) {
  switch (kind) {
    case TokenKind::kUnknown:
      return 2;
    case TokenKind::kSpecial:
      return 3;
    case TokenKind::kUserDefined:
      return 4;
    case TokenKind::kUnused:
      return 5;
    case TokenKind::kByte:
      return 6;
    default:
      return 1;
  }
}

void set_tokens(formats::GgufWriter& writer, const tokenizers::TokenizerSpec& spec, std::int64_t vocabulary) {
  std::vector<std::string> tokens = spec.tokens;
  std::vector<std::int32_t> types;
  for (std::size_t i = 0; i < static_cast<std::size_t>(vocabulary); ++i) {
    if (i >= tokens.size()) tokens.emplace_back();
    const TokenKind kind = i < spec.kinds.size() ? spec.kinds[i] : TokenKind::kUnused;
    if (kind == TokenKind::kUnused) tokens[i] = fmt::format("[PAD{}]", i);
    types.push_back(type_of(kind));
  }
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.token_type", types);
}

// SentencePiece as llama.cpp knows it: scores, a prefix before every stretch of text or none.
void set_sentence_piece(formats::GgufWriter& writer, const tokenizers::TokenizerSpec& spec, std::int64_t vocabulary) {
  using tokenizers::NormaliserKind;
  const std::size_t steps = spec.normalisers.size();
  const bool prefix = steps == 2 && spec.normalisers[0].kind == NormaliserKind::kPrepend;
  const bool spaces = steps > 0 && spec.normalisers.back().kind == NormaliserKind::kReplace &&
                      spec.normalisers.back().pattern == " " && spec.normalisers.back().text == spec.space_symbol;
  if (!spaces || steps != (prefix ? 2 : 1) || !spec.preparations.empty() || !spec.splits.empty()) {
    raise(ErrorCategory::kUnsupported, "{}: llama.cpp has no name for how this tokenizer prepares text", spec.name);
  }
  std::vector<float> scores = tokenizers::scores_of(spec);
  scores.resize(static_cast<std::size_t>(vocabulary), 0);
  writer.set("tokenizer.ggml.scores", scores);
  writer.set("tokenizer.ggml.add_space_prefix", prefix);
}

void set_tokenizer(formats::GgufWriter& writer, const Package& package) {
  const tokenizers::TokenizerSpec& spec = package.tokenizer->spec();
  const bool bytes = spec.alphabet == tokenizers::Alphabet::kBytes;
  writer.set("tokenizer.ggml.model", std::string(bytes ? "gpt2" : "llama"));
  if (bytes) {
    std::vector<std::string> merges;
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    writer.set("tokenizer.ggml.pre", split_name(spec));
    writer.set("tokenizer.ggml.merges", merges);
    if (!spec.preparations.empty()) writer.set("tokenizer.ggml.add_space_prefix", true);
  } else {
    set_sentence_piece(writer, spec, package.config.vocabulary);
  }
  set_tokens(writer, spec, package.config.vocabulary);
  for (const tokenizers::MatchRule& rule : spec.match_rules) {
    if (!rule.strip_left && !rule.strip_right && !rule.single_word) continue;
    log_warning("GGUF cannot say that token '{}' takes white space with it or stands alone: it is written without that",
                spec.tokens[static_cast<std::size_t>(rule.id)]);
  }
  const auto id = [&](const char* key, std::optional<std::int32_t> value) {
    if (value) writer.set(key, static_cast<std::uint32_t>(*value));
  };
  id("tokenizer.ggml.bos_token_id", spec.bos);
  id("tokenizer.ggml.eos_token_id", spec.eos);
  id("tokenizer.ggml.padding_token_id", spec.pad);
  id("tokenizer.ggml.unknown_token_id", spec.unknown);
  writer.set("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.set("tokenizer.ggml.add_eos_token", spec.add_eos);
}

std::uint32_t file_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kBF16:
      return 32;
    default:
      raise(ErrorCategory::kUnsupported,
            "GGUF export as {} is not supported: use f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0",
            tensor::info(dtype).name);
  }
}

void set_model(formats::GgufWriter& writer, const Package& package) {
  const LlamaConfig& c = package.config;
  const Family& family = family_of(c.architecture);
  const std::string architecture(family.gguf);
  for (std::size_t i = 0; i < c.windowed.size(); ++i) {
    const bool usual =
        family.full_interval > 0 && c.windowed[i] == ((i + 1) % static_cast<std::size_t>(family.full_interval) != 0);
    if (!usual)
      raise(ErrorCategory::kUnsupported,
            "a GGUF file cannot say that a sliding window holds for {} layers only: use hf",
            family.full_interval > 0 ? "these" : "some");
  }
  if (family.full_interval > 0 && c.windowed.empty() && c.layers >= family.full_interval)
    raise(ErrorCategory::kUnsupported, "a GGUF file cannot say that the sliding window holds for {} layers: use hf",
          c.sliding_window > 0 ? "all" : "no");
  if ((c.attention_soft_cap > 0) != (family.attention_soft_cap > 0) ||
      (c.logit_soft_cap > 0) != (family.logit_soft_cap > 0))
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has {} soft caps: use hf",
          family.attention_soft_cap > 0 ? "both" : "no");
  if (c.query_scalar != gguf_query_scalar(c))
    raise(ErrorCategory::kUnsupported,
          "a GGUF file cannot say that query_pre_attn_scalar is {}, llama.cpp takes {}: use hf", c.query_scalar,
          gguf_query_scalar(c));
  if (c.window_rotary &&
      (c.window_rotary->theta != family.window_theta || c.window_rotary->scaling != nn::RotaryConfig::Scaling::kNone))
    raise(ErrorCategory::kUnsupported, "a GGUF file cannot say how layers with a window scale their positions: use hf");
  for (std::size_t i = 0; i < c.unrotated.size(); ++i) {
    if (c.unrotated[i] != ((i + 1) % static_cast<std::size_t>(family.unrotated_interval) == 0))
      raise(ErrorCategory::kUnsupported, "a GGUF file cannot say that layer {} {} rotary positions: use hf", i,
            c.unrotated[i] ? "has no" : "has");
  }
  const std::string prefix = architecture + ".";
  const auto number = [&](const std::string& key, std::int64_t value) {
    writer.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  writer.set("general.architecture", architecture);
  writer.set("general.type", std::string("model"));
  number("block_count", c.layers);
  number("context_length", c.context_length);
  number("embedding_length", c.width);
  number("feed_forward_length", c.feed_forward_width);
  number("attention.head_count", c.heads);
  number("attention.head_count_kv", c.key_value_heads);
  number("attention.key_length", c.head_width);
  number("attention.value_length", c.head_width);
  number("rope.dimension_count", c.head_width);
  number("vocab_size", c.vocabulary);
  if (c.sliding_window > 0) number("attention.sliding_window", c.sliding_window);
  writer.set(prefix + "rope.freq_base", static_cast<float>(c.rotary.theta));
  writer.set(prefix + "attention.layer_norm_rms_epsilon", c.norm_epsilon);
  if (family.attention_soft_cap > 0) writer.set(prefix + "attn_logit_softcapping", c.attention_soft_cap);
  if (family.logit_soft_cap > 0) writer.set(prefix + "final_logit_softcapping", c.logit_soft_cap);
  using Scaling = nn::RotaryConfig::Scaling;
  if (c.rotary.scaling == Scaling::kLinear || c.rotary.scaling == Scaling::kYarn) {
    writer.set(prefix + "rope.scaling.type", std::string(c.rotary.scaling == Scaling::kLinear ? "linear" : "yarn"));
    writer.set(prefix + "rope.scaling.factor", static_cast<float>(c.rotary.factor));
    if (c.rotary.scaling == Scaling::kYarn) {
      const double usual = 0.1 * std::log(std::max(c.rotary.factor, 1.0)) + 1.0;
      const double factor = c.rotary.attention_factor > 0 ? c.rotary.attention_factor : usual;
      if (c.rotary.beta_fast != 32 || c.rotary.beta_slow != 1 || std::abs(factor - usual) > 1e-4)
        raise(ErrorCategory::kUnsupported,
              "GGUF export of yarn with its own beta or attention_factor is not supported");
      number("rope.scaling.original_context_length", static_cast<std::int64_t>(c.rotary.original_context));
    }
  }
}

}  // namespace

WeightLookup merged_weights(const Package& package, const LoadedAdapter* adapter, tensor::Allocator& allocator) {
  auto index = std::make_shared<std::map<std::string, Variable>>();
  for (const NamedWeight& weight : package.model->weights()) index->emplace(weight.name, weight.variable);
  // The stored weights themselves, not the compute copies: a bf16 session must not round an f32 model.
  std::shared_ptr<WeightSource> source;
  if (package.gguf != nullptr) {
    source = make_gguf_source(package.gguf, package.config, tensor::make_host_allocator());
  } else {
    source = make_folder_source(package.path);
  }
  return [index, source, adapter, &allocator](const std::string& name) {
    Tensor weight = ops::converted_copy(source->get(name), DType::kF32, allocator);
    if (adapter == nullptr || adapter->adapter == nullptr) return weight;
    const auto modules = adapter->adapter->modules();
    for (std::size_t i = 0; i < modules.size(); ++i) {
      if (modules[i].name + ".weight" == name)
        adapters::merge_low_rank(adapter->masters[i].first, adapter->masters[i].second, modules[i].scale, weight);
    }
    return weight;
  };
}

void write_hugging_face_files(const fs::path& folder, const Package& package, const std::string& chat_template,
                              const WeightLookup& weights, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    raise(ErrorCategory::kUnsupported, "a Hugging Face folder holds f32, f16 or bf16 weights, not {}",
          tensor::info(dtype).name);
  }
  const auto allocator = tensor::make_host_allocator();
  std::vector<formats::TensorToWrite> tensors;
  for (const NamedWeight& entry : package.model->weights()) {
    tensors.push_back(
        {entry.name, entry.variable.value().shape(), dtype,
         [&weights, &allocator, name = entry.name, dtype] { return encoded(name, weights(name), dtype, *allocator); }});
  }
  write_file_atomic(folder / "config.json", dump_json(config_json(package, dtype), {.indent = 2}) + "\n");
  write_tokenizer_files(folder, package, chat_template);
  formats::write_safetensors(folder / "model.safetensors", tensors, Value::object({{"format", "pt"}}));
}

void write_gguf(const fs::path& path, const Package& package, const std::string& chat_template,
                const WeightLookup& weights, DType dtype) {
  const auto allocator = tensor::make_host_allocator();
  formats::GgufWriter writer;
  set_model(writer, package);
  writer.set("general.file_type", file_type(dtype));
  if (package.gguf != nullptr) {
    copy_metadata(writer, *package.gguf);
  } else {
    set_tokenizer(writer, package);
  }
  if (!chat_template.empty()) writer.set("tokenizer.chat_template", chat_template);
  if (tensor::is_quantised(dtype)) writer.set("general.quantization_version", std::uint32_t{2});
  for (const NamedWeight& entry : package.model->weights()) {
    const tensor::Shape shape = entry.variable.value().shape();
    DType stored = shape.rank() == 1 ? DType::kF32 : dtype;
    if (tensor::is_quantised(stored) && (entry.name == "model.embed_tokens.weight" || entry.name == "lm_head.weight"))
      stored = DType::kQ8_0;
    if (shape[shape.rank() - 1] % tensor::info(stored).block_elements != 0) stored = DType::kF16;
    writer.add(gguf_name(package.config, entry.name), shape, stored,
               [&weights, &allocator, &package, name = entry.name, stored] {
                 Tensor weight = weights(name);
                 std::int64_t heads = 0;
                 if (has_moved_rows(package.config, name, heads)) weight = rows_to_gguf(weight, heads, *allocator);
                 if (const float offset = gguf_offset(package.config, name); offset != 0)
                   std::for_each_n(weight.data<float>(), weight.elements(),
                                   [offset](float& value) { value += offset; });
                 return encoded(name, weight, stored, *allocator);
               });
  }
  const std::vector<float> factors = frequency_factors(package.config.rotary);
  if (!factors.empty()) {
    writer.add("rope_freqs.weight", {static_cast<std::int64_t>(factors.size())}, DType::kF32, [&factors, &allocator] {
      return Tensor::from_floats(factors, {static_cast<std::int64_t>(factors.size())}, *allocator);
    });
  }
  writer.write(path);
}

void write_gguf_lora(const fs::path& path, const Package& package, const LoadedAdapter& adapter) {
  const auto allocator = tensor::make_host_allocator();
  formats::GgufWriter writer;
  writer.set("general.type", std::string("adapter"));
  writer.set("general.architecture", std::string(family_of(package.config.architecture).gguf));
  writer.set("adapter.type", std::string("lora"));
  // Readers take an alpha of 0 for "no scaling"; here the scale of 0 goes into B.
  const double given = adapter.adapter->config().alpha;
  const auto alpha = given > 0 ? static_cast<float>(given) : 1.0F;
  writer.set("adapter.lora.alpha", alpha);
  const auto modules = adapter.adapter->modules();
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const std::string name = modules[i].name + ".weight";
    const auto& [a, b] = adapter.masters[i];
    writer.add(gguf_name(package.config, name) + ".lora_a", a.shape(), DType::kF32, [a = a] { return a; });
    // Readers scale by alpha / r: whatever else the scale holds goes into B.
    const float factor = modules[i].scale / (alpha / static_cast<float>(a.dim(0)));
    writer.add(gguf_name(package.config, name) + ".lora_b", b.shape(), DType::kF32,
               [b = b, factor, name, &package, &allocator] {
                 Tensor scaled = ops::converted_copy(b, DType::kF32, *allocator);
                 for (std::int64_t j = 0; j < scaled.elements(); ++j) scaled.data<float>()[j] *= factor;
                 std::int64_t heads = 0;
                 return has_moved_rows(package.config, name, heads) ? rows_to_gguf(scaled, heads, *allocator) : scaled;
               });
  }
  writer.write(path);
}

}  // namespace instruct::models
