// Encoders as their users meet them: embeddings, tuning heads, evaluation, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kEncoder = std::string(INSTRUCT_GOLDENS) + "/encoders/bert";

constexpr const char* kSet = R"(name: notes
variables:
  text: {type: text}
instructions:
  section:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: label, labels: [files, mail, games]}
  tags:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: labels, labels: [reads, writes, plays]}
  summary:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: sentences, from: text, max_items: 1}
    metrics: [rouge1]
)";

constexpr const char* kLabels = R"({"verb": "section", "text": "The library reads and writes files.", "output": "files"}
{"verb": "section", "text": "A tool to read mail.", "output": "mail"}
{"verb": "section", "text": "Games for the console.", "output": "games"}
{"verb": "section", "text": "The library writes.", "output": "files"}
{"verb": "section", "text": "To write mail and to sort it.", "output": "mail"}
{"verb": "section", "text": "12 puzzles and games.", "output": "games"}
)";

constexpr const char* kMixed =
    R"({"verb": "tags", "text": "The library reads and writes files.", "output": ["reads", "writes"]}
{"verb": "tags", "text": "Games for the console.", "output": ["plays"]}
{"verb": "summary", "text": "The library reads files. A tool to sort mail.", "output": "sort the mail"}
{"verb": "summary", "text": "Games for the console. See the manual.", "output": "console games"}
)";

std::vector<double> embedding_of(const Value& line) {
  std::vector<double> values;
  for (const Value& value : line.at("embedding").as_array()) values.push_back(value.as_double());
  return values;
}

// The largest difference of numbers that lie at the same places.
double gap(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

class Encoders : public testing::Test {
 protected:
  std::vector<std::string> train(const std::string& rows, const std::string& output,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"train",
                                       "--model_name_or_path",
                                       kEncoder,
                                       "--instructions",
                                       set_,
                                       "--dataset",
                                       folder_.write("rows.jsonl", rows),
                                       "--finetuning_type",
                                       "full",
                                       "--dtype",
                                       "f32",
                                       "--lr_scheduler_type",
                                       "constant",
                                       "--learning_rate",
                                       "3e-3",
                                       "--per_device_train_batch_size",
                                       "2",
                                       "--output_dir",
                                       folder_ / output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Folder folder_;
  std::string set_ = folder_.write("notes.iset.yaml", kSet);
};

TEST_F(Encoders, EmbedTextsOfLinesAndOfRows) {
  const std::string lines = folder_.write("t.txt", "A tool to read mail.\n数据库\nA tool to read mail.\n");
  const Outcome outcome = run({"embed", "--model", kEncoder, "--data", lines, "--dtype", "f32"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<Value> found = outcome.json_lines();
  ASSERT_EQ(found.size(), 3U);
  double squares = 0;
  for (const double value : embedding_of(found[0])) squares += value * value;
  EXPECT_NEAR(squares, 1, 1e-5);
  EXPECT_EQ(embedding_of(found[0]), embedding_of(found[2]));  // whatever stands beside it
  EXPECT_NE(embedding_of(found[0]), embedding_of(found[1]));
  const std::string rows = folder_.write("t.csv", "id,question\n1,A tool to read mail.\n");
  const Outcome field = run({"embed", "--model", kEncoder, "--data", rows, "--dtype", "f32", "--field", "question"});
  ASSERT_EQ(field.code, 0) << field.err;
  EXPECT_EQ(embedding_of(field.json_lines()[0]), embedding_of(found[0]));
  const Outcome mean = run({"embed", "--model", kEncoder, "--data", lines, "--dtype", "f32", "--pooling", "mean"});
  EXPECT_NE(embedding_of(mean.json_lines()[0]), embedding_of(found[0]));
  EXPECT_THAT(run({"embed", "--model", kEncoder, "--data", rows, "--field", "questoin"}).err,
              AllOf(HasSubstr("row 1 has no text field 'questoin'"), HasSubstr("question")));
  EXPECT_THAT(run({"embed", "--model", golden_model(), "--data", lines}).err, HasSubstr("is a decoder"));
}

TEST_F(Encoders, LearnLabelsAndAreEvaluatedAsTheyWereTested) {
  const std::string rows = folder_.write("test.jsonl", kLabels);
  const Outcome trained = run(train(kLabels, "run", {"--num_train_epochs", "25", "--test_dataset", rows, "--json"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.json().at("test").at("section").at("accuracy").as_double(), 100);
  const Outcome again =
      run({"eval", "--model", folder_ / "run", "--instructions", set_, "--data", rows, "--dtype", "f32", "--json"});
  // The set has verbs that these rows did not train: their heads are there, as they were drawn.
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.json().at("section").at("accuracy").as_double(), 100);
  EXPECT_NEAR(again.json().at("section").at("loss").as_double(),
              trained.json().at("test").at("section").at("loss").as_double(), 1e-6);
}

TEST_F(Encoders, TuneAnAdapterWithItsHeads) {
  const std::string rows = folder_.write("test.jsonl", kLabels);
  std::vector<std::string> arguments =
      train(kLabels, "run", {"--num_train_epochs", "40", "--learning_rate", "1e-2", "--test_dataset", rows, "--json"});
  *std::find(arguments.begin(), arguments.end(), "full") = "lora";
  const Outcome trained = run(arguments);
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.json().at("test").at("section").at("accuracy").as_double(), 100);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run/model.safetensors"));
  const Outcome again = run({"eval", "--model", kEncoder, "--adapter", folder_ / "run", "--instructions", set_,
                             "--data", rows, "--dtype", "f32", "--json"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_NEAR(again.json().at("section").at("loss").as_double(),
              trained.json().at("test").at("section").at("loss").as_double(), 1e-6);
  const Outcome scored = run({"score", "--model", kEncoder, "--adapter", folder_ / "run", "--instructions", set_,
                              "--data", rows, "--dtype", "f32", "--labels"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  EXPECT_EQ(scored.json_lines()[1].at("predict").as_string(), "mail");
}

// Base and adapter on one side, the folder they were merged into on the other: what is computed is the same.
class MergedEncoders : public Encoders, public testing::WithParamInterface<std::string> {
 protected:
  std::string base() const { return std::string(INSTRUCT_GOLDENS) + "/encoders/" + GetParam(); }
  Outcome adapted(const std::string& set, const std::string& rows, const std::string& output) {
    return run({"train", "--model_name_or_path", base(), "--instructions", set, "--dataset", rows, "--dtype", "f32",
                "--learning_rate", "1e-2", "--max_steps", "6", "--lora_target", "all-linear", "--output_dir", output});
  }
  Outcome exported(const std::string& adapter, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"export",   "--model", base(),     "--adapter",       adapter,
                                       "--format", "hf",      "--output", folder_ / "merged"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  // What `command` says of the merged folder, behind what it says of base and adapter.
  std::vector<std::vector<Value>> both(std::vector<std::string> command, const std::string& adapter) {
    command.insert(command.end(), {"--dtype", "f32"});
    std::vector<std::vector<Value>> lines;
    for (const bool merged : {false, true}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--model", merged ? folder_ / "merged" : base()});
      if (!merged) arguments.insert(arguments.end(), {"--adapter", adapter});
      const Outcome outcome = run(arguments);
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      lines.push_back(outcome.json_lines());
    }
    EXPECT_EQ(lines[0].size(), lines[1].size());
    return lines;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, MergedEncoders,
                         testing::Values("bert", "big-bird", "distilbert", "modernbert", "roberta", "xlm-roberta"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(MergedEncoders, AnswerAsBaseAndAdapterDo) {
  const std::string rows = folder_.write("rows.jsonl", std::string(kLabels) + kMixed);
  const std::string adapter = folder_ / "adapter";
  ASSERT_EQ(adapted(set_, rows, adapter).code, 0);
  ASSERT_EQ(exported(adapter).code, 0);
  const auto scored = both({"score", "--instructions", set_, "--data", rows}, adapter);
  for (std::size_t i = 0; i < scored[0].size(); ++i)
    EXPECT_NEAR(scored[0][i].at("logprob").as_double(), scored[1][i].at("logprob").as_double(), 1e-4) << i;
  const auto evaluated = both({"eval", "--instructions", set_, "--data", rows, "--json"}, adapter);
  for (const char* verb : {"section", "tags", "summary"})
    EXPECT_NEAR(evaluated[0][0].at(verb).at("loss").as_double(), evaluated[1][0].at(verb).at("loss").as_double(), 1e-4);
  const std::string texts = folder_.write("t.txt", "A tool to read mail.\nGames for the console.\n");
  const auto embedded = both({"embed", "--data", texts}, adapter);
  const Outcome before = run({"embed", "--data", texts, "--model", base(), "--dtype", "f32"});
  for (std::size_t i = 0; i < embedded[0].size(); ++i) {
    EXPECT_LT(gap(embedding_of(embedded[0][i]), embedding_of(embedded[1][i])), 1e-5);
    EXPECT_GT(gap(embedding_of(embedded[0][i]), embedding_of(before.json_lines()[i])), 1e-3);
  }
  // Once more in another type, from the merged folder alone; what is there stays until it is to be replaced.
  EXPECT_THAT(exported(adapter).err, HasSubstr("exists already"));
  const std::vector<std::string> again{"export",   "--model",        folder_ / "merged", "--format", "hf",
                                       "--output", folder_ / "half", "--quantize",       "bf16"};
  ASSERT_EQ(run(again).code, 0);
  EXPECT_THAT(content_of(folder_ / "half/config.json"), HasSubstr("\"torch_dtype\": \"bfloat16\""));
  EXPECT_LT(std::filesystem::file_size(folder_ / "half/model.safetensors"),
            std::filesystem::file_size(folder_ / "merged/model.safetensors") * 6 / 10);
  const Outcome half = run({"eval", "--model", folder_ / "half", "--instructions", set_, "--data", rows, "--json"});
  ASSERT_EQ(half.code, 0) << half.err;
  EXPECT_NEAR(half.json().at("section").at("loss").as_double(), evaluated[1][0].at("section").at("loss").as_double(),
              0.1);
}

// As GGUF, the encoder alone.
TEST_P(MergedEncoders, EmbedFromGgufAsFromTheFolder) {
  const std::string adapter = folder_ / "adapter";
  ASSERT_EQ(adapted(set_, folder_.write("rows.jsonl", kLabels), adapter).code, 0);
  ASSERT_EQ(exported(adapter).code, 0);
  const std::string file = folder_ / "m.gguf";
  const auto to_gguf = [&](const char* type) {
    return run({"export", "--model", base(), "--adapter", adapter, "--format", "gguf", "--quantize", type, "--output",
                file, "--overwrite"});
  };
  const Outcome made = to_gguf("f32");
  if (GetParam() == "big-bird") {
    EXPECT_EQ(made.code, 6);
    EXPECT_THAT(made.err, HasSubstr("are those of BERT, DistilBERT, RoBERTa, XLM-RoBERTa and ModernBERT"));
    EXPECT_FALSE(std::filesystem::exists(file));
    return;
  }
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.err, HasSubstr("GGUF has no place for heads"));
  const std::string texts = folder_.write("t.txt", "A tool to read mail.\nGames for the console. 数据库\n");
  const auto embedded = [&](const std::string& model) {
    const Outcome outcome = run({"embed", "--data", texts, "--model", model, "--dtype", "f32"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(embedded(file), embedded(folder_ / "merged"));
  EXPECT_NE(embedded(file), embedded(base()));
  EXPECT_THAT(to_gguf("q8_0").err, HasSubstr("GGUF files of encoders take f32, f16 or bf16"));
  EXPECT_THAT(run({"eval", "--model", file, "--instructions", set_, "--data", folder_ / "rows.jsonl"}).err,
              HasSubstr("is an encoder as GGUF, which is for 'embed'"));
}

TEST_P(MergedEncoders, AreWhatTransformersCallsThem) {
  const std::string one =
      folder_.write("one.iset.yaml", std::string(kSet).substr(0, std::string(kSet).find("  tags:")));
  const std::string adapter = folder_ / "adapter";
  ASSERT_EQ(adapted(one, folder_.write("rows.jsonl", kLabels), adapter).code, 0);
  ASSERT_EQ(exported(adapter).code, 0);
  const std::string config = content_of(folder_ / "merged/config.json");
  EXPECT_THAT(config, AllOf(HasSubstr("ForSequenceClassification\""), HasSubstr("\"2\": \"games\"")));
  // Without the names of its labels an adapter needs the instruction set that has them.
  std::filesystem::remove(adapter + "/instruct.json");
  const std::string bare = folder_ / "bare";
  std::filesystem::copy(base(), bare);
  std::string without = content_of(bare + "/config.json");
  const std::string head = "ForSequenceClassification";
  without.replace(without.find(head), head.size(), "Model");
  folder_.write("bare/config.json", without);
  std::vector<std::string> nameless{"export",   "--model", bare,       "--adapter",      adapter,
                                    "--format", "hf",      "--output", folder_ / "named"};
  EXPECT_THAT(run(nameless).err, HasSubstr("give its --instructions"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "named"));
  nameless.insert(nameless.end(), {"--instructions", one});
  ASSERT_EQ(run(nameless).code, 0);
  EXPECT_EQ(content_of(folder_ / "named/config.json"), config);
}

TEST_F(Encoders, LearnSeveralKindsOfOutputsTogether) {
  const std::string rows = folder_.write("test.jsonl", kMixed);
  const Outcome trained = run(train(kMixed, "run", {"--num_train_epochs", "40", "--test_dataset", rows, "--json"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Value test = trained.json().at("test");
  EXPECT_EQ(test.at("tags").at("f1").as_double(), 100);
  EXPECT_EQ(test.at("summary").at("f1").as_double(), 100);
  EXPECT_GT(test.at("summary").at("rouge1").as_double(), test.at("summary").at("lead_rouge1").as_double());
  EXPECT_THAT(content_of(folder_ / "run/generated_predictions.jsonl"), HasSubstr("A tool to sort mail."));
}

TEST_F(Encoders, ARunThatGoesOnIsTheSameAsOneThatNeverStopped) {
  const std::vector<std::string> whole{"--max_steps", "12", "--dropout", "0.2"};
  ASSERT_EQ(run(train(kLabels, "whole", whole)).code, 0);
  const std::vector<std::string> first{"--max_steps",     "6",     "--dropout",    "0.2",
                                       "--save_strategy", "steps", "--save_steps", "6"};
  ASSERT_EQ(run(train(kLabels, "cut", first)).code, 0);
  std::vector<std::string> second = whole;
  second.insert(second.end(), {"--resume_from_checkpoint", "auto"});
  const Outcome resumed = run(train(kLabels, "cut", second));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(content_of(folder_ / "cut/model.safetensors"), content_of(folder_ / "whole/model.safetensors"));
  EXPECT_NE(content_of(folder_ / "cut/model.safetensors"), content_of(kEncoder + "/model.safetensors"));
}

TEST_F(Encoders, SayWhatTheyCannotDo) {
  EXPECT_THAT(run({"chat", "--model", kEncoder}).err, AllOf(HasSubstr("is an encoder (bert)"), HasSubstr("embed")));
  const std::string rows = folder_.write("r.jsonl", kLabels);
  EXPECT_THAT(run({"eval", "--model", std::string(INSTRUCT_GOLDENS) + "/encoders/roberta", "--instructions", set_,
                   "--data", rows})
                  .err,
              HasSubstr("was tuned for other outputs of verb"));
  const std::string text = folder_.write("text.iset.yaml",
                                         "name: t\nvariables: {text: {type: text}}\ninstructions:\n  say:\n    inputs: "
                                         "[text]\n    templates: [\"{{ text }}\"]\n    output: {type: text}\n");
  EXPECT_THAT(run({"train", "--model_name_or_path", kEncoder, "--instructions", text, "--dataset", rows,
                   "--finetuning_type", "full", "--output_dir", folder_ / "o"})
                  .err,
              HasSubstr("are what encoders can"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "o"));
  const Outcome peft = run({"export", "--model", kEncoder, "--format", "peft", "--output", folder_ / "peft"});
  EXPECT_EQ(peft.code, 6);
  EXPECT_THAT(peft.err, HasSubstr("is an encoder, which is written as hf or gguf"));
}

}  // namespace
}  // namespace instruct::test
