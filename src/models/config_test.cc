// Configurations from config.json and GGUF metadata, the rotary scalings against transformers
// (tests/goldens/models/rotary.py).
#include <gmock/gmock.h>

#include "formats/gguf.h"
#include "models/sources.h"
#include "models/test_support.h"

namespace instruct::models {
namespace {

using ::testing::HasSubstr;

Value golden_config() {
  return parse_json(read_file(golden_model("llama-tied") / "config.json"), "config.json");
}

LlamaConfig read(const Value& json) {
  LlamaConfig config = config_from_json(json, "config.json");
  config.check("config.json");
  return config;
}

TEST(Config, RotaryScalingsAreThoseOfTransformers) {
  const Value golden = parse_json(read_file(INSTRUCT_GOLDENS "/models/rotary.json"), "rotary.json");
  const auto allocator = tensor::make_host_allocator();
  EXPECT_EQ(golden.at("cases").size(), 22U);
  for (const Value& sample : golden.at("cases").as_array()) {
    const LlamaConfig config = read(sample.at("config"));
    for (const Value& text : sample.at("lengths").as_array()) {
      const std::int64_t length = text.at("length").as_integer();
      const std::string name = fmt::format("{}, {} tokens", sample.at("name").as_string(), length);
      const std::vector<double> frequencies = nn::rotary_frequencies(config.rotary, length);
      const Value::Array& expected = text.at("frequencies").as_array();
      ASSERT_EQ(frequencies.size(), expected.size()) << name;
      EXPECT_LE(length, config.context_length) << name;
      for (std::size_t i = 0; i < frequencies.size(); ++i)  // transformers computes them in f32
        EXPECT_NEAR(frequencies[i], expected[i].as_double(), 2e-6 * expected[i].as_double()) << name << " pair " << i;
      const ops::RotaryTables tables = nn::make_rotary_tables(config.rotary, 1, length, *allocator);
      EXPECT_NEAR(static_cast<double>(tables.cosine.data<float>()[0]), text.at("magnitude").as_double(), 1e-6) << name;
    }
  }
}

struct Change {
  const char* key;
  Value value;
  const char* message;
};

TEST(Config, WhatCannotBeRightIsNamed) {
  const Value rope = Value::object({{"rope_type", "spiral"}, {"factor", 2.0}});
  const auto scaled = [](std::initializer_list<Value::Member> members) { return Value::object(members); };
  const std::vector<Change> changes{
      {"model_type", "gpt_neox", "unsupported: config.json: unknown architecture 'gpt_neox'"},
      {"model_type", "lama", "did you mean 'llama'"},
      {"model_type", 3, "bad data: config.json: "},
      {"hidden_size", "32", "expected integer, got string"},
      {"hidden_size", 0, "hidden_size is 0"},
      {"num_hidden_layers", -1, "num_hidden_layers is -1"},
      {"num_attention_heads", 0, "num_attention_heads is 0"},
      {"num_key_value_heads", 3, "num_attention_heads modulo num_key_value_heads is 1"},
      {"head_dim", 7, "head_dim (odd) is 7"},
      {"vocab_size", std::int64_t{1} << 40, "vocab_size is"},
      {"rms_norm_eps", 0.0, "rms_norm_eps is 0"},
      {"tie_word_embeddings", "yes", "expected bool, got string"},
      {"hidden_act", "gelu", "unsupported: config.json: hidden_act 'gelu'"},
      {"mlp_bias", true, "mlp_bias"},
      {"quantization_config", scaled({{"quant_method", "gptq"}}), "quantised models as GGUF"},
      {"rope_parameters", rope, "rope scaling 'spiral': this program knows linear, dynamic, yarn, llama3 and longrope"},
      {"rope_parameters", scaled({{"factor", 2.0}}), "rope_scaling has a factor but no rope_type"},
      {"rope_parameters", scaled({{"rope_type", "linear"}}), "not found: config.json: "},
      {"rope_parameters", scaled({{"rope_type", "linear"}, {"factor", 0.0}}), "rope scaling factor is 0"},
      {"rope_parameters", scaled({{"rope_type", "default"}, {"rope_theta", 0.5}}), "rope_theta is 0.5"},
      {"rope_parameters", scaled({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}), "partial_rotary_factor"},
      {"rope_parameters", scaled({{"rope_type", "llama3"}, {"factor", 8.0}, {"high_freq_factor", 1.0}}),
       "high_freq_factor is 1"},
      {"rope_parameters", scaled({{"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 0}}),
       "original_max_position_embeddings is 0"},
      {"rope_parameters", scaled({{"rope_type", "yarn"}, {"factor", 8.0}, {"attention_factor", -1.0}}),
       "attention_factor is -1"},
      {"rope_parameters", scaled({{"rope_type", "longrope"}, {"factor", 8.0}}), "key 'short_factor' is missing"},
      {"rope_parameters",
       scaled({{"rope_type", "longrope"},
               {"factor", 8.0},
               {"short_factor", Value(Value::Array{1.0, 1.0})},
               {"long_factor", Value(Value::Array{})}}),
       "short_factor: 2 numbers, one for each of 4 pairs is needed"},
      {"rope_parameters",
       scaled({{"rope_type", "longrope"},
               {"factor", 8.0},
               {"short_factor", Value(Value::Array{1.0, 1.0, 1.0, 1.0})},
               {"long_factor", Value(Value::Array{1.0, 1.0, 0.0, 1.0})}}),
       "long_factor is 0"},
  };
  for (const Change& change : changes) {
    Value json = golden_config();
    json.set(change.key, change.value);
    EXPECT_THAT(message_of([&] { read(json); }), HasSubstr(change.message)) << change.key;
    EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("config.json: ")) << change.key;
  }
  for (const char* key :
       {"model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"}) {
    const Value whole = golden_config();
    Value json = Value::object();
    for (const auto& [name, value] : whole.as_object()) {
      if (name != key) json.set(name, value);
    }
    EXPECT_THAT(message_of([&] { read(json); }), HasSubstr(fmt::format("key '{}' is missing", key)));
  }
}

TEST(Config, Gpt2HasKeysOfItsOwn) {
  const auto with = [](std::initializer_list<Value::Member> members) {
    Value json = Value::object({{"model_type", "gpt2"}});
    for (const auto& [key, value] : members) json.set(key, value);
    return json;
  };
  const LlamaConfig smallest = read(with({}));  // what a missing key means: the model of 124M parameters
  EXPECT_EQ(smallest.layers, 12);
  EXPECT_EQ(smallest.width, 768);
  EXPECT_EQ(smallest.feed_forward_width, 3072);
  EXPECT_EQ(smallest.head_width, 64);
  EXPECT_EQ(smallest.vocabulary, 50257);
  EXPECT_EQ(smallest.context_length, 1024);
  EXPECT_TRUE(smallest.tied_embeddings);
  EXPECT_TRUE(smallest.layer_norms && smallest.learned_positions && !smallest.gated);
  EXPECT_EQ(smallest.activation, ops::Activation::kGeluTanh);
  EXPECT_EQ(smallest.padding, -1);
  EXPECT_EQ(read(with({{"n_ctx", 512}})).context_length, 512);
  EXPECT_EQ(read(with({{"n_ctx", 512}, {"n_positions", 256}})).context_length, 256);
  EXPECT_EQ(read(with({{"n_embd", 48}, {"n_head", 4}})).feed_forward_width, 192);
  EXPECT_EQ(read(with({{"n_inner", Value()}, {"pad_token_id", 5}})).padding, -1);  // its row is one like others
  EXPECT_EQ(read(with({{"activation_function", "relu"}})).activation, ops::Activation::kRelu);
  EXPECT_EQ(read(with({{"scale_attn_weights", false}})).query_scalar, 1);
  EXPECT_TRUE(read(with({{"scale_attn_by_inverse_layer_idx", true}})).scores_by_layer);
  const Change changes[] = {
      {"activation_function", "mish", "activation_function 'mish': this program knows gelu, gelu_new"},
      {"add_cross_attention", true, "unsupported: config.json: add_cross_attention"},
      {"n_head", 7, "bad data: config.json: n_embd is 768, which 7 heads (n_head) do not divide"},
      {"n_head", 0, "which 0 heads"},
      {"n_embd", -768, "hidden_size is -768"},
      {"n_inner", 0, "intermediate_size is 0"},
      {"n_layer", 5000, "num_hidden_layers is 5000"},
      {"n_positions", std::int64_t{1} << 40, "max_position_embeddings is"},
      {"layer_norm_epsilon", 2.0, "layer_norm_epsilon is 2"},
      {"n_embd", "768", "expected integer, got string"},
      {"quantization_config", Value::object({{"quant_method", "gptq"}}), "quantised models as GGUF"},
  };
  for (const Change& change : changes)
    EXPECT_THAT(message_of([&] { read(with({{change.key, change.value}})); }), HasSubstr(change.message)) << change.key;
}

// Configurations of Gemma 3: today's, that of the first releases, and one that says nothing.
TEST(Config, GemmaHasTwoKindsOfLayers) {
  Value json = golden_config();
  json.set("model_type", "gemma3_text");
  json.set("hidden_act", Value());
  json.set("hidden_activation", "gelu_pytorch_tanh");
  json.set("rope_theta", Value());
  json.set("rope_parameters", Value());
  json.set("num_hidden_layers", 7);
  json.set("head_dim", Value());
  EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("config.json: sliding_window is missing or 0"));
  json.set("sliding_window", 512);
  LlamaConfig config = read(json);
  EXPECT_EQ(config.windowed, (std::vector<bool>{true, true, true, true, true, false, true}));
  EXPECT_EQ(config.head_width, 256);
  EXPECT_EQ(config.query_scalar, 256);
  EXPECT_EQ(config.rotary.theta, 1e6);
  EXPECT_EQ(config.window_rotary.value().theta, 1e4);
  EXPECT_FLOAT_EQ(config.embedding_scale, std::sqrt(32.0F));
  json.set("sliding_window_pattern", 2);
  json.set("rope_theta", 5e5);
  json.set("rope_local_base_freq", 2e4);
  json.set("rope_scaling", Value::object({{"rope_type", "linear"}, {"factor", 8.0}}));
  json.set("query_pre_attn_scalar", 168);
  config = read(json);
  EXPECT_EQ(config.windowed, (std::vector<bool>{true, false, true, false, true, false, true}));
  EXPECT_EQ(config.rotary.theta, 5e5);
  EXPECT_EQ(config.rotary.factor, 8);
  EXPECT_EQ(config.window_rotary.value().theta, 2e4);
  EXPECT_EQ(config.window_rotary.value().factor, 1);
  EXPECT_EQ(config.query_scalar, 168);
  json.set("rope_parameters", parse_json(R"({"full_attention": {"rope_type": "default", "rope_theta": 3e6},
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}})",
                                         "test"));
  config = read(json);
  EXPECT_EQ(config.rotary.theta, 3e6);
  EXPECT_EQ(config.rotary.factor, 1);
  EXPECT_EQ(config.window_rotary.value().theta, 3e4);
  for (const auto& [key, value, message] : std::vector<Change>{
           {"hidden_activation", "gelu", "'gelu': this program knows gelu_pytorch_tanh for gemma3_text"},
           {"final_logit_softcapping", -30.0, "final_logit_softcapping is -30"},
           {"use_bidirectional_attention", true, "causal"},
           {"sliding_window_pattern", 0, "sliding_window_pattern is 0"}}) {
    Value changed = json;
    changed.set(key, value);
    EXPECT_THAT(message_of([&] { read(changed); }), HasSubstr(message)) << key;
  }
}

// A configuration of Gemma 2 without a word of caps has those of its class; null says none.
TEST(Config, SoftCapsAreTheFamilysUnlessSaid) {
  Value json = golden_config();
  EXPECT_EQ(read(json).logit_soft_cap, 0);
  json.set("model_type", "gemma2");
  json.set("hidden_act", "gelu_pytorch_tanh");
  json.set("sliding_window", 512);
  EXPECT_EQ(read(json).attention_soft_cap, 50);
  EXPECT_EQ(read(json).logit_soft_cap, 30);
  EXPECT_EQ(read(json).windowed, (std::vector<bool>{true, false}));
  EXPECT_FALSE(read(json).window_rotary.has_value());
  json.set("attn_logit_softcapping", Value());
  json.set("final_logit_softcapping", 20.0);
  EXPECT_EQ(read(json).attention_soft_cap, 0);
  EXPECT_EQ(read(json).logit_soft_cap, 20);
}

TEST(Config, AWindowCountsWhereTheFamilyUsesIt) {
  Value json = golden_config();
  json.set("sliding_window", 128);
  EXPECT_EQ(read(json).sliding_window, 0);
  json.set("model_type", "mistral");
  EXPECT_EQ(read(json).sliding_window, 128);
  json.set("sliding_window", Value());
  EXPECT_EQ(read(json).sliding_window, 0);
  json.set("model_type", "qwen2");
  json.set("sliding_window", 128);
  EXPECT_EQ(read(json).sliding_window, 0);
  json.set("use_sliding_window", true);
  EXPECT_EQ(read(json).sliding_window, 0) << "max_window_layers is 28 where nothing is said";
  json.set("max_window_layers", 0);
  EXPECT_EQ(read(json).sliding_window, 128);
  EXPECT_TRUE(read(json).windowed.empty());
  json.set("max_window_layers", 1);
  EXPECT_EQ(read(json).sliding_window, 128);
  EXPECT_EQ(read(json).windowed, (std::vector<bool>{false, true}));
  json.set("layer_types", parse_json(R"(["sliding_attention", "full_attention"])", "test"));
  EXPECT_EQ(read(json).windowed, (std::vector<bool>{true, false}));
  json.set("layer_types", parse_json(R"(["sliding_attention"])", "test"));
  EXPECT_TRUE(read(json).windowed.empty()) << "all of them";
  json.set("layer_types", parse_json(R"(["sliding_attention", "full_attention", "full_attention"])", "test"));
  EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("the number of layer_types is 3"));
  json.set("layer_types", parse_json(R"(["linear_attention", "full_attention"])", "test"));
  EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("layer_types: 'linear_attention'"));
}

TEST(Config, HeadsOfAQwen3AreNormalisedAndHaveAWidthOfTheirOwn) {
  Value json = golden_config();
  EXPECT_FALSE(read(json).head_norms);
  json.set("model_type", "qwen3");
  EXPECT_TRUE(read(json).head_norms);
  EXPECT_FALSE(read(json).attention_bias);
  json.set("head_dim", 16);
  EXPECT_EQ(read(json).head_width, 16);
  json.set("head_dim", Value());
  EXPECT_EQ(read(json).head_width, 128);
}

TEST(Config, SmolLM3SaysWhichLayersAreNotRotated) {
  Value json = golden_config();
  json.set("no_rope_layers", Value());
  EXPECT_TRUE(read(json).unrotated.empty());
  json.set("model_type", "smollm3");
  json.set("num_hidden_layers", 5);
  EXPECT_EQ(read(json).unrotated, (std::vector<bool>{false, false, false, true, false}));
  json.set("no_rope_layer_interval", 2);
  EXPECT_EQ(read(json).unrotated, (std::vector<bool>{false, true, false, true, false}));
  json.set("no_rope_layer_interval", 0);
  EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("no_rope_layer_interval is 0"));
  json.set("no_rope_layers", parse_json("[0, 1, 1, 1, 0]", "test"));
  EXPECT_EQ(read(json).unrotated, (std::vector<bool>{true, false, false, false, true}));
  json.set("no_rope_layers", parse_json("[0, 1]", "test"));
  EXPECT_THAT(message_of([&] { read(json).check("config.json"); }), HasSubstr("number of no_rope_layers is 2"));
  json.set("no_rope_layers", parse_json("[0, 1, \"x\", 1, 1]", "test"));
  EXPECT_THAT(message_of([&] { read(json); }), HasSubstr("config.json: "));
  json.set("no_rope_layers", Value());
  json.set("no_rope_layer_interval", 4);
  json.set("use_sliding_window", true);
  json.set("sliding_window", 64);
  EXPECT_EQ(read(json).sliding_window, 64);
  EXPECT_EQ(read(json).windowed, (std::vector<bool>{false, false, false, true, false}));
}

TEST(Config, ExpertsAreReadInOldAndNewWords) {
  Value json = golden_config();
  json.set("model_type", "qwen3_moe");
  json.set("num_hidden_layers", 4);
  json.set("num_experts", 16);
  json.set("decoder_sparse_step", 2);
  json.set("mlp_only_layers", parse_json("[1]", "test"));
  LlamaConfig config = read(json);
  EXPECT_EQ(config.experts, 16);
  EXPECT_EQ(config.chosen_experts, 8);
  EXPECT_EQ(config.expert_width, 768);
  EXPECT_FALSE(config.renormalise_experts);
  EXPECT_EQ(config.dense, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(config.balance_weight, 0);
  json.set("output_router_logits", true);
  json.set("num_local_experts", 12);
  json.set("norm_topk_prob", true);
  EXPECT_EQ(read(json).experts, 12);
  EXPECT_EQ(read(json).balance_weight, 0.001);
  EXPECT_TRUE(read(json).renormalise_experts);
  for (const auto& [key, value, message] : std::vector<Change>{
           {"num_experts_per_tok", 13, "num_experts_per_tok is 13, expected 1 to 12, the number of experts"},
           {"num_experts_per_tok", 0, "num_experts_per_tok is 0"},
           {"num_local_experts", 1 << 20, "num_experts is"},
           {"moe_intermediate_size", 0, "moe_intermediate_size is 0"},
           {"decoder_sparse_step", 0, "decoder_sparse_step is 0"},
           {"mlp_only_layers", parse_json("[4]", "test"), "mlp_only_layers names layer 4 of 4"},
           {"router_aux_loss_coef", -1.0, "router_aux_loss_coef is -1"},
           {"router_jitter_noise", 0.1, "router_jitter_noise"}}) {
    Value changed = json;
    changed.set(key, value);
    EXPECT_THAT(message_of([&] { read(changed); }), HasSubstr(message)) << key;
  }
  json.set("decoder_sparse_step", 5);  // no layer is left
  EXPECT_EQ(read(json).experts, 0);
  json.set("model_type", "mixtral");
  json.set("decoder_sparse_step", Value());
  json.set("mlp_only_layers", Value());
  json.set("norm_topk_prob", Value());
  config = read(json);
  EXPECT_TRUE(config.dense.empty());
  EXPECT_TRUE(config.renormalise_experts);
  EXPECT_EQ(config.expert_width, config.feed_forward_width);
}

// Phi-4-mini: a quarter of each head is not rotated.
TEST(Config, HeadsOfPhiMayBeRotatedInPart) {
  Value json = golden_config();
  json.set("model_type", "phi3");
  json.set("rope_parameters", Value());
  json.set("rope_theta", 1e4);
  json.set("partial_rotary_factor", 0.75);
  EXPECT_EQ(read(json).rotary.width, 6);
  EXPECT_EQ(read(json).head_width, 8);
  for (const double part : {0.0, -1.0, 1.5, 0.1, 0.4}) {
    json.set("partial_rotary_factor", part);
    EXPECT_THAT(message_of([&] { read(json); }), ::testing::AnyOf(HasSubstr("partial_rotary_factor is"),
                                                                  HasSubstr("width that is rotated of a head is")))
        << part;
  }
}

TEST(Config, TiedEmbeddingsWithoutAWordAreTheFamilys) {
  Value json = golden_config();
  json.set("tie_word_embeddings", Value());
  EXPECT_FALSE(read(json).tied_embeddings);
  json.set("model_type", "smollm3");
  EXPECT_TRUE(read(json).tied_embeddings);
}

// Metadata of a small llama, each key by its own setter so that a test can leave one out or change it.
class GgufConfig : public Folder {
 protected:
  GgufConfig() {
    text_["general.architecture"] = "llama";
    for (const auto& [key, value] : {std::pair{"block_count", 2U},
                                     {"embedding_length", 32U},
                                     {"feed_forward_length", 64U},
                                     {"attention.head_count", 4U},
                                     {"attention.head_count_kv", 2U},
                                     {"context_length", 512U}})
      number_[key] = value;
  }
  std::string read_message() {
    return message_of([&] { read_config(); });
  }
  LlamaConfig read_config() {
    formats::GgufWriter writer;
    for (const auto& [key, value] : text_) writer.set(key, value);
    for (const auto& [key, value] : number_) writer.set("llama." + key, value);
    writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    writer.set("llama.rope.scaling.factor", factor_);
    const auto allocator = tensor::make_host_allocator();
    writer.add("token_embd.weight", {40, 32}, DType::kF16, [&] {
      return Tensor::zeros({40, 32}, DType::kF16, *allocator);
    });
    if (factors_ > 0) {
      writer.add("rope_freqs.weight", {factors_}, DType::kF32, [&] {
        return Tensor::from_floats(std::vector<float>(static_cast<std::size_t>(factors_), 2.0F), {factors_},
                                   *allocator);
      });
    }
    writer.write(folder_ / "m.gguf");
    LlamaConfig config = config_from_gguf(*formats::GgufFile::open(folder_ / "m.gguf"));
    config.check("m.gguf");
    return config;
  }
  std::map<std::string, std::string> text_;
  std::map<std::string, std::uint32_t> number_;
  float factor_ = 1.0F;
  std::int64_t factors_ = 0;
};

TEST_F(GgufConfig, IsReadFromMetadata) {
  text_["llama.rope.scaling.type"] = "yarn";
  number_["rope.scaling.original_context_length"] = 128;
  factor_ = 4.0F;
  const LlamaConfig config = read_config();
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.head_width, 8);
  EXPECT_EQ(config.vocabulary, 40);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.rotary.scaling, nn::RotaryConfig::Scaling::kYarn);
  EXPECT_EQ(config.rotary.original_context, 128);
  EXPECT_EQ(config.rotary.factor, 4.0);
}

TEST_F(GgufConfig, FrequencyFactorsDivide) {
  factors_ = 4;
  const LlamaConfig config = read_config();
  EXPECT_DOUBLE_EQ(nn::rotary_frequencies(config.rotary, 1)[0], 0.5);
  factors_ = 3;
  EXPECT_THAT(read_message(), HasSubstr("rope frequency factors: 3 numbers, one for each of 4 pairs"));
}

TEST_F(GgufConfig, WhatCannotBeRightIsNamed) {
  const auto saved = number_;
  const auto with = [&](const char* key, std::uint32_t value) {
    number_ = saved;
    number_[key] = value;
    return read_message();
  };
  for (const auto& [key, value] : saved) {
    if (key == "attention.head_count_kv") continue;
    number_ = saved;
    number_.erase(key);
    EXPECT_THAT(read_message(), HasSubstr("m.gguf: key 'llama." + key + "' is missing"));
  }
  EXPECT_THAT(with("attention.head_count_kv", 3), HasSubstr("modulo num_key_value_heads is 1"));
  EXPECT_THAT(with("attention.head_count", 0), HasSubstr("num_attention_heads"));
  EXPECT_THAT(with("rope.dimension_count", 4), HasSubstr("rotary width 4 differs from the head width 8"));
  EXPECT_THAT(with("attention.value_length", 16), HasSubstr("values of width 16 beside keys of width 8"));
  EXPECT_THAT(with("expert_count", 8), HasSubstr("key 'llama.expert_used_count' is missing"));
  number_ = saved;
  text_["llama.rope.scaling.type"] = "longrope";
  EXPECT_THAT(read_message(), HasSubstr("short_factor: 0 numbers, one for each of 4 pairs"));
  text_["llama.rope.scaling.type"] = "spiral";
  EXPECT_THAT(read_message(), HasSubstr("rope scaling 'spiral'"));
  text_["general.architecture"] = "qwen33";
  EXPECT_THAT(read_message(), HasSubstr("unknown architecture 'qwen33'; did you mean 'qwen3'?"));
}

}  // namespace
}  // namespace instruct::models
