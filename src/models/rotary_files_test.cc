// Every rotary scaling through a GGUF file and from there through a Hugging Face folder.
#include "models/rotary_files.h"

#include <gmock/gmock.h>

#include "models/export.h"
#include "models/gguf_types.h"
#include "models/long_texts.h"
#include "models/sources.h"
#include "models/test_support.h"

namespace instruct::models {
namespace {

using ::testing::HasSubstr;

class RotaryFiles : public Folder {
 protected:
  // A golden model, its positions scaled as a config.json says.
  LlamaConfig scaled(const std::string& scaling) const {
    Value json = parse_json(read_file(golden_model("llama-tied") / "config.json"), "config.json");
    json.set("rope_parameters", parse_json(scaling, "test"));
    LlamaConfig config = config_from_json(json, "config.json");
    config.check("config.json");
    return config;
  }
  void write(Opened& opened) {
    const auto weights = merged_weights(opened.package, nullptr, opened.engine);
    write_gguf(folder_ / "m.gguf", opened.package, opened.package.chat_template, weights,
               {gguf_type("f32"), opened.engine.threads()});
  }
  static std::vector<float> table(const nn::RotaryConfig& rotary, std::int64_t length) {
    const auto allocator = tensor::make_host_allocator();
    const ops::RotaryTables tables = nn::make_rotary_tables(rotary, length, length, *allocator);
    std::vector<float> both = tables.cosine.to_floats();
    const std::vector<float> sine = tables.sine.to_floats();
    both.insert(both.end(), sine.begin(), sine.end());
    return both;
  }
};

TEST_F(RotaryFiles, ScalingsSurviveEveryFormat) {
  for (const std::string scaling :
       {R"({"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.5})",
        R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128})",
        R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "attention_factor": 0.7,
            "beta_fast": 16, "beta_slow": 2})",
        R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64})",
        R"({"rope_type": "longrope", "original_max_position_embeddings": 128, "short_factor": [1.0, 1.25, 1.5, 2.0],
            "long_factor": [1.5, 2.0, 4.0, 8.0]})",
        R"({"rope_type": "longrope", "original_max_position_embeddings": 128, "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [1.5, 2.0, 4.0, 8.0], "attention_factor": 1.5})"}) {
    Opened opened(golden_model("llama-tied"));
    opened.package.config = scaled(scaling);
    write(opened);
    Opened from_gguf(folder_ / "m.gguf");
    std::filesystem::create_directories(folder_ / "hf");
    write_hugging_face_files(folder_ / "hf", from_gguf.package, "",
                             merged_weights(from_gguf.package, nullptr, from_gguf.engine), tensor::DType::kF32);
    const Opened from_folder(folder_ / "hf");
    for (const std::int64_t length : {100, 300}) {
      const std::vector<float> expected = table(opened.package.config.rotary, length);
      // GGUF has f32 numbers: an angle of 300 is off by 300 * 2 * 6e-8.
      EXPECT_LT(largest_gap(table(from_gguf.package.config.rotary, length), expected), 1e-4F) << scaling;
      EXPECT_LT(largest_gap(table(from_folder.package.config.rotary, length), expected), 1e-4F) << scaling;
    }
  }
}

TEST_F(RotaryFiles, DynamicScalingReachesPastTheContextItIsNamedFor) {
  const LlamaConfig config = scaled(R"({"rope_type": "dynamic", "factor": 4.0})");
  EXPECT_EQ(config.context_length, 2048);
  EXPECT_EQ(max_position_embeddings(config), 512);
  EXPECT_EQ(nn::rotary_stage(config.rotary, 512), 0);
  EXPECT_NE(table(config.rotary, 513), table(scaled(R"({"rope_type": "default"})").rotary, 513));
  EXPECT_EQ(table(config.rotary, 512), table(scaled(R"({"rope_type": "default"})").rotary, 512));
}

// What a pass computes depends on its longest text alone, not on passes before it.
TEST_F(RotaryFiles, LongTextsLeaveNothingBehind) {
  const std::filesystem::path model = copy_of("llama-tied");
  Value json = parse_json(read_file(model / "config.json"), "config.json");
  for (const char* scaling : {R"({"rope_type": "dynamic", "factor": 4.0})",
                              R"({"rope_type": "longrope", "original_max_position_embeddings": 128, "factor": 4.0,
                                  "short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.5, 2.0, 4.0, 8.0]})"}) {
    json.set("rope_parameters", parse_json(scaling, "test"));
    write_file_atomic(model / "config.json", dump_json(json));
    Opened opened(model);
    const std::vector<float> before = opened.logits();
    std::vector<std::int32_t> tokens(600, 7), positions(600);
    std::iota(positions.begin(), positions.end(), 0);
    const std::int32_t length = opened.package.config.context_length > 512 ? 600 : 500;
    tokens.resize(static_cast<std::size_t>(length));
    positions.resize(tokens.size());
    const tensor::AttentionPlan plan = tensor::plan_of({{0, length, -1}});
    opened.package.model->logits(opened.engine.context(), {.tokens = tokens, .positions = positions, .plan = &plan});
    EXPECT_EQ(opened.logits(), before);
  }
}

// A short text has the short factors whatever stands beside it; what shares keys with a long one has the long.
TEST(LongTexts, AreToldByTheirOwnLength) {
  const std::vector<tensor::Segment> segments{{0, 3, -1}, {3, 5, 0}, {5, 9, 0}, {9, 12, -1}};
  const tensor::AttentionPlan plan = tensor::plan_of(segments);
  const std::vector<std::int32_t> positions = tensor::positions_of(segments);
  const auto longer_than = [&](double context, Keys keys) {
    std::string text;
    for (const bool token : tokens_of_long_texts(plan, positions, context, keys)) text += token ? 'l' : 's';
    return text;
  };
  EXPECT_EQ(longer_than(7, Keys::kOfPass), "ssssssssssss");
  EXPECT_EQ(longer_than(6, Keys::kOfPass), "lllllllllsss");
  EXPECT_EQ(longer_than(6, Keys::kCached), "sssssllllsss");
  EXPECT_EQ(longer_than(2, Keys::kOfPass), "llllllllllll");
}

TEST_F(RotaryFiles, WhatLlamaCppCannotComputeIsRefused) {
  Opened opened(golden_model("llama-tied"));
  opened.package.config = scaled(R"({"rope_type": "yarn", "factor": 4.0, "truncate": false,
                                     "original_max_position_embeddings": 128})");
  EXPECT_THAT(message_of([&] { write(opened); }), HasSubstr("truncate: false): use hf"));
}

}  // namespace
}  // namespace instruct::models
