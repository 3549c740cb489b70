// Encoder-decoders against transformers (tests/goldens/seq2seq/make.py): hidden states of every layer of both stacks,
// and every gradient.
#include "models/seq2seq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "formats/safetensors.h"
#include "models/export.h"
#include "models/seq2seq_gguf.h"
#include "models/sources.h"
#include "models/test_support.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;

// An encoder-decoder with the rows of its golden: each a source and an answer.
class Seq2SeqParity : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { load({}); }
  void load(const WeightOptions& options, ops::Backend backend = ops::Backend::kCpu) {
    const fs::path folder = golden_seq2seq(GetParam());
    engine_ = std::make_unique<ops::Engine>(2, backend);
    source_ = make_folder_source(folder);
    tensors_ = formats::SafetensorsFile::open(folder / "expected.safetensors");
    const Value json = parse_json(read_file(folder / "config.json"), "config.json");
    model_ = std::make_unique<Seq2Seq>(seq2seq_config_from_json(json, "config.json"), *source_, options,
                                       engine_->allocator());
    tokens_.clear();
    segments_.clear();
    targets_.clear();
    outputs_.clear();
    const Value golden = parse_json(read_file(folder / "expected.json"), "expected.json");
    for (const Value& row : golden.at("rows").as_array()) {
      const auto begin = static_cast<std::int64_t>(tokens_.size());
      const std::int64_t answer = begin + row.at("source").as_integer();
      for (const Value& id : row.at("ids").as_array()) tokens_.push_back(static_cast<std::int32_t>(id.as_integer()));
      const auto end = static_cast<std::int64_t>(tokens_.size()) - 1;  // the last token is only predicted
      for (std::int64_t t = answer; t < end; ++t) {
        outputs_.push_back(static_cast<std::int32_t>(t));
        targets_.push_back(tokens_[static_cast<std::size_t>(t) + 1]);
      }
      tokens_.pop_back();
      segments_.push_back({.begin = begin, .end = answer, .source = true});
      segments_.push_back({.begin = answer, .end = end, .parent = static_cast<std::int32_t>(segments_.size()) - 1});
    }
    plan_ = tensor::plan_of(segments_);
    positions_ = tensor::positions_of(segments_);
  }
  Pass pass() const { return {.tokens = tokens_, .positions = positions_, .plan = &plan_}; }

  std::unique_ptr<ops::Engine> engine_;
  std::unique_ptr<WeightSource> source_;
  std::shared_ptr<const formats::SafetensorsFile> tensors_;
  std::unique_ptr<Seq2Seq> model_;
  std::vector<tensor::Segment> segments_;
  tensor::AttentionPlan plan_;
  std::vector<std::int32_t> tokens_, positions_, targets_, outputs_;
};
INSTANTIATE_TEST_SUITE_P(Models, Seq2SeqParity, ::testing::ValuesIn(golden_seq2seqs()), test_name);

TEST_P(Seq2SeqParity, HiddenStatesOfEveryLayerAreTheOfficialOnes) {
  for (const ops::Backend backend : {ops::Backend::kCpu, ops::Backend::kReference}) {
    load({}, backend);
    Seq2Seq::Layers layers;
    model_->hidden(engine_->context(), pass(), &layers);
    ASSERT_EQ(static_cast<std::int64_t>(layers.encoder.size()), model_->config().layers + 1);
    ASSERT_EQ(static_cast<std::int64_t>(layers.decoder.size()), model_->config().decoder_layers + 1);
    for (const bool encoder : {true, false}) {
      const std::vector<Tensor>& states = encoder ? layers.encoder : layers.decoder;
      for (std::size_t layer = 0; layer < states.size(); ++layer) {
        std::int64_t begin = 0;
        for (std::size_t row = 0; 2 * row < segments_.size(); ++row) {
          const tensor::Segment& segment = segments_[2 * row + (encoder ? 0 : 1)];
          const std::int64_t end = begin + segment.end - segment.begin;
          const std::string name = fmt::format("{}.{}.{}", encoder ? "encoder" : "decoder", layer, row);
          EXPECT_LE(largest_gap(states[layer].rows(begin, end).to_floats(), tensors_->tensor(name).to_floats()), 1e-4F)
              << name;
          begin = end;
        }
      }
    }
  }
}

// In one pass, and with activation checkpointing.
TEST_P(Seq2SeqParity, EveryGradientIsTheOfficialOne) {
  for (const bool checkpoint : {false, true}) {
    load({.trainable = true});
    const std::vector<float> weights(targets_.size(), 1.0F / static_cast<float>(targets_.size()));
    autograd::Tape tape;
    Pass whole = pass();
    whole.rows = outputs_;
    whole.checkpoint = checkpoint;
    const std::vector<float> values = model_->log_probabilities(
        engine_->context(&tape), whole, {.targets = targets_, .weights = weights}, model_->config().vocabulary);
    tape.backward();
    double loss = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      loss -= static_cast<double>(weights[i]) * static_cast<double>(values[i]);
    EXPECT_NEAR(loss, static_cast<double>(tensors_->tensor("loss").data<float>()[0]), 1e-5);
    std::size_t compared = 0;
    for (const NamedWeight& weight : model_->weights()) {
      const std::string name = "gradient." + weight.name;
      if (!tensors_->has(name)) continue;
      ++compared;
      const std::vector<float> wanted = tensors_->tensor(name).to_floats();
      ASSERT_TRUE(weight.variable.gradient().defined()) << name;
      const std::vector<float> got = weight.variable.gradient().to_floats();
      ASSERT_EQ(got.size(), wanted.size());
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], wanted[i], 1e-5 + 1e-3 * std::abs(static_cast<double>(wanted[i]))) << name << " " << i;
    }
    std::size_t official = 0;
    for (const std::string& name : tensors_->names()) official += name.starts_with("gradient.") ? 1U : 0U;
    EXPECT_EQ(compared, official);
  }
}

TEST_P(Seq2SeqParity, AnAnswerNeedsASource) {
  std::vector<tensor::Segment> segments{{.begin = 0, .end = 3}};
  const tensor::AttentionPlan plan = tensor::plan_of(segments);
  Pass alone = pass();
  alone.tokens = alone.tokens.first(3);
  alone.positions = alone.positions.first(3);
  alone.plan = &plan;
  EXPECT_THROW(model_->hidden(engine_->context(), alone), Error);
}

// Of a configuration as Marian's files have it: the padding is never generated.
TEST(Seq2SeqConfigs, SayWhatIsNeverGenerated) {
  const fs::path folder = golden_seq2seq("marian");
  Value json = parse_json(read_file(folder / "config.json"), "config.json");
  json.set("bad_words_ids", Value(Value::Array{Value(Value::Array{Value(std::int64_t{5})})}));
  const Seq2SeqConfig config = seq2seq_config_from_json(json, "config.json");
  ops::Engine engine(1);
  Seq2Seq model(config, *make_folder_source(folder), {}, engine.allocator());
  const std::vector<std::int32_t> tokens{2, 3, 0, config.start}, positions{0, 1, 2, 0}, rows{3};
  const tensor::AttentionPlan plan =
      tensor::plan_of({{.begin = 0, .end = 3, .source = true}, {.begin = 3, .end = 4, .parent = 0}});
  const Tensor logits =
      model.logits(engine.context(), {.tokens = tokens, .positions = positions, .plan = &plan, .rows = rows});
  for (std::int64_t v = 0; v < config.vocabulary; ++v) EXPECT_EQ(std::isinf(logits.data<float>()[v]), v == 5) << v;
  Value bad = json;
  bad.set("bad_words_ids", Value(Value::Array{Value(Value::Array{Value(std::int64_t{5000})})}));
  EXPECT_THROW(seq2seq_config_from_json(bad, "config.json").check("config.json"), Error);
}

// What is contradictory or unknown is refused with its field.
TEST(Seq2SeqConfigs, BadOnesAreRefused) {
  const Value t5 = parse_json(read_file(golden_seq2seq("t5") / "config.json"), "config.json");
  const Value bart = parse_json(read_file(golden_seq2seq("bart") / "config.json"), "config.json");
  const auto refused = [](Value json, const char* key, const Value& value) {
    json.set(key, value);
    try {
      seq2seq_config_from_json(json, "config.json").check("config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto names = [](const std::string& message, const char* key) { return message.find(key) != std::string::npos; };
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, Value>>{{"num_layers", Value(std::int64_t{0})},
                                                  {"relative_attention_num_buckets", Value(std::int64_t{7})},
                                                  {"relative_attention_max_distance", Value(std::int64_t{2})},
                                                  {"decoder_start_token_id", Value(std::int64_t{100000})},
                                                  {"feed_forward_proj", Value("cubed")}}) {
    const std::string message = refused(t5, key, value);
    EXPECT_TRUE(names(message, key) || names(message, "layers")) << message;
  }
  for (const char* key : {"normalize_before", "add_final_layer_norm"})
    EXPECT_TRUE(names(refused(bart, key, Value(true)), key));
  EXPECT_NE(refused(bart, "encoder_attention_heads", Value(std::int64_t{5})), "accepted");
}

// T5 as GGUF. The goldens' distances end sooner than llama.cpp's: copies of them, with the same weights, do not.
class Seq2SeqGguf : public Folder, public ::testing::WithParamInterface<std::string> {
 protected:
  fs::path copy_with(std::initializer_list<Value::Member> members) {
    const fs::path copy = folder_ / "copy";
    fs::remove_all(copy);
    fs::copy(golden_seq2seq(GetParam()), copy, fs::copy_options::recursive);
    Value json = parse_json(read_file(copy / "config.json"), "config.json");
    json.set("relative_attention_max_distance", 128);
    for (const auto& [key, value] : members) json.set(key, value);
    write_file_atomic(copy / "config.json", dump_json(json));
    return copy;
  }
  // [V] logits after a source of 60 tokens and an answer of 40.
  static std::vector<float> logits(Opened& opened) {
    constexpr std::int64_t kSource = 60, kAll = 100;
    std::vector<std::int32_t> tokens, positions;
    for (std::int64_t i = 0; i < kAll; ++i) {
      tokens.push_back(static_cast<std::int32_t>(i * 13 % 89));
      positions.push_back(static_cast<std::int32_t>(i < kSource ? i : i - kSource));
    }
    const tensor::AttentionPlan plan =
        tensor::plan_of({{.begin = 0, .end = kSource, .source = true}, {.begin = kSource, .end = kAll, .parent = 0}});
    return opened.package.model
        ->logits(opened.engine.context(), {.tokens = tokens, .positions = positions, .plan = &plan})
        .to_floats();
  }
  static void write(const fs::path& path, const Opened& opened, const WeightLookup& weights, const char* type) {
    ThreadPool threads(2);
    write_gguf(path, opened.package, "", weights, {gguf_type(type), threads});
  }
  static std::vector<std::int32_t> ids(const Opened& opened, const std::string& text) {
    std::vector<std::int32_t> result;
    for (const tokenizers::Token& token : opened.package.tokenizer->encode_input(text).tokens)
      result.push_back(token.id);
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, Seq2SeqGguf, ::testing::Values("t5", "t5-gated", "mt5"), test_name);

// As in export_test.cc: sums in another order.
TEST_P(Seq2SeqGguf, ReadsBackAsTheMergedModel) {
  const fs::path folder = copy_with({});
  Opened opened(folder);
  const LoadedAdapter adapter =
      load_adapter_folder(folder / "adapter", *opened.package.model, opened.engine.allocator());
  const std::vector<float> expected = logits(opened);
  write(folder_ / "m.gguf", opened, merged_weights(opened.package, &adapter, opened.engine), "f32");
  Opened gguf(folder_ / "m.gguf");
  const std::vector<float> got = logits(gguf);
  EXPECT_LT(largest_gap(got, expected), 1e-3F);
  Opened plain(folder);
  EXPECT_GT(largest_gap(logits(plain), expected), 1e-2F);
  EXPECT_EQ(gguf.package.config.architecture, opened.package.config.architecture);
  EXPECT_EQ(gguf.package.model->fingerprint(), plain.package.model->fingerprint());
  EXPECT_EQ(gguf.package.seq2seq->start, opened.package.seq2seq->start);
  for (const char* text : {"The library reads  and writes files. ", "这个软件包提供数据库。", ""})
    EXPECT_EQ(ids(gguf, text), ids(opened, text)) << text;
  // From there on: a folder, and another file.
  fs::create_directories(folder_ / "hf");
  const WeightLookup weights = merged_weights(gguf.package, nullptr, gguf.engine);
  write_hugging_face_files(folder_ / "hf", gguf.package, "", weights, DType::kF32);
  write(folder_ / "again.gguf", gguf, weights, "f32");
  for (const char* name : {"hf", "again.gguf"}) {
    Opened again(folder_ / name);
    EXPECT_EQ(logits(again), got) << name;
    EXPECT_EQ(ids(again, "A tool to read mail, to write mail."), ids(opened, "A tool to read mail, to write mail."));
  }
}

TEST_P(Seq2SeqGguf, HasWhatLlamaCppAsksFor) {
  Opened opened(copy_with({}));
  write(folder_ / "m.gguf", opened, merged_weights(opened.package, nullptr, opened.engine), "q8_0");
  const auto file = formats::GgufFile::open(folder_ / "m.gguf");
  EXPECT_EQ(file->text("general.architecture"), "t5");
  for (const char* key : {"block_count", "decoder_block_count", "context_length", "embedding_length",
                          "feed_forward_length", "attention.head_count", "attention.key_length",
                          "attention.value_length", "attention.relative_buckets_count", "vocab_size"})
    EXPECT_GT(file->integer(std::string("t5.") + key), 0) << key;
  EXPECT_EQ(file->integer("t5.decoder_start_token_id"), 0);
  EXPECT_GT(file->number("t5.attention.layer_norm_rms_epsilon"), 0);
  EXPECT_EQ(file->text("tokenizer.ggml.model"), "t5");
  EXPECT_TRUE(file->boolean_or("tokenizer.ggml.add_space_prefix", false));
  EXPECT_TRUE(file->boolean_or("tokenizer.ggml.add_eos_token", false));
  EXPECT_EQ(file->numbers_or_empty("tokenizer.ggml.scores").size(), 92U);
  EXPECT_EQ(file->has_tensor("output.weight"), GetParam() == "t5-gated");
  EXPECT_EQ(file->has_tensor("enc.blk.0.ffn_gate.weight"), GetParam() != "t5");
  EXPECT_EQ(file->tensor("enc.blk.0.attn_rel_b.weight").dtype(), DType::kF32);
  EXPECT_EQ(file->tensor("dec.blk.1.cross_attn_q.weight").dtype(), DType::kQ8_0);
  EXPECT_EQ(file->tensor("dec.blk.1.ffn_norm.weight").dtype(), DType::kF32);
  Opened exact(folder_ / "copy"), rounded(folder_ / "m.gguf");
  EXPECT_LT(largest_gap(logits(exact), logits(rounded)), 1.0F);
}

TEST_P(Seq2SeqGguf, AnAdapterIsAFileOfItsOwn) {
  const fs::path folder = copy_with({});
  Opened opened(folder);
  const LoadedAdapter adapter =
      load_adapter_folder(folder / "adapter", *opened.package.model, opened.engine.allocator());
  write_gguf_lora(folder_ / "lora.gguf", opened.package, adapter);
  const auto file = formats::GgufFile::open(folder_ / "lora.gguf");
  EXPECT_EQ(file->text("general.architecture"), "t5");
  EXPECT_EQ(file->tensors().size(), 2 * adapter.adapter->modules().size());
  EXPECT_TRUE(file->has_tensor("dec.blk.0.cross_attn_q.weight.lora_a"));
}

TEST_P(Seq2SeqGguf, WhatItCannotSayIsRefused) {
  const auto message = [&](std::initializer_list<Value::Member> members, const auto& change) {
    Opened opened(copy_with(members));
    change(*opened.package.seq2seq);
    return message_of(
        [&] { write(folder_ / "never.gguf", opened, merged_weights(opened.package, nullptr, opened.engine), "f32"); });
  };
  const auto nothing = [](Seq2SeqConfig&) {};
  EXPECT_THAT(message({{"relative_attention_max_distance", 10}}, nothing),
              ::testing::HasSubstr("relative_attention_max_distance is 10, llama.cpp takes 128: use --format hf"));
  EXPECT_THAT(message({{"feed_forward_proj", GetParam() == "t5" ? "silu" : "gated-silu"}}, nothing),
              ::testing::HasSubstr("has the activation relu, or gelu_new with a gate"));
  EXPECT_THAT(message({}, [](Seq2SeqConfig& config) { config.decoder_layers = 4; }),
              ::testing::HasSubstr("whose decoder has more layers (4) than its encoder (3)"));
  EXPECT_THAT(message({}, [](Seq2SeqConfig& config) { config.architecture = "bart"; }),
              ::testing::HasSubstr("GGUF has no architecture for bart"));
  EXPECT_FALSE(fs::exists(folder_ / "never.gguf"));
}

// By the names of its converter.
TEST(Seq2SeqGgufFiles, NameTensorsAsLlamaCppDoes) {
  for (const auto& [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
           {"shared", "token_embd"},
           {"lm_head", "output"},
           {"encoder.final_layer_norm", "enc.output_norm"},
           {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "enc.blk.0.attn_rel_b"},
           {"encoder.block.12.layer.0.SelfAttention.o", "enc.blk.12.attn_o"},
           {"encoder.block.1.layer.0.layer_norm", "enc.blk.1.attn_norm"},
           {"encoder.block.1.layer.1.layer_norm", "enc.blk.1.ffn_norm"},
           {"encoder.block.1.layer.1.DenseReluDense.wi", "enc.blk.1.ffn_up"},
           {"encoder.block.1.layer.1.DenseReluDense.wi_0", "enc.blk.1.ffn_gate"},
           {"decoder.block.1.layer.2.DenseReluDense.wi_1", "dec.blk.1.ffn_up"},
           {"decoder.block.1.layer.2.DenseReluDense.wo", "dec.blk.1.ffn_down"},
           {"decoder.block.1.layer.0.SelfAttention.v", "dec.blk.1.attn_v"},
           {"decoder.block.1.layer.1.EncDecAttention.k", "dec.blk.1.cross_attn_k"},
           {"decoder.block.1.layer.1.layer_norm", "dec.blk.1.cross_attn_norm"},
           {"decoder.block.1.layer.2.layer_norm", "dec.blk.1.ffn_norm"}})
    EXPECT_EQ(seq2seq_gguf_name(ours + ".weight"), theirs + ".weight");
  EXPECT_THROW(seq2seq_gguf_name("encoder.block.1.layer.0.SelfAttention.x.weight"), Error);
  EXPECT_THROW(seq2seq_gguf_name("encoder.block.1"), Error);
}

// What llama.cpp's converter writes: it does not say how logits are scaled.
TEST(Seq2SeqGgufFiles, OfAConverterAreRead) {
  const fs::path path = fs::temp_directory_path() / fmt::format("instruct-t5-{}.gguf", ::getpid());
  const auto config_of = [&](std::uint32_t heads, bool head) {
    formats::GgufWriter writer;
    writer.set("general.architecture", std::string("t5"));
    for (const auto& [key, value] :
         std::vector<std::pair<const char*, std::uint32_t>>{{"block_count", 2},
                                                            {"embedding_length", 64},
                                                            {"feed_forward_length", 32},
                                                            {"attention.head_count", heads},
                                                            {"attention.key_length", 8},
                                                            {"attention.relative_buckets_count", 32}})
      writer.set(std::string("t5.") + key, value);
    writer.set("t5.attention.layer_norm_rms_epsilon", 1e-6F);
    const auto add = [&](const char* name) {
      writer.add(name, {3, 64}, DType::kF32, [] {
        return Tensor::zeros({3, 64}, DType::kF32, *tensor::make_host_allocator());
      });
    };
    add("token_embd.weight");
    if (head) add("output.weight");
    writer.write(path);
    const auto file = formats::GgufFile::open(path);
    Seq2SeqConfig config = seq2seq_config_from_gguf(*file);
    config.check("x.gguf");
    return config;
  };
  const Seq2SeqConfig tied = config_of(4, false);
  EXPECT_EQ(tied.architecture, "t5");
  EXPECT_EQ(tied.output_scale, 0.125F);
  EXPECT_EQ(tied.decoder_layers, 2);
  EXPECT_EQ(tied.activation, ops::Activation::kRelu);
  EXPECT_EQ(config_of(4, true).output_scale, 1.0F);
  EXPECT_THAT(message_of([&] { config_of(0, true); }),
              ::testing::HasSubstr("x.gguf: the number of attention heads is 0"));
  EXPECT_THAT(message_of([&] { config_of(1U << 31U, true); }), ::testing::HasSubstr("the number of attention heads"));
  fs::remove(path);
}

// Every distance of transformers' T5Attention._relative_position_bucket (tests/goldens/seq2seq/buckets.py).
TEST(DistanceBuckets, AreTheOfficialOnes) {
  const Value golden = parse_json(read_file(golden_seq2seq("buckets.json")), "buckets.json");
  for (const Value& one : golden.as_array()) {
    const std::vector<std::int32_t> got =
        distance_buckets(one.at("buckets").as_integer(), one.at("farthest").as_integer(),
                         one.at("bidirectional").as_bool() ? Directions::kBoth : Directions::kBackwards);
    ASSERT_EQ(got.size(), one.at("of").size());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_EQ(got[i], one.at("of").as_array()[i].as_integer()) << i << " of " << one.at("farthest").as_integer();
  }
}

}  // namespace
}  // namespace instruct::models
