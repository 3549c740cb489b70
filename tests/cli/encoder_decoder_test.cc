// Encoder-decoders as their users meet them: tuning, likelihoods, answers by beams, exports, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string golden(const std::string& name) {
  return std::string(INSTRUCT_GOLDENS) + "/seq2seq/" + name;
}

constexpr const char* kSet = R"(name: notes
variables:
  text: {type: text}
instructions:
  title:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: text, max_tokens: 12}
    metrics: [em]
  section:
    inputs: [text]
    templates: ["section: {{ text }}"]
    output: {type: label, labels: [file library, mail tool]}
)";

constexpr const char* kRows =
    R"({"verb": "title", "text": "The library reads and writes files.", "output": "file library"}
{"verb": "title", "text": "A tool to read mail, to write mail and to sort it.", "output": "mail tool"}
{"verb": "title", "text": "Games for the console: 12 puzzles.", "output": "console games"}
{"verb": "section", "text": "The library reads and writes files.", "output": "file library"}
{"verb": "section", "text": "A tool to read mail, to write mail and to sort it.", "output": "mail tool"}
)";

class EncoderDecoders : public testing::TestWithParam<std::string> {
 protected:
  static std::vector<std::string> predictions(const std::string& folder) {
    std::vector<std::string> predicted;
    const Outcome lines{.code = 0, .out = content_of(folder + "/generated_predictions.jsonl"), .err = {}};
    for (const Value& line : lines.json_lines()) predicted.push_back(line.at("predict").as_string());
    return predicted;
  }
  std::vector<std::string> train(const std::string& rows, const std::string& output,
                                 const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"train",
                                       "--model_name_or_path",
                                       golden(GetParam()),
                                       "--instructions",
                                       set_,
                                       "--dataset",
                                       rows,
                                       "--num_train_epochs",
                                       "8",
                                       "--learning_rate",
                                       "5e-3",
                                       "--output_dir",
                                       output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  Folder folder_;
  std::string set_ = folder_.write("notes.iset.yaml", kSet);
  std::string rows_ = folder_.write("rows.jsonl", kRows);
};
INSTANTIATE_TEST_SUITE_P(Families, EncoderDecoders, testing::Values("t5", "bart-forced", "marian"),
                         [](const auto& tested) { return tested.param.substr(0, tested.param.find('-')); });

TEST_P(EncoderDecoders, LearnAnswerAndAreExported) {
  // An adapter, its answers by beams, and the same from the folder that it is merged into.
  const std::string adapter = folder_ / "adapter";
  const Outcome trained = run(train(rows_, adapter, {"--lora_target", "all-linear"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_TRUE(std::filesystem::exists(adapter + "/adapter_model.safetensors"));
  const std::string merged = folder_ / "merged";
  const Outcome exported =
      run({"export", "--model", golden(GetParam()), "--adapter", adapter, "--format", "hf", "--output", merged});
  ASSERT_EQ(exported.code, 0) << exported.err;
  const std::string answers = folder_ / "answers";
  const Outcome tuned = run({"eval", "--model", golden(GetParam()), "--adapter", adapter, "--instructions", set_,
                             "--data", rows_, "--num-beams", "3", "--dtype", "f32", "--json", "--output", answers});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  const Outcome whole = run({"eval", "--model", merged, "--instructions", set_, "--data", rows_, "--num-beams", "3",
                             "--dtype", "f32", "--json", "--output", folder_ / "whole"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  const std::vector<std::string> predicted = predictions(answers);
  EXPECT_EQ(predicted, predictions(folder_ / "whole"));
  EXPECT_THAT(predicted, testing::Contains("mail tool"));
  const Outcome scored = run({"score", "--model", merged, "--instructions", set_, "--data", rows_, "--dtype", "f32"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  EXPECT_EQ(scored.json_lines().size(), 5U);
}

TEST_P(EncoderDecoders, FullTuningWritesAWholeModel) {
  const std::string output = folder_ / "full";
  const Outcome trained = run(train(rows_, output, {"--finetuning_type", "full", "--learning_rate", "2e-3"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Outcome inspected = run({"inspect", output});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  const Outcome asked = run({"eval", "--model", output, "--instructions", set_, "--data", rows_, "--json"});
  EXPECT_EQ(asked.code, 0) << asked.err;
}

TEST_P(EncoderDecoders, WhatTheyCannotDoIsRefusedByName) {
  const std::string model = golden(GetParam());
  const Outcome gguf = run({"export", "--model", model, "--format", "gguf", "--output", folder_ / "model.gguf"});
  EXPECT_NE(gguf.code, 0);
  EXPECT_THAT(gguf.err, HasSubstr("GGUF"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "model.gguf"));
  const Outcome chat = run({"chat", "--model", model});
  EXPECT_NE(chat.code, 0);
  EXPECT_THAT(chat.err, HasSubstr("encoder-decoder"));
  const Outcome words =
      run({"eval", "--model", model, "--instructions", set_, "--data", rows_, "--chat-template", set_});
  EXPECT_NE(words.code, 0);
  EXPECT_THAT(words.err, HasSubstr("no chat template"));
  const Outcome sampled = run(
      {"eval", "--model", model, "--instructions", set_, "--data", rows_, "--num-beams", "2", "--temperature", "1"});
  EXPECT_NE(sampled.code, 0);
  EXPECT_THAT(sampled.err, HasSubstr("temperature"));
}

// A copy of the golden whose distances end where llama.cpp's do.
TEST(EncoderDecoderGguf, AnswersAndLearnsAsTheFolder) {
  const Folder folder;
  const std::string model = folder / "t5";
  std::filesystem::copy(golden("t5-gated"), model, std::filesystem::copy_options::recursive);
  std::string config = content_of(model + "/config.json");
  const std::string distance = "\"relative_attention_max_distance\": 10";
  config.replace(config.find(distance), distance.size(), "\"relative_attention_max_distance\": 128");
  folder.write("t5/config.json", config);
  const std::string set = folder.write("notes.iset.yaml", kSet);
  const std::string rows = folder.write("rows.jsonl", kRows);
  const std::string gguf = folder / "t5.gguf";
  const Outcome exported = run({"export", "--model", model, "--format", "gguf", "--quantize", "f32", "--output", gguf});
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_THAT(exported.err, HasSubstr("NFKC"));
  std::vector<std::string> answers;
  for (const std::string& path : {model, gguf}) {
    const Outcome asked = run({"eval", "--model", path, "--instructions", set, "--data", rows, "--num-beams", "2",
                               "--dtype", "f32", "--likelihood", "--json"});
    ASSERT_EQ(asked.code, 0) << asked.err;
    answers.push_back(asked.out);
  }
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_THAT(run({"inspect", gguf}).out, AllOf(HasSubstr("GGUF"), HasSubstr("3 that read, 2 that write")));
  std::vector<double> losses;
  for (const std::string& path : {model, gguf}) {
    const std::string output = folder / (path == gguf ? "from-gguf" : "from-folder");
    const Outcome trained = run({"train", "--model_name_or_path", path, "--instructions", set, "--dataset", rows,
                                 "--max_steps", "3", "--dtype", "f32", "--logging_steps", "3", "--output_dir", output});
    ASSERT_EQ(trained.code, 0) << trained.err;
    const Outcome log{.code = 0, .out = content_of(output + "/trainer_log.jsonl"), .err = {}};
    losses.push_back(log.json_lines().back().at("loss").as_double());
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(EncoderDecoderTexts, SpansAreLeftOutOfPlainText) {
  const Folder folder;
  std::string texts;
  for (int i = 0; i < 6; ++i)
    texts += "{\"text\": \"The library reads and writes files. A tool to read mail and to sort it.\"}\n";
  const std::string rows = folder.write("texts.jsonl", texts);
  const auto train = [&](const std::string& model) {
    return run({"train", "--model_name_or_path", golden(model), "--dataset", rows, "--num_train_epochs", "1",
                "--mlm_probability", "0.2", "--output_dir", folder / model});
  };
  const Outcome learned = train("t5");
  EXPECT_EQ(learned.code, 0) << learned.err;
  const Outcome refused = train("marian");
  EXPECT_NE(refused.code, 0);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("<extra_id_0>"), HasSubstr("texts.jsonl")));
}

}  // namespace
}  // namespace instruct::test
