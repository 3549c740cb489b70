// CLUE files as they are laid out; the rows are our own.
#include "data/clue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "data/encode.h"
#include "data/rows.h"
#include "instructions/instruction_set.h"
#include "instructions/test_support.h"

namespace instruct::data {
namespace {

using instructions::testing::error_of;
using testing::HasSubstr;

std::vector<Value> lines(std::string_view text) {
  return parse_raw_rows(text, ".jsonl", "f.json");
}
ClueRows converted(std::string_view text, const Value& answers = {}) {
  const std::vector<Value> rows = lines(text);
  return convert_clue(rows, "f.json", detect_clue_task(rows, "f.json"), answers);
}
std::string first_row(std::string_view text) {
  return dump_json(converted(text).rows.at(0));
}

TEST(Clue, EachTaskIsToldByItsKeysAndBecomesARow) {
  EXPECT_EQ(
      first_row(R"({"label": "103", "label_desc": "news_sports", "sentence": "球队赢了", "keywords": "球队,赢"})"),
      R"({"verb": "tnews", "text": "球队赢了", "keywords": "球队,赢", "output": "体育"})");
  EXPECT_EQ(first_row(R"({"label": "116", "sentence": "新赛季", "keywords": "", "id": 3})"),
            R"({"verb": "tnews", "text": "新赛季", "output": "电竞", "id": 3})");
  EXPECT_EQ(first_row(R"({"label": "7", "label_des": "打车", "sentence": "叫车"})"),
            R"({"verb": "iflytek", "text": "叫车", "output": "打车"})");
  EXPECT_EQ(first_row(R"({"content": "论文", "label": "园艺学", "id": 1})"),
            R"({"verb": "csldcp", "text": "论文", "output": "园艺学", "id": 1})");
  EXPECT_EQ(first_row(R"({"id": 2, "sentence": "很好", "label": "Positive"})"),
            R"({"verb": "eprstmt", "text": "很好", "output": "正向", "id": 2})");
  EXPECT_EQ(
      first_row(R"({"level": "easy", "sentence1": "甲", "sentence2": "乙", "label": "contradiction", "genre": "g"})"),
      R"({"verb": "ocnli", "text": "甲", "other": "乙", "output": "矛盾"})");
  EXPECT_EQ(first_row(R"({"sentence1": "甲", "sentence2": "乙", "label": 0})"),
            R"({"verb": "bustm", "text": "甲", "other": "乙", "output": "否"})");
  EXPECT_EQ(first_row(R"({"abst": "摘要", "keyword": ["一", "二"], "label": "1"})"),
            R"({"verb": "csl", "text": "摘要", "keywords": "一、二", "output": "是"})");
  EXPECT_EQ(
      first_row(
          R"({"target": {"span1_text": "狗", "span1_index": 0, "span2_text": "它", "span2_index": 2}, "idx": 9, "text": "狗说它饿", "label": "true"})"),
      R"({"verb": "cluewsc", "text": "狗说它饿", "noun": "狗", "pronoun": "它", "output": "是", "id": 9})");
  EXPECT_EQ(
      first_row(R"({"id": 5, "candidates": ["有始有终", "画蛇添足"], "content": "他#idiom#。", "answer": 1})"),
      R"({"verb": "chid", "text": "他____。", "candidates": "有始有终、画蛇添足", "output": "画蛇添足", "id": 5})");
}

TEST(Clue, TheLongFormOfChidHasARowForEachGap) {
  constexpr std::string_view kText =
      R"({"candidates": ["甲甲甲甲", "乙乙乙乙"], "content": ["一#idiom000001#二#idiom000002#", "三#idiom000003#"]})";
  const ClueRows rows =
      converted(kText, Value::object({{"#idiom000001#", 0}, {"#idiom000002#", 1}, {"#idiom000003#", 1}}));
  ASSERT_EQ(rows.rows.size(), 3U);
  EXPECT_EQ(rows.rows[1].at("text").as_string(), "一（略）二____");
  EXPECT_EQ(rows.rows[1].at("output").as_string(), "乙乙乙乙");
  EXPECT_EQ(rows.rows[2].at("text").as_string(), "三____");
  EXPECT_EQ(converted(kText).unlabelled, 3);
  EXPECT_THAT(error_of([&] {
                converted(kText, Value::object({{"#idiom000001#", 0}}));
              }),
              HasSubstr("f.json: row 1: the answer file has no answer for #idiom000002#"));
  EXPECT_THAT(error_of([&] {
                converted(kText, Value::object({{"#idiom000001#", 2}}));
              }),
              HasSubstr("the answer of '#idiom000001#': expected the place of a candidate, 0 to 1"));
}

TEST(Clue, RowsWithoutLabelsHaveNoOutput) {
  const std::vector<Value> rows = lines("{\"id\": 0, \"sentence\": \"好不好\"}\n");
  const ClueRows made = convert_clue(rows, "f.json", ClueTask::kEprstmt, {});
  EXPECT_EQ(dump_json(made.rows.at(0)), R"({"verb": "eprstmt", "text": "好不好", "id": 0})");
  EXPECT_EQ(made.unlabelled, 1);
  EXPECT_EQ(error_of([&] { detect_clue_task(rows, "f.json"); }),
            "f.json: rows like these have several tasks: tnews, iflytek, eprstmt; name the one it is");
  // A later row may tell; rows without agreement are left out and named.
  const ClueRows inferences = converted(
      "{\"sentence1\": \"a\", \"sentence2\": \"b\"}\n\n{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": "
      "\"-\"}\n");
  EXPECT_EQ(inferences.task, ClueTask::kOcnli);
  EXPECT_EQ(inferences.rows.size(), 1U);
  EXPECT_EQ(inferences.unanswered, std::vector<std::int64_t>{3});
}

TEST(Clue, BadRowsAreNamedByTheirLine) {
  const auto error = [](std::string_view second, std::string_view first) {
    return error_of([&] { converted(std::string(first) + "\n\n" + std::string(second)); });
  };
  const char* news = R"({"label": "103", "label_desc": "news_sports", "sentence": "球", "keywords": ""})";
  EXPECT_EQ(error(R"({"label_desc": "news_space", "sentence": "星"})", news),
            "f.json: row 3: field 'label_desc': expected one of news_story, news_culture, news_entertainment, "
            "news_sports, ..., got 'news_space'");
  EXPECT_EQ(error(R"({"label_desc": "news_car", "sentence": 5})", news),
            "f.json: row 3: field 'sentence': expected a text, got integer");
  EXPECT_EQ(error(R"([1])", news), "f.json: row 3: expected an object, got array");
  EXPECT_THAT(
      error(R"({"abst": "a", "keyword": ["x", 1], "label": 0})", R"({"abst": "a", "keyword": ["x"], "label": 0})"),
      HasSubstr("f.json: row 3: field 'keyword': expected a list of texts"));
  EXPECT_THAT(error(R"({"target": {"span1_text": "a"}, "text": "b"})",
                    R"({"target": {"span1_text": "a", "span2_text": "b"}, "text": "b", "label": false})"),
              HasSubstr("f.json: row 3: target: field 'span2_text': expected a text, got nothing"));
  EXPECT_THAT(error(R"({"candidates": ["a"], "content": "no gap", "answer": 0})",
                    R"({"candidates": ["a"], "content": "#idiom#", "answer": 0})"),
              HasSubstr("f.json: row 3: field 'content': expected a text with #idiom# in it, got 'no gap'"));
  EXPECT_EQ(error(R"({"x": 1})", R"({"y": 1})"), "f.json: row 1: the keys are those of no CLUE task");
  EXPECT_THAT(error_of([] { clue_task_from_name("tnew"); }),
              HasSubstr("unknown CLUE task 'tnew'; did you mean 'tnews'?"));
}

// Every verb of examples/clue.iset.yaml takes what the converter makes, in every wording.
TEST(Clue, TheInstructionSetTakesTheRows) {
  const instructions::InstructionSet set =
      instructions::load_instruction_set(INSTRUCT_SOURCE_DIR "/examples/clue.iset.yaml");
  const auto tokenizer = instructions::testing::tiny_tokenizer();
  const instructions::DialogueEncoder dialogue(tokenizer, std::string(instructions::plain_chat_template()), "plain");
  const RowEncoder encoder(dialogue, &set);
  const std::filesystem::path folder = std::filesystem::path(INSTRUCT_GOLDENS) / "data" / "clue";
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename() == "chid_answers.json") continue;
    ++files;
    const bool chid = entry.path().filename() == "chid.json";
    const ClueRows clue = read_clue(entry.path(), entry.path().filename() == "afqmc.json" ? "afqmc" : "clue",
                                    chid ? folder / "chid_answers.json" : std::filesystem::path());
    const Dataset dataset = parse_dataset(dump_json(Value(Value::Array(clue.rows.begin(), clue.rows.end()))), ".json",
                                          entry.path().string());
    for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
      for (std::int64_t epoch = 0; epoch < 4; ++epoch)
        EXPECT_NO_THROW(encoder.encode(dataset, i, {.shots = 4, .epoch = epoch})) << entry.path();
    }
  }
  EXPECT_EQ(files, 11U);
}

}  // namespace
}  // namespace instruct::data
