#include "data/rows.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "data/csv.h"
#include "instructions/test_support.h"

namespace instruct::data {
namespace {

using instructions::testing::error_of;

const std::filesystem::path kFiles = std::filesystem::path(INSTRUCT_GOLDENS) / "data";

Example first(std::string_view text, std::string_view extension = ".jsonl", const ColumnMap& map = {}) {
  return parse_dataset(text, extension, "rows", map).examples.at(0);
}

std::string roles(const Example& example) {
  std::string text;
  for (const instructions::Message& message : example.messages) text += message.role + " ";
  return text;
}

TEST(Rows, AlpacaFile) {
  const Dataset dataset = read_dataset(kFiles / "alpaca.json");
  ASSERT_EQ(dataset.examples.size(), 2U);
  EXPECT_EQ(dataset.format, RowFormat::kAlpaca);
  EXPECT_EQ(dataset.examples[0].messages[0].content,
            "Name the package section for this text.\nA small terminal game in which a snake eats apples.");
  EXPECT_EQ(dataset.examples[0].cut_from, std::string("Name the package section for this text.\n").size());
  EXPECT_EQ(roles(dataset.examples[1]), "system user assistant user assistant ");
  EXPECT_EQ(dataset.examples[1].messages[3].content, "Was ist ein Compiler?");
  EXPECT_EQ(dataset.examples[1].cut_from, 0U);
  EXPECT_EQ(dataset.where(dataset.examples[1]), (kFiles / "alpaca.json").string() + ": row 2");
}

TEST(Rows, ShareGptFile) {
  const Dataset dataset = read_dataset(kFiles / "sharegpt.jsonl");
  ASSERT_EQ(dataset.examples.size(), 2U);
  EXPECT_EQ(roles(dataset.examples[0]), "system user assistant tool assistant ");
  EXPECT_EQ(dataset.examples[0].context.at("tools").as_array().at(0).at("name").as_string(), "weather");
  EXPECT_EQ(dataset.examples[1].row, 3) << "the line of the file, a blank one counted";
  EXPECT_EQ(dataset.examples[1].messages[0].content, "Be brief.");
}

TEST(Rows, OpenAiFile) {
  const Dataset dataset = read_dataset(kFiles / "openai.jsonl");
  ASSERT_EQ(dataset.examples.size(), 2U);
  EXPECT_EQ(dataset.examples[0].messages[0].role, "system");
  EXPECT_EQ(dataset.examples[0].messages[1].content, "Count the lines of a file.");
  EXPECT_EQ(dataset.examples[1].messages[1].content, "");
  EXPECT_EQ(dataset.examples[1].messages[1].extra.at("tool_calls").size(), 1U);
  EXPECT_EQ(dataset.examples[1].messages[2].extra.at("tool_call_id").as_string(), "c1");
}

TEST(Rows, InstructionFile) {
  const Dataset dataset = read_dataset(kFiles / "notes.jsonl");
  EXPECT_EQ(dataset.examples[1].verb, "section");
  EXPECT_EQ(dataset.examples[1].output.as_string(), "python");
  EXPECT_EQ(dataset.examples[1].variables.at("package").as_string(), "python3-ament-copyright");
  EXPECT_EQ(dataset.examples[1].variables.find("output"), nullptr);
}

TEST(Rows, PromptAndCompletionAsTextOrMessages) {
  const Example pair = first(R"({"prompt": "p", "completion": "c"})");
  EXPECT_TRUE(pair.plain);
  const Example lists =
      first(R"({"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]})");
  EXPECT_FALSE(lists.plain);
  EXPECT_EQ(lists.messages.size(), 2U);
  EXPECT_TRUE(first(R"({"text": "plain"})").plain);
  EXPECT_EQ(first("\xEF\xBB\xBF{\"text\": \"marked\"}").messages[0].content, "marked");
  EXPECT_EQ(parse_dataset(R"({"data": [{"text": "a"}, {"text": "b"}]})", ".json", "x").examples.size(), 2U);
}

TEST(Rows, CsvIsReadAsPythonWritesIt) {
  const std::vector<Value> rows = parse_csv(read_file(kFiles / "messy.csv"), "messy.csv");
  const Value expected = parse_json(read_file(kFiles / "messy.json"), "messy.json");
  ASSERT_EQ(rows.size(), expected.size());
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], expected.as_array()[i]) << "row " << i + 1;
}

TEST(Rows, NamesOfDatasetInfo) {
  EXPECT_EQ(open_dataset("notes", kFiles).examples.size(), 2U);
  EXPECT_EQ(open_dataset("chat", kFiles).examples.size(), 2U);
  EXPECT_EQ(open_dataset("open", kFiles).examples[0].messages[0].role, "system");
  EXPECT_EQ(open_dataset("one", kFiles).examples.size(), 1U);
  const Dataset intents = open_dataset("intents", kFiles);
  EXPECT_EQ(intents.examples[1].verb, "intent");
  EXPECT_EQ(intents.examples[1].output.as_string(), "card_swallowed");
  EXPECT_EQ(intents.examples[1].variables.at("sentence").as_string(),
            "My card, the blue one, was \"swallowed\" by the machine.\nWhat now?");
  EXPECT_EQ(open_dataset("swapped", kFiles).examples[0].messages.back().content,
            "Name the package section for this text.");
  const Dataset both = open_dataset("notes, chat," + (kFiles / "alpaca.json").string(), kFiles);
  EXPECT_EQ(both.examples.size(), 6U);
  EXPECT_EQ(both.where(both.examples[3]), (kFiles / "sharegpt.jsonl").string() + ": row 3");
}

TEST(Rows, MistakesInDatasetInfo) {
  const std::pair<const char*, const char*> cases[] = {
      {"preferences", "is for ranking"},       {"remote", "never from the network"},
      {"slip", "did you mean 'columns'"},      {"bad_column", "did you mean 'prompt'"},
      {"bad_format", "did you mean 'alpaca'"}, {"nots", "did you mean 'notes'"},
      {"notes,,chat", "between two commas"}};
  for (const auto& [name, expected] : cases) {
    const std::string error = error_of([name = name] { open_dataset(name, kFiles); });
    EXPECT_NE(error.find(expected), std::string::npos) << error;
  }
  EXPECT_NE(error_of([] { open_dataset("x", ""); }).find("does not exist"), std::string::npos);
  EXPECT_NE(error_of([] { open_dataset(kFiles.string(), ""); }).find("is a folder"), std::string::npos);
}

struct BadInput {
  std::string text;
  std::string expected;
};

TEST(Rows, MistakesNameFileRowAndField) {
  const BadInput cases[] = {
      {"", "empty"},
      {" \n", "empty"},
      {"\xEF\xBB\xBF\n", "empty"},
      {"\xFF\xFEx", "UTF-16"},
      {"[1]", "row 1: expected an object"},
      {"{\"verb\": \"x\"}\n{\"text\": \"y\"}", "row 2 is of format text"},
      {R"({"instruction": "x", "outptu": "y"})", "did you mean 'outptu'"},
      {R"({"instruction": 3, "output": "y"})", "field 'instruction': expected text, got integer"},
      {R"({"instruction": "x", "output": null})", "field 'output': expected a value, got null"},
      {R"({"instruction": "x", "output": "y", "history": [["a"]]})", "[question, answer]"},
      {R"({"instruction": "x", "output": "y", "tools": "{"})", "field 'tools'"},
      {R"({"messages": [{"role": "robot", "content": "x"}]})", "'robot'"},
      {R"({"messages": [{"content": "x"}]})", "got none"},
      {R"({"messages": {}})", "a list of messages, got object"},
      {R"({"messages": []})", "a list of messages"},
      {R"({"messages": ["x"]})", "messages with role and content, got text 'x'"},
      {R"({"conversations": [{"from": "alien", "value": "x"}]})", "text 'alien'"},
      {R"({"conversations": [{"role": "user", "content": "x"}]})", "turns with 'from' and 'value'"},
      {R"({"prompt": "x", "completion": []})", "text, as the prompt is"},
      {R"({"a": 1})", "fields a fit no known format"},
      {"{\"text\": \"a\"}\n{\"text\": \"\xff\"}", "row 2: invalid UTF-8 at byte 24 of the file"},
      {"{\"text\": ", "row 1: line 1, column"},
      {R"({"text": "a", "text": "b"})", "appears twice"}};
  for (const BadInput& bad : cases) {
    try {
      parse_dataset(bad.text, ".jsonl", "rows.jsonl");
      ADD_FAILURE() << bad.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.category(), ErrorCategory::kBadData) << bad.text;
      EXPECT_NE(std::string(error.what()).find(bad.expected), std::string::npos) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with("rows.jsonl: ")) << error.what();
    }
  }
}

TEST(Rows, WhatIsWellFormedButNotReadHere) {
  const BadInput cases[] = {{R"({"prompt": "x", "chosen": "y", "rejected": "z"})", "preference row"},
                            {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "not text"},
                            {R"({"messages": [{"role": "assistant", "content": "x", "weight": 0}]})", "weight 0"}};
  for (const BadInput& bad : cases) {
    EXPECT_NE(error_of([&] { parse_dataset(bad.text, ".jsonl", "x"); }).find(bad.expected), std::string::npos)
        << bad.text;
  }
  EXPECT_THROW(parse_dataset("{}", ".xml", "x"), Error);
}

TEST(Rows, MistakesInCsvAndJson) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {".csv", "text\n\"open\n", "line 2: a quoted field is never closed"},
      {".csv", "text,label\na,b\nc\n", "row 2 (line 3): 1 fields, the header has 2"},
      {".csv", "text\n\"a\"b\n", "quotes inside one are doubled"},
      {".csv", "text,text\na,b\n", "'text' appears twice"},
      {".csv", ",text\n1,b\n", "column 1 of the header has no name"},
      {".csv", "text\n", "there are no rows"},
      {".csv", "text\na\xff\n", "invalid UTF-8 at byte 6"},
      {".json", R"({"text": "a"})", "one row a line is .jsonl"},
      {".json", "[]", "there are no rows"},
      {".json", R"([{"text": "a"}, {"text": 1}])", "row 2: field 'text'"}};
  for (const auto& [extension, text, expected] : cases) {
    const std::string error = error_of([text = text, extension = extension] { parse_dataset(text, extension, "x"); });
    EXPECT_NE(error.find(expected), std::string::npos) << text << ": " << error;
  }
}

TEST(Rows, ProblemsAreCollectedWhenAskedFor) {
  std::vector<RowProblem> problems;
  const Dataset dataset =
      parse_dataset("{\"text\": \"a\"}\nnonsense\n{\"text\": \"\xff\"}\n{\"text\": 1}\n{\"text\": \"b\"}\n", ".jsonl",
                    "x", {}, &problems);
  EXPECT_EQ(dataset.examples.size(), 2U);
  EXPECT_EQ(dataset.examples[1].row, 5);
  ASSERT_EQ(problems.size(), 3U);
  EXPECT_EQ(problems[1].row, 3);
  EXPECT_NE(problems[1].message.find("invalid UTF-8"), std::string::npos);
}

}  // namespace
}  // namespace instruct::data
