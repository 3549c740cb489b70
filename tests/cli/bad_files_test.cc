// Instruction sets, programs, templates and configurations that are wrong, each with a place and a hint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using Words = std::vector<std::string>;

class BadFiles : public testing::Test {
 protected:
  Outcome run_program(const Words& more, const std::string& document = "One. Two.\n\nThree.\n") {
    Words words{"run", "--model", golden_model(), "--instructions", set_};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, {.input = document});
  }
  void expect_program(const std::string& program, int code, const std::string& message) {
    const Outcome outcome = run_program({program});
    EXPECT_EQ(outcome.code, code) << program << ": " << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(message)) << program;
    EXPECT_EQ(outcome.out, "");
  }
  void expect_set(const std::string& yaml, int code, const std::string& message) {
    const Outcome outcome =
        run({"run", "--model", golden_model(), "--instructions", folder_.write("bad.iset.yaml", yaml)}, {.input = "x"});
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("bad.iset.yaml"), HasSubstr(message)));
  }
  void expect_template(const std::string& source, int code, const std::string& message) {
    const Outcome outcome = run({"score", "--model", golden_model(), "--data", golden_rows(), "--chat-template",
                                 folder_.write("t.jinja", source)});
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("t.jinja"), HasSubstr(message)));
  }
  Folder folder_;
  std::string set_ = write_set(folder_);
};

TEST_F(BadFiles, Programs) {
  expect_program("[sumary('1st paragraph')]", 3, "did you mean 'summary'?");
  expect_program("[summary('1st paragaph')]", 3, "did you mean");
  expect_program("[summary(txt)]", 3, "did you mean 'text'?");
  expect_program("[summary('1st paragraph')", 3, "expected");
  expect_program("[summary('9th paragraph')]", 4, "2 paragraphs");
  expect_program("[]", 3, "expected");
  expect_program("[summary('1st paragraph'), ...] x", 3, "expected");
}

TEST_F(BadFiles, Documents) {
  const Outcome empty = run_program({}, "");
  EXPECT_EQ(empty.code, 4);
  EXPECT_THAT(empty.err, HasSubstr("the document has no text"));
  const Outcome latin = run_program({}, "caf\xe9\n");
  EXPECT_EQ(latin.code, 3);
  EXPECT_THAT(latin.err, HasSubstr("byte 3 is not UTF-8"));
  EXPECT_EQ(run_program({"--input", folder_ / "none.txt"}).code, 4);
  EXPECT_EQ(run_program({"--input", folder_.path().string()}).code, 2);
  EXPECT_EQ(run_program({"--set", "quesion=x"}).code, 2);
  std::string longer;
  for (int i = 0; i < 400; ++i) longer += "The library reads and writes files. ";
  const Outcome outcome = run_program({}, longer);
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("tokens"), HasSubstr("512")));
}

TEST_F(BadFiles, Sets) {
  expect_set("", 3, "empty");
  expect_set("name: [", 3, "line 1");
  expect_set("naem: x\n", 3, "did you mean 'name'?");
  expect_set("name: x\nvariables: {text: {type: txt}}\ninstructions: {}\n", 3, "did you mean 'text'?");
  expect_set(
      "name: x\nvariables: {text: {type: text}}\ninstructions: {a: {inputs: [tezt], templates: ['x'], output: {type: "
      "text}}}\n",
      3, "did you mean 'text'?");
  expect_set(
      "name: x\nvariables: {text: {type: text}}\ninstructions: {a: {inputs: [text], templates: ['{{ text'], output: "
      "{type: text}}}\n",
      3, "expected");
}

TEST_F(BadFiles, Templates) {
  expect_template("", 3, "empty");
  expect_template("{% for message in messages %}\n{{ message.content ", 3, "line 2");
  expect_template("{% for m in messages %}{{ m.content | no_such_filter }}{% endfor %}", 3, "no_such_filter");
  expect_template("{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}", 3,
                  "line 1");
  expect_template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", 3, "line 1");
  expect_template("{{ raise_exception('no system please') }}", 3, "no system please");
}

TEST_F(BadFiles, Configurations) {
  const auto refused = [&](const std::string& yaml, int code, const std::string& message) {
    const Outcome outcome = run({"train", folder_.write("train.yaml", yaml)});
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(message));
  };
  refused("", 2, "'model_name_or_path' is missing");
  refused("just text\n", 3, "train.yaml: expected 'key: value' lines");
  refused("model: x\nlr: 1e-3\nlearnin_rate: 1\n", 2, "train.yaml:3: unknown key 'learnin_rate'; did you mean");
  refused("lr: 1e-3\nlearning_rate: 1\n", 2, "train.yaml:2: key 'learning_rate' repeats");
  refused("lora_dropout: 1.5\n", 2, "train.yaml:1: key 'lora_dropout' expects 0 to 0.999, got '1.5'");
  refused("model: [a\n", 3, "train.yaml:");
  refused("use_dora: true\n", 6, "train.yaml:1: 'use_dora: true' is not supported yet");
  refused(std::string("model: \xff\xfe\n"), 3, "UTF-8");
}

}  // namespace
}  // namespace instruct::test
