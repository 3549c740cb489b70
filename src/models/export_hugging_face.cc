// Hugging Face folders: config.json, model.safetensors and the tokenizer's files.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "models/export.h"
#include "models/export_parts.h"
#include "models/families.h"
#include "models/rotary_files.h"
#include "models/sources.h"
#include "models/tokenizer_files.h"
#include "ops/weights.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using tensor::DType;

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

// Of a GGUF file, which has no other scores and activation than these defaults.
Value gpt2_json(const LlamaConfig& c, const Family& family) {
  return Value::object({{"architectures", Value(Value::Array{architecture_name(c)})},
                        {"model_type", c.architecture},
                        {"activation_function", std::string(family.activation)},
                        {"n_embd", c.width},
                        {"n_inner", c.feed_forward_width},
                        {"n_layer", c.layers},
                        {"n_head", c.heads},
                        {"n_positions", c.context_length},
                        {"vocab_size", c.vocabulary},
                        {"layer_norm_epsilon", static_cast<double>(c.norm_epsilon)}});
}

Value llama_json(const LlamaConfig& c, const Family& family) {
  Value config = Value::object({{"architectures", Value(Value::Array{architecture_name(c)})},
                                {"model_type", model_type(c)},
                                {c.out_norms ? "hidden_activation" : "hidden_act", std::string(family.activation)},
                                {"hidden_size", c.width},
                                {"intermediate_size", c.feed_forward_width},
                                {"num_hidden_layers", c.layers},
                                {"num_attention_heads", c.heads},
                                {"num_key_value_heads", c.key_value_heads},
                                {"head_dim", c.head_width},
                                {"vocab_size", c.vocabulary},
                                {"max_position_embeddings", max_position_embeddings(c)},
                                {"rms_norm_eps", static_cast<double>(c.norm_epsilon)},
                                {"rope_theta", c.rotary.theta},
                                {"rope_scaling", rope_scaling_json(c.rotary)},
                                {"attention_bias", c.output_bias},
                                {"mlp_bias", false}});
  if (c.sliding_window > 0) {
    config.set("sliding_window", c.sliding_window);
    if (!family.window_always) config.set("use_sliding_window", true);
    if (!family.window_always || family.full_interval > 0) config.set("layer_types", layer_types(c));
  }
  if (c.experts > 0) {
    config.set("num_experts", c.experts);  // as older versions of transformers call it, and newer ones
    config.set("num_local_experts", c.experts);
    config.set("num_experts_per_tok", c.chosen_experts);
    config.set("norm_topk_prob", c.renormalise_experts);
    if (family.default_expert_width > 0) config.set("moe_intermediate_size", c.expert_width);
  }
  if (family.original_context > 0)
    config.set("original_max_position_embeddings", static_cast<std::int64_t>(c.rotary.original_context));
  if (family.partial_rotary)
    config.set("partial_rotary_factor", static_cast<double>(c.rotary.width) / static_cast<double>(c.head_width));
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
  return config;
}

Value decoder_json(const LlamaConfig& c) {
  const Family& family = family_of(model_type(c));
  return family.layer_norms ? gpt2_json(c, family) : llama_json(c, family);
}

// Of a GGUF file.
Value t5_json(const Seq2SeqConfig& c) {
  const bool first = c.architecture == "t5";
  Value config =
      Value::object({{"architectures",
                      Value(Value::Array{Value(first ? "T5ForConditionalGeneration" : "MT5ForConditionalGeneration")})},
                     {"model_type", c.architecture},
                     {"is_encoder_decoder", true},
                     {"d_model", c.width},
                     {"d_kv", c.head_width},
                     {"d_ff", c.feed_forward_width},
                     {"num_layers", c.layers},
                     {"num_decoder_layers", c.decoder_layers},
                     {"num_heads", c.heads},
                     {"n_positions", c.trained_length},
                     {"relative_attention_num_buckets", c.distance_buckets},
                     {"relative_attention_max_distance", c.farthest_distance},
                     {"feed_forward_proj", c.gated ? "gated-gelu" : "relu"},
                     {"layer_norm_epsilon", static_cast<double>(c.norm_epsilon)},
                     {"decoder_start_token_id", std::int64_t{c.start}},
                     {"vocab_size", c.vocabulary},
                     {"tie_word_embeddings", c.tied_embeddings}});
  if (first) config.set("scale_decoder_outputs", c.output_scale != 1);
  return config;
}

Value config_json(const Package& package, DType dtype) {
  Value config = package.hugging_face_config;
  const LlamaConfig& c = package.config;
  if (!config.is_object()) {
    config = package.seq2seq ? t5_json(*package.seq2seq) : decoder_json(c);
    const auto id = [](std::optional<std::int32_t> value) { return value ? Value(std::int64_t{*value}) : Value(); };
    config.set("bos_token_id", id(package.tokenizer->bos()));
    config.set("eos_token_id", id(package.tokenizer->eos()));
    config.set("pad_token_id", id(package.tokenizer->pad()));
  }
  // Of T5 it says more than that.
  if (!package.seq2seq) config.set("tie_word_embeddings", c.tied_embeddings);
  set_stored_type(config, dtype);
  return config;
}

void write_tokenizer_files(const fs::path& folder, const Package& package, const std::string& chat_template) {
  if (fs::is_directory(package.path)) {
    copy_tokenizer_files(package.path, folder);
    const char* generation = "generation_config.json";
    if (fs::exists(package.path / generation))
      write_file_atomic(folder / generation, read_file(package.path / generation));
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

}  // namespace

void write_hugging_face_files(const fs::path& folder, const Package& package, const std::string& chat_template,
                              const WeightLookup& weights, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    raise(ErrorCategory::kUnsupported, "a Hugging Face folder holds f32, f16 or bf16 weights, not {}",
          tensor::info(dtype).name);
  }
  const auto allocator = tensor::make_host_allocator();
  ThreadPool threads(1);  // rounding is faster than the disk
  std::vector<formats::TensorToWrite> tensors;
  for (const NamedWeight& entry : package.model->weights()) {
    tensor::Shape shape = entry.variable.value().shape();
    const bool turned = !package.seq2seq && has_inputs_first(package.config, entry.name, shape);
    if (turned) shape = {shape[1], shape[0]};
    tensors.push_back({entry.name, shape, dtype, [&, name = entry.name, turned] {
                         const Tensor weight = weights(name);
                         return encoded_weight(name, turned ? ops::transposed_copy(weight, *allocator) : weight, dtype,
                                               *allocator, threads);
                       }});
  }
  write_file_atomic(folder / "config.json", dump_json(config_json(package, dtype), {.indent = 2}) + "\n");
  write_tokenizer_files(folder, package, chat_template);
  formats::write_safetensors(folder / "model.safetensors", tensors, Value::object({{"format", "pt"}}));
}

}  // namespace instruct::models
