// Encoders against transformers (tests/goldens/encoders/make.py): hidden states of every layer, scores of both heads,
// and every gradient.
#include "models/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/safetensors.h"
#include "models/encoder_gguf.h"
#include "models/encoder_head.h"
#include "models/export.h"
#include "models/sources.h"
#include "models/test_support.h"
#include "ops/cross_entropy.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;

// An encoder with rows of its golden, side by side.
class EncoderParity : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { load({}); }
  void load(const WeightOptions& options, ops::Backend backend = ops::Backend::kCpu) {
    const fs::path folder = golden_encoder(GetParam());
    engine_ = std::make_unique<ops::Engine>(2, backend);
    source_ = make_folder_source(folder);
    expected_ = formats::SafetensorsFile::open(folder / "expected.safetensors");
    const Value json = parse_json(read_file(folder / "config.json"), "config.json");
    encoder_ = std::make_unique<Encoder>(encoder_config_from_json(json, "config.json"), *source_, options,
                                         engine_->allocator());
    options_ = options;
    segments_.clear();
    tokens_.clear();
    types_.clear();
    firsts_.clear();
    for (int i = 0; expected_->has(fmt::format("ids.{}", i)); ++i) {
      const auto begin = static_cast<std::int64_t>(tokens_.size());
      firsts_.push_back(static_cast<std::int32_t>(begin));
      for (const std::int64_t id : integers(fmt::format("ids.{}", i))) tokens_.push_back(static_cast<std::int32_t>(id));
      for (const std::int64_t id : integers(fmt::format("types.{}", i)))
        types_.push_back(static_cast<std::int32_t>(id));
      segments_.push_back({begin, static_cast<std::int64_t>(tokens_.size()), -1});
    }
    plan_ = tensor::plan_of_whole_rows(segments_);
    positions_ = tensor::positions_of(segments_);
    for (std::int32_t& position : positions_) position += static_cast<std::int32_t>(encoder_->config().first_position);
  }
  std::vector<std::int64_t> integers(const std::string& name) const {
    const Tensor values = expected_->tensor(name);
    return {values.data<std::int64_t>(), values.data<std::int64_t>() + values.elements()};
  }
  EncoderPass pass() const { return {.tokens = tokens_, .positions = positions_, .types = types_, .plan = &plan_}; }
  void expect_rows(const Tensor& got, const std::string& name, std::size_t row, float tolerance) const {
    const Tensor part = got.rows(segments_[row].begin, segments_[row].end);
    EXPECT_LE(largest_gap(part.to_floats(), expected_->tensor(name).to_floats()), tolerance) << name;
  }
  EncoderHead head(HeadKind kind) {
    return load_head(*encoder_, *source_, {.kind = kind, .labels = 3}, options_, engine_->allocator());
  }

  std::unique_ptr<ops::Engine> engine_;
  std::unique_ptr<WeightSource> source_;
  std::shared_ptr<const formats::SafetensorsFile> expected_;
  std::unique_ptr<Encoder> encoder_;
  WeightOptions options_;
  std::vector<tensor::Segment> segments_;
  tensor::AttentionPlan plan_;
  std::vector<std::int32_t> tokens_, types_, positions_, firsts_;
};
INSTANTIATE_TEST_SUITE_P(Models, EncoderParity, ::testing::ValuesIn(golden_encoders()), test_name);

TEST_P(EncoderParity, HiddenStatesOfEveryLayerAreTheOfficialOnes) {
  for (const ops::Backend backend : {ops::Backend::kCpu, ops::Backend::kReference}) {
    load({}, backend);
    std::vector<Tensor> layers;
    const Variable last = encoder_->hidden(engine_->context(), pass(), &layers);
    layers.push_back(last.value());
    ASSERT_EQ(static_cast<std::int64_t>(layers.size()), encoder_->config().layers + 1);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      for (std::size_t row = 0; row < segments_.size(); ++row)
        expect_rows(layers[layer], fmt::format("hidden.{}.{}", layer, row), row, 1e-4F);
    }
  }
}

TEST_P(EncoderParity, SpansAreRefusedWhereTheHeadIsUnknown) {
  if (encoder_->config().architecture != "big_bird") return;
  EXPECT_THROW(head(HeadKind::kSpan), Error);
}

TEST_P(EncoderParity, HeadsGiveTheOfficialScores) {
  const ops::Context context = engine_->context();
  const EncoderHead classify = head(HeadKind::kText);
  EncoderPass first = pass();
  first.rows = firsts_;
  const std::vector<float> scores = classify(context, encoder_->hidden(context, first), {}).value().to_floats();
  const EncoderHead words = head(HeadKind::kMasked);
  std::vector<std::int32_t> seconds = firsts_;
  for (std::int32_t& token : seconds) ++token;
  first.rows = seconds;
  const Tensor predicted = words(context, encoder_->hidden(context, first), {}).value();
  for (std::size_t row = 0; row < segments_.size(); ++row) {
    const auto at = static_cast<std::int64_t>(row);
    EXPECT_LE(largest_gap({scores.begin() + 3 * at, scores.begin() + 3 * at + 3},
                          expected_->tensor(fmt::format("logits.{}", row)).to_floats()),
              1e-4F);
    EXPECT_LE(largest_gap(predicted.rows(at, at + 1).to_floats(),
                          expected_->tensor(fmt::format("masked.{}", row)).to_floats()),
              1e-4F);
  }
}

// By the names of its converter; positions from the first that a token takes.
TEST(EncoderGguf, HasWhatLlamaCppAsksFor) {
  const std::vector<std::pair<std::string, std::string>> roberta{
      {"roberta.embeddings.word_embeddings.weight", "token_embd.weight"},
      {"roberta.embeddings.token_type_embeddings.weight", "token_types.weight"},
      {"roberta.embeddings.LayerNorm.bias", "token_embd_norm.bias"},
      {"roberta.encoder.layer.1.attention.self.key.weight", "blk.1.attn_k.weight"},
      {"roberta.encoder.layer.1.attention.self.value.bias", "blk.1.attn_v.bias"},
      {"roberta.encoder.layer.1.attention.output.dense.weight", "blk.1.attn_output.weight"},
      {"roberta.encoder.layer.1.attention.output.LayerNorm.weight", "blk.1.attn_output_norm.weight"},
      {"roberta.encoder.layer.2.intermediate.dense.weight", "blk.2.ffn_up.weight"},
      {"roberta.encoder.layer.2.output.dense.bias", "blk.2.ffn_down.bias"},
      {"roberta.encoder.layer.2.output.LayerNorm.weight", "blk.2.layer_output_norm.weight"}};
  const std::vector<std::pair<std::string, std::string>> distilbert{
      {"distilbert.transformer.layer.1.attention.q_lin.weight", "blk.1.attn_q.weight"},
      {"distilbert.transformer.layer.1.sa_layer_norm.weight", "blk.1.attn_output_norm.weight"},
      {"distilbert.transformer.layer.1.ffn.lin2.weight", "blk.1.ffn_down.weight"},
      {"distilbert.transformer.layer.1.output_layer_norm.bias", "blk.1.layer_output_norm.bias"}};
  for (const bool first : {true, false}) {
    Opened opened(golden_encoder(first ? "roberta" : "distilbert"));
    const Package& package = opened.package;
    const fs::path path = fs::temp_directory_path() / fmt::format("instruct-encoder-{}.gguf", ::getpid());
    write_gguf_encoder(path, package, first, [&](const std::string& name) { return package.encoder_source->get(name); },
                       {gguf_type("f32"), opened.engine.threads()});
    const auto file = formats::GgufFile::open(path);
    for (const auto& [ours, theirs] : first ? roberta : distilbert)
      EXPECT_EQ(file->tensor(theirs).to_floats(), package.encoder_source->get(ours).to_floats()) << theirs;
    EXPECT_EQ(file->integer("bert.context_length"), 64);
    EXPECT_EQ(file->tensor("position_embd.weight").dim(0), 64);
    EXPECT_EQ(file->has_tensor("token_types.weight"), first);
    EXPECT_FALSE(file->boolean_or("bert.attention.causal", true));
    EXPECT_EQ(has_mean_pooling(*file), first);
    const Opened back(path);
    EXPECT_EQ(back.package.encoder->config().first_position, 0);
    EXPECT_EQ(back.package.config.vocabulary, package.config.vocabulary);
    fs::remove(path);
  }
}

// ModernBERT has an architecture of its own there: norms before, one matrix for q, k and v, windows by their interval.
class ModernBertGguf : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::copy(golden_encoder("modernbert"), folder_);
  }
  ~ModernBertGguf() override { fs::remove_all(folder_); }
  // With other words in config.json.
  std::string written(const std::string& words, const std::string& others) {
    std::string config = read_file(golden_encoder("modernbert") / "config.json");
    if (!words.empty()) config.replace(config.find(words), words.size(), others);
    write_file_atomic(folder_ / "config.json", config);
    Opened opened(folder_);
    const auto weights = [&](const std::string& name) { return opened.package.encoder_source->get(name); };
    return message_of([&] {
      write_gguf_encoder(path_, opened.package, true, weights, {gguf_type("f32"), opened.engine.threads()});
    });
  }

  fs::path folder_ = fs::temp_directory_path() / fmt::format("instruct-modernbert-{}", ::getpid());
  fs::path path_ = folder_ / "model.gguf";
};

TEST_F(ModernBertGguf, HasWhatLlamaCppAsksForAndIsReadAgain) {
  ASSERT_EQ(written("", ""), "no error");
  const auto source = make_folder_source(folder_);
  const auto file = formats::GgufFile::open(path_);
  for (const auto& [ours, theirs] :
       std::vector<std::pair<std::string, std::string>>{{"embeddings.tok_embeddings.weight", "token_embd.weight"},
                                                        {"embeddings.norm.weight", "token_embd_norm.weight"},
                                                        {"layers.1.attn_norm.weight", "blk.1.attn_norm.weight"},
                                                        {"layers.1.attn.Wqkv.weight", "blk.1.attn_qkv.weight"},
                                                        {"layers.1.attn.Wo.weight", "blk.1.attn_output.weight"},
                                                        {"layers.3.mlp_norm.weight", "blk.3.ffn_norm.weight"},
                                                        {"layers.3.mlp.Wi.weight", "blk.3.ffn_up.weight"},
                                                        {"layers.3.mlp.Wo.weight", "blk.3.ffn_down.weight"},
                                                        {"final_norm.weight", "output_norm.weight"}})
    EXPECT_EQ(file->tensor(theirs).to_floats(), source->get("model." + ours).to_floats()) << theirs;
  EXPECT_FALSE(file->has_tensor("blk.0.attn_norm.weight"));  // the first layer has none
  EXPECT_EQ(file->integer("modern-bert.attention.sliding_window"), 8);
  EXPECT_EQ(file->integer("modern-bert.attention.sliding_window_pattern"), 3);
  EXPECT_EQ(file->number("modern-bert.rope.freq_base"), 160000);
  EXPECT_EQ(file->number("modern-bert.rope.freq_base_swa"), 10000);
  EXPECT_TRUE(has_mean_pooling(*file));
  const Opened back(path_);
  const EncoderConfig& read = back.package.encoder->config();
  EXPECT_EQ(read.window, 5);
  EXPECT_EQ(read.windowed, (std::vector<bool>{false, true, true, false}));
  EXPECT_EQ(read.context_length, 64);
}

TEST_F(ModernBertGguf, WhatGgufCannotSayIsRefused) {
  EXPECT_THAT(written("\"sliding_attention\",\n    \"full_attention\"", "\"full_attention\",\n    \"full_attention\""),
              ::testing::HasSubstr("every so many layers are without the window"));
  EXPECT_THAT(written("\"hidden_activation\": \"gelu\"", "\"hidden_activation\": \"silu\""),
              ::testing::HasSubstr("has the activation gelu"));
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(ModernBertGguf, BadNumbersAreRefused) {
  const auto message = [&](const char* key, std::uint32_t value) {
    formats::GgufWriter writer;
    writer.set("general.architecture", std::string("modern-bert"));
    for (const auto& [name, usual] :
         std::vector<std::pair<std::string, std::uint32_t>>{{"block_count", 2},
                                                            {"embedding_length", 8},
                                                            {"feed_forward_length", 16},
                                                            {"attention.head_count", 2},
                                                            {"context_length", 16},
                                                            {"attention.sliding_window", 8},
                                                            {"attention.sliding_window_pattern", 3}})
      writer.set("modern-bert." + name, name == key ? value : usual);
    writer.set("modern-bert.attention.layer_norm_epsilon", 1e-5F);
    writer.add("token_embd.weight", {3, 8}, DType::kF32, [] {
      return Tensor::zeros({3, 8}, DType::kF32, *tensor::make_host_allocator());
    });
    writer.write(path_);
    return message_of([&] { encoder_config_from_gguf(*formats::GgufFile::open(path_)).check("x.gguf"); });
  };
  EXPECT_EQ(message("", 0), "no error");
  EXPECT_THAT(message("attention.sliding_window", 0), ::testing::HasSubstr("attention.sliding_window is 0"));
  EXPECT_THAT(message("attention.sliding_window_pattern", 0), ::testing::HasSubstr("its pattern 0"));
  EXPECT_NE(message("attention.head_count", 0), "no error");
  EXPECT_NE(message("block_count", 4000000000U), "no error");
  EXPECT_NE(message("embedding_length", 4000000000U), "no error");
}

TEST(EncoderConfiguration, OfGgufIsReadOrRefused) {
  const fs::path path = fs::temp_directory_path() / fmt::format("instruct-bert-{}.gguf", ::getpid());
  const auto message = [&](std::uint32_t context, std::uint32_t heads) {
    formats::GgufWriter writer;
    writer.set("general.architecture", std::string("bert"));
    for (const auto& [key, value] : std::vector<std::pair<const char*, std::uint32_t>>{{"block_count", 2},
                                                                                       {"embedding_length", 8},
                                                                                       {"feed_forward_length", 16},
                                                                                       {"attention.head_count", heads},
                                                                                       {"context_length", context}})
      writer.set(std::string("bert.") + key, value);
    writer.set("bert.attention.layer_norm_epsilon", 1e-12F);
    for (const char* name : {"token_embd.weight", "position_embd.weight"})
      writer.add(name, {3, 8}, DType::kF32, [] {
        return Tensor::zeros({3, 8}, DType::kF32, *tensor::make_host_allocator());
      });
    writer.write(path);
    return message_of([&] { encoder_config_from_gguf(*formats::GgufFile::open(path)).check("x.gguf"); });
  };
  EXPECT_EQ(message(3, 2), "no error");
  EXPECT_NE(message(4, 2).find("bert.context_length is 4, and position_embd has 3 rows"), std::string::npos);
  EXPECT_NE(message(3, 0).find("x.gguf: the number of attention heads is 0"), std::string::npos);
  EXPECT_NE(message(3, 3).find("x.gguf: the hidden size modulo"), std::string::npos);
  fs::remove(path);
}

TEST(EncoderConfiguration, OfBigBirdIsReadOrRefused) {
  const Value golden = parse_json(read_file(golden_encoder("big-bird") / "config.json"), "config.json");
  const auto read = [&](const char* key, const Value& value) {
    Value json = golden;
    json.set(key, value);
    return encoder_config_from_json(json, "config.json");
  };
  EXPECT_EQ(read("attention_type", Value()).blocks.block, 8);
  EXPECT_EQ(read("block_size", 32).blocks.seen_whole(), 9 * 32);
  EXPECT_EQ(read("block_size", Value()).blocks.block, 64);
  EXPECT_EQ(read("num_random_blocks", Value()).blocks.drawn, 3);
  EXPECT_FALSE(read("attention_type", "original_full").blocks.in_use());
  EXPECT_EQ(read("hidden_act", Value()).activation, ops::Activation::kGeluTanh);
  const std::tuple<const char*, Value, const char*> changes[] = {
      {"attention_type", "longformer",
       "attention_type 'longformer': this program knows block_sparse and original_full"},
      {"block_size", 0, "block_size is 0"},
      {"block_size", 48, "max_position_embeddings is 128, no multiple of block_size 48"},
      {"block_size", "8", "expected integer, got string"},
      {"num_random_blocks", -1, "num_random_blocks is -1"},
      {"num_random_blocks", std::int64_t{1} << 40, "num_random_blocks is"},
      {"use_bias", false, "use_bias: this program computes true for big_bird"},
      {"rescale_embeddings", true, "rescale_embeddings: this program computes false for big_bird"},
      {"is_decoder", true, "is_decoder: encoders alone are supported"},
  };
  for (const auto& [key, value, message] : changes)
    EXPECT_NE(message_of([&, k = key, v = value] { read(k, v); }).find(message), std::string::npos)
        << key << ": " << message_of([&, k = key, v = value] { read(k, v); });
}

}  // namespace
}  // namespace instruct::models
