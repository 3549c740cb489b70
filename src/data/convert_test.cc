#include "data/convert.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "data/csv.h"
#include "data/show.h"
#include "instructions/test_support.h"

namespace instruct::data {
namespace {

namespace fs = std::filesystem;
using instructions::testing::error_of;
using instructions::testing::tiny_tokenizer;

const fs::path kFiles = fs::path(INSTRUCT_GOLDENS) / "data";

std::string as_text(const Dataset& dataset) {
  std::string text;
  for (const Example& example : dataset.examples) {
    for (const instructions::Message& message : example.messages) text += message.role + ": " + message.content + "\n";
    text += dump_json(example.context) + "\n";
  }
  return text;
}

Dataset parsed(const std::vector<Value>& rows) {
  return parse_dataset(dump_json(Value(Value::Array(rows.begin(), rows.end()))), ".json", "converted");
}

TEST(Convert, DialoguesSurviveEveryFormatThatHoldsThem) {
  for (const char* file : {"alpaca.json", "sharegpt.jsonl"}) {
    const Dataset dataset = read_dataset(kFiles / file);
    for (const char* format : {"messages", "sharegpt"}) {
      EXPECT_EQ(as_text(parsed(convert_rows(dataset, format_from_option(format), nullptr))), as_text(dataset))
          << file << " " << format;
    }
  }
  const Dataset alpaca = read_dataset(kFiles / "alpaca.json");
  EXPECT_EQ(as_text(parsed(convert_rows(alpaca, RowFormat::kAlpaca, nullptr))), as_text(alpaca));
  EXPECT_EQ(as_text(parsed(convert_rows(alpaca, RowFormat::kPromptCompletion, nullptr))), as_text(alpaca));
  const Dataset open = read_dataset(kFiles / "openai.jsonl");
  EXPECT_EQ(as_text(parsed(convert_rows(open, RowFormat::kMessages, nullptr))), as_text(open));
}

TEST(Convert, WhatAFormatCannotHoldIsRefused) {
  const auto error = [](const char* file, RowFormat target) {
    return error_of([&] { convert_rows(read_dataset(kFiles / file), target, nullptr); });
  };
  EXPECT_NE(
      error("openai.jsonl", RowFormat::kShareGpt).find("row 2: the format has no place for a message's 'tool_calls'"),
      std::string::npos);
  EXPECT_NE(error("sharegpt.jsonl", RowFormat::kAlpaca).find("in turn"), std::string::npos);
  EXPECT_NE(error("alpaca.json", RowFormat::kText).find("chat template"), std::string::npos);
  EXPECT_NE(error("alpaca.json", RowFormat::kInstruction).find("which verb"), std::string::npos);
  EXPECT_NE(error("notes.jsonl", RowFormat::kMessages).find("--instructions"), std::string::npos);
  EXPECT_NE(error_of([] { format_from_option("alpacca"); }).find("did you mean 'alpaca'"), std::string::npos);
}

TEST(Convert, InstructionRowsAreWordedByTheirSet) {
  const instructions::InstructionSet set = instructions::parse_instruction_set(
      "name: n\nvariables: {text: {type: text}}\ninstructions:\n"
      "  summary: {inputs: [text], templates: [\"{{ text }} Summarize.\"], output: {type: text}}\n"
      "  section: {inputs: [text], templates: [\"{{ text }} Section?\"], output: {type: label, labels: [python, "
      "sound]}}\n",
      "n");
  const Dataset notes = read_dataset(kFiles / "notes.jsonl");
  const Dataset converted = parsed(convert_rows(notes, RowFormat::kAlpaca, &set));
  EXPECT_TRUE(converted.examples[1].messages[0].content.ends_with("to ament. Section?"));
  EXPECT_EQ(converted.examples[1].messages[1].content, "python");
  EXPECT_EQ(convert_rows(notes, RowFormat::kInstruction, nullptr)[0], read_raw_rows(kFiles / "notes.jsonl")[0]);
}

TEST(Convert, FilesReadBackEqual) {
  const fs::path folder = fs::temp_directory_path() / "instruct_convert_test";
  fs::create_directories(folder);
  const Value messy = parse_json(read_file(kFiles / "messy.json"), "messy.json");
  for (const char* name : {"rows.csv", "rows.json", "rows.jsonl"}) {
    write_rows(folder / name, messy.as_array());
    EXPECT_EQ(Value(read_raw_rows(folder / name)), messy) << name;
  }
  const std::vector<Value> uneven{parse_json(R"({"a": "1"})", ""), parse_json(R"({"b": "1"})", "")};
  EXPECT_NE(error_of([&] { write_rows(folder / "x.csv", uneven); }).find("'a' is missing"), std::string::npos);
  const std::vector<Value> nested{parse_json(R"({"a": ["1"]})", "")};
  EXPECT_NE(error_of([&] { write_rows(folder / "x.csv", nested); }).find("field 'a' is array"), std::string::npos);
  EXPECT_THROW(write_rows(folder / "x.txt", nested), Error);
  EXPECT_FALSE(fs::exists(folder / "x.csv"));
  fs::remove_all(folder);
}

TEST(Split, PartsHaveTheirSizesAndNothingInCommon) {
  std::vector<std::string> keys;
  for (int i = 0; i < 100; ++i) keys.push_back(std::to_string(i));
  const auto parts = split_rows(keys, parts_from_option("train=0.8, dev=0.1,test=10"), 3);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].size(), 80U);
  EXPECT_EQ(parts[1].size(), 10U);
  EXPECT_EQ(parts[2].size(), 10U);
  std::map<std::int64_t, int> seen;
  for (const auto& part : parts) {
    for (const std::int64_t row : part) ++seen[row];
  }
  EXPECT_EQ(seen.size(), 100U);
  EXPECT_EQ(split_rows(keys, parts_from_option("train=0.8, dev=0.1,test=10"), 3), parts);
  EXPECT_NE(split_rows(keys, parts_from_option("train=0.8, dev=0.1,test=10"), 4), parts);
}

TEST(Split, RowsOfAKeyStayTogether) {
  std::vector<std::string> keys;
  for (int i = 0; i < 90; ++i) keys.push_back(std::to_string(i / 3));
  const auto parts = split_rows(keys, parts_from_option("a=0.5,b=0.5"), 1);
  for (const auto& part : parts) {
    EXPECT_EQ(part.size() % 3, 0U);
    for (std::size_t i = 0; i < part.size(); i += 3) EXPECT_EQ(part[i] / 3, part[i + 2] / 3);
  }
}

TEST(Split, MistakesInParts) {
  for (const char* bad : {"", "train", "train=", "=0.5", "train=x", "train=-1", "train=0", "train=1.5", "a=0.5,a=0.5",
                          "a=0.7,b=0.7", "a=nan", "a=1e300"}) {
    EXPECT_THROW(parts_from_option(bad), Error) << bad;
  }
  const std::vector<std::string> keys{"a", "b"};
  EXPECT_NE(error_of([&] { split_rows(keys, parts_from_option("a=1,b=2"), 1); }).find("wants 2 of 2 rows, 1 are left"),
            std::string::npos);
}

TEST(Show, TrainedTextIsMarked) {
  const tokenizers::Tokenizer tokenizer = tiny_tokenizer();
  const instructions::DialogueEncoder dialogue(tokenizer,
                                               "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + "
                                               "m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}",
                                               "test");
  const RowEncoder encoder(dialogue, nullptr);
  const Dataset dataset =
      parse_dataset(R"({"instruction": "Grüße & <b>\u001b[31m", "output": "漢字"})", ".jsonl", "rows.jsonl");
  const ShownRow row{"rows.jsonl: row 1", encoder.encode_dialogue(dataset, dataset.examples[0], {})};
  EXPECT_EQ(show_row(row, tokenizer, Colour::kNever),
            "rows.jsonl: row 1: 45 tokens, 7 trained\n<|im_start|>user\nGrüße & "
            "<b>␛[31m<|im_end|>\n<|im_start|>assistant\n«漢字<|im_end|>»\n");
  const std::string coloured = show_row(row, tokenizer, Colour::kAlways);
  EXPECT_NE(coloured.find("m漢\x1b[0m"), std::string::npos) << "a character of three tokens stays whole";
  EXPECT_EQ(coloured.find("\x1b[31m"), std::string::npos) << "a row cannot colour the terminal";
  const std::string page = show_html({row}, tokenizer);
  EXPECT_NE(page.find("&lt;"), std::string::npos);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
}

}  // namespace
}  // namespace instruct::data
