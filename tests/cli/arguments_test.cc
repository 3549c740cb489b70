// Help, options and messages that all commands have in common.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using Words = std::vector<std::string>;

class Help : public testing::TestWithParam<Words> {};

TEST_P(Help, HasExamplesOfItsOwnCommand) {
  Words words = GetParam();
  std::string command = "instruct";
  for (const std::string& word : words) command += " " + word;
  words.push_back("--help");
  const Outcome outcome = run(words);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_THAT(outcome.out, HasSubstr("Example"));
  ASSERT_NE(outcome.out.find("Example"), std::string::npos);
  EXPECT_THAT(outcome.out.substr(outcome.out.find("Example")), HasSubstr(command + " "));
  if (words.size() > 1) {
    EXPECT_THAT(outcome.out, Not(HasSubstr("\n  instruct COMMAND")));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryCommand, Help,
                         testing::Values(Words{}, Words{"train"}, Words{"eval"}, Words{"score"}, Words{"run"},
                                         Words{"chat"}, Words{"data"}, Words{"data", "lint"}, Words{"data", "show"},
                                         Words{"data", "convert"}, Words{"data", "split"}, Words{"export"},
                                         Words{"inspect"}, Words{"metrics"}, Words{"tokenize"}, Words{"bench"},
                                         Words{"bench", "train"}, Words{"bench", "score"}, Words{"bench", "generate"},
                                         Words{"bench", "encode"}, Words{"bench", "kernels"},
                                         Words{"bench", "cross-entropy"}, Words{"bench", "load"}));

struct Refusal {
  Words words;
  int code;
  std::string message;
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, OnOneLineOfStandardError) {
  const Outcome outcome = run(GetParam().words);
  EXPECT_EQ(outcome.code, GetParam().code);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, AllOf(StartsWith("instruct: "), HasSubstr(GetParam().message)));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(
    Arguments, Refused,
    testing::Values(
        Refusal{{}, 2, "needs a command: train, eval"}, Refusal{{"evla"}, 2, "did you mean 'eval'?"},
        Refusal{{"data"}, 2, "needs a command: lint"}, Refusal{{"data", "lnit"}, 2, "did you mean 'lint'?"},
        Refusal{{"eval", "--modle", "x"}, 2, "unknown option '--modle'; did you mean '--model'?"},
        Refusal{{"eval", "--model", "x"}, 2, "--data is required; see instruct eval --help"},
        Refusal{{"score", "--model", "x", "--data", "y", "--threads", "-1"}, 2, "--threads"},
        Refusal{{"score", "--model", "x", "--data", "y", "--threads", "100000"}, 2, "4096"},
        Refusal{{"score", "--model", "x", "--data", "y", "--threads", "two"}, 2, "--threads"},
        Refusal{{"score", "--model", golden_model(), "--data", golden_rows(), "--dtype", "f16"},
                2,
                "expected auto, bf16 or f32"},
        Refusal{{"bench", "score", "--model", golden_model(), "--dtype", "f16"}, 2, "expected auto, bf16 or f32"},
        Refusal{{"bench", "load", "--model", golden_model(), "--dtype", "f16"}, 2, "expected auto, bf16 or f32"},
        Refusal{{"bench", "train", "--model", golden_model(), "--threads", "4000"},
                2,
                "4000 threads: this process may run on"},
        Refusal{{"bench", "load", "--model", golden_model(), "--threads", "4000"},
                2,
                "4000 threads: this process may run on"},
        Refusal{{"run", "--model", golden_model(), "--base-compute", "int4"}, 2, "--base-compute"},
        Refusal{{"--log-level", "loud", "metrics", "--hypotheses", "x", "--references", "y"}, 2, "loud"},
        Refusal{{"export", "--model", "x", "--format", "zip", "--output", "y"}, 2, "gguf-lora"},
        Refusal{{"metrics", "--hypotheses", golden_rows(), "--references", golden_rows(), "--metrics", "blue"},
                2,
                "did you mean 'bleu'?"},
        Refusal{{"score", "--model", "/nowhere/m.gguf", "--data", golden_rows()}, 4, "/nowhere/m.gguf"},
        Refusal{{"score", "--model", golden_model(), "--data", "/nowhere.jsonl"}, 4, "/nowhere.jsonl"},
        Refusal{{"score", "--model", golden_model(), "--data", golden_model()}, 2, "folder"},
        Refusal{{"tokenize", "--model", golden_model(), golden_model()}, 2, "is a folder"},
        Refusal{{"train", golden_model()}, 2, "is a folder"}, Refusal{{"train"}, 2, "configuration file"},
        Refusal{{"train", "/nowhere.yaml"}, 4, "/nowhere.yaml"},
        Refusal{{"train", "--learnig_rate", "1"}, 2, "unknown key 'learnig_rate'; did you mean 'learning_rate'?"},
        Refusal{{"train", "--learning_rate", "fast"}, 2, "'learning_rate' expects a number, got 'fast'"},
        Refusal{{"train", "--dtype", "f64"}, 2, "'dtype' expects one of auto, bf16, f32"},
        Refusal{{"train", "--threads", "5000"}, 2, "0 to 4096"}, Refusal{{"train", "--seed", "-1"}, 2, "seed"},
        Refusal{{"train", "--model", golden_model(), "--dataset", "x", "--output_dir", "y", "--memory_limit", "lots"},
                2,
                "expects a size above 0 such as 1.5G"},
        Refusal{{"train", "--model", golden_model(), "--dataset", "x", "--output_dir", "y", "--memory_limit", "0"},
                2,
                "expects a size above 0"},
        Refusal{{"train", "--model", golden_model(), "--dataset", "x", "--output_dir", "y", "--memory_limit", "9000T"},
                2,
                "this machine has"},
        Refusal{{"score", "--model", golden_model(), "--data", golden_rows(), "--threads", "4096"},
                2,
                "4096 threads: this process may run on"},
        Refusal{{"bench", "cross-entropy", "--threads", "4096"}, 2, "4096 threads: this process may run on"},
        Refusal{{"train", "--log-level", "loud"}, 2, "loud"},
        Refusal{{"train", "--report_to", "wandb"}, 6, "not supported yet: metrics go to trainer_log.jsonl"},
        Refusal{{"train", "--dataset", "x"}, 2, "'model_name_or_path' is missing"}));

TEST(Arguments, GeneralOptionsStandAfterTheCommandToo) {
  const Words score{"score", "--model", golden_model(), "--data", golden_rows(), "--threads", "1", "--seed", "3"};
  Words before{"--log-level", "off"}, after = score;
  before.insert(before.end(), score.begin(), score.end());
  after.insert(after.end(), {"--log-level", "off"});
  const Outcome one = run(before), two = run(after);
  EXPECT_EQ(one.code, 0);
  EXPECT_EQ(one.out, two.out);
  EXPECT_THAT(one.err + two.err, IsEmpty());
}

TEST(Arguments, EveryCommandKnowsJson) {
  for (const Words& words : {Words{"train"}, Words{"eval"}, Words{"score"}, Words{"run"}, Words{"data", "lint"},
                             Words{"data", "convert"}, Words{"data", "split"}, Words{"export"}, Words{"inspect"},
                             Words{"metrics"}, Words{"tokenize"}, Words{"bench", "train"}}) {
    Words help = words;
    help.push_back("--help");
    EXPECT_THAT(run(help).out, HasSubstr("--json")) << words.back();
  }
}

TEST(Terminal, BarOnATerminalAndLinesElsewhere) {
  const Words score{"score", "--model", golden_model(), "--data", golden_rows()};
  const Outcome terminal = run(score, {.environment = {{"TERM", "xterm"}}, .terminal = true});
  EXPECT_THAT(terminal.err, AllOf(HasSubstr("\r\x1b[K"), HasSubstr("[####")));
  EXPECT_EQ(terminal.json_lines().size(), 7u);
  EXPECT_THAT(run(score, {.environment = {{"TERM", "dumb"}}, .terminal = true}).err, Not(HasSubstr("\x1b")));
  EXPECT_THAT(run(score).err, AllOf(HasSubstr("Scoring 7/7 rows 100%"), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace instruct::test
