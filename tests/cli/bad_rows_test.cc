// Rows that are wrong: the file, the row and the field are named, and nothing is trained on a part of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

class BadRows : public testing::Test {
 protected:
  void expect(const std::string& name, const std::string& content, const std::string& message, int code = 3) {
    const std::string data = folder_.write(name, content);
    for (const std::vector<std::string>& command : {std::vector<std::string>{"score", "--data", data},
                                                    {"eval", "--data", data},
                                                    {"train", "--dataset", data, "--output_dir", folder_ / "run"}}) {
      std::vector<std::string> words = command;
      words.insert(words.end(), {"--model", golden_model(), "--instructions", set_});
      const Outcome outcome = run(words);
      // eval meets some faults of rows one by one, where a wrong name is a wrong argument.
      EXPECT_THAT(outcome.code, AnyOf(code, command.front() == "eval" ? 2 : code)) << command.front() << outcome.err;
      EXPECT_THAT(outcome.err, AllOf(HasSubstr(name), HasSubstr(message))) << command.front();
      EXPECT_EQ(outcome.out, "");
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run/adapter_model.safetensors"));
  }
  Folder folder_;
  std::string set_ = write_set(folder_);
  std::string good_ = "{\"verb\": \"summary\", \"text\": \"A tool.\", \"output\": \"tool\"}\n";
};

TEST_F(BadRows, Files) {
  expect("rows.jsonl", "", "empty");
  expect("rows.json", "[]", "");
  expect("rows.txt", "x", "jsonl", 6);
  expect("rows.jsonl", good_ + "{\"verb\": \n", "2");
  expect("rows.jsonl", good_ + "{\"verb\": \"summary\", \"text\": \"caf\xe9\", \"output\": \"x\"}\n", "UTF-8");
  expect("rows.jsonl", good_ + "7\n", "2");
}

TEST_F(BadRows, ShapesNameRowAndField) {
  expect("rows.jsonl", good_ + "{\"verb\": \"summary\", \"text\": \"A tool.\"}\n", "output");
  expect("rows.jsonl", good_ + "{\"verb\": \"summary\", \"text\": 5, \"output\": \"x\"}\n", "text");
  expect("rows.jsonl", good_ + "{\"verb\": \"summary\", \"output\": \"x\"}\n", "text");
  expect("rows.jsonl", good_ + "{\"verb\": \"sumary\", \"text\": \"A\", \"output\": \"x\"}\n",
         "did you mean 'summary'?");
  expect("rows.jsonl",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"asistant\", \"content\": \"b\"}]}\n",
         "asistant");
  expect("rows.jsonl", "{\"messages\": \"hello\"}\n", "messages");
  expect("rows.csv", "verb,text,output\nsummary,\"A tool.,tool\n", "");
}

TEST_F(BadRows, LabelsOutsideTheSet) {
  expect("rows.jsonl", good_ + "{\"verb\": \"kind\", \"text\": \"A tool.\", \"output\": \"toool\"}\n",
         "did you mean 'tool'?");
}

TEST_F(BadRows, LongerThanTheContext) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "The library reads and writes files. ";
  expect("rows.jsonl", good_ + "{\"verb\": \"summary\", \"text\": \"" + text + "\", \"output\": \"x\"}\n", "512");
}

}  // namespace
}  // namespace instruct::test
