// instruct data: lint, show, convert, split.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <fstream>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(DataLint, CountsLengthsAndFindings) {
  const Outcome clean = run({"data", "lint", golden_rows(), "--model", golden_model(), "--json"});
  ASSERT_EQ(clean.code, 0) << clean.err;
  EXPECT_TRUE(clean.json().at("ok").as_bool());
  EXPECT_EQ(clean.json().at("rows").as_integer(), 7);
  const Outcome strict = run({"data", "lint", golden_rows(), "--model", golden_model(), "--strict"});
  EXPECT_EQ(strict.code, 3);
  EXPECT_THAT(strict.out, HasSubstr("special-text"));
}

TEST(DataLint, OverlapWithEvaluationRowsIsAnError) {
  const Outcome outcome = run({"data", "lint", golden_rows(), "--eval", golden_rows()});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.out, HasSubstr("error"));
}

TEST(DataShow, MasksInTextColourAndHtml) {
  const Folder folder;
  const std::vector<std::string> base{"data", "show", golden_rows(), "--model", golden_model(), "--row", "2"};
  const auto shown = [&](const std::vector<std::string>& more, const Setting& setting = {}) {
    std::vector<std::string> words = base;
    words.insert(words.end(), more.begin(), more.end());
    return run(words, setting);
  };
  EXPECT_THAT(shown({}).out, AllOf(HasSubstr("«mail tool<|im_end|>»"), Not(HasSubstr("\x1b"))));
  EXPECT_THAT(shown({"--colour", "always"}).out, HasSubstr("\x1b[30;42m"));
  EXPECT_EQ(shown({"--html", folder / "rows.html"}).code, 0);
  EXPECT_THAT(content_of(folder / "rows.html"), AllOf(HasSubstr("<!doctype html>"), HasSubstr("class=\"t")));
  const Outcome missing = run({"data", "show", golden_rows(), "--model", golden_model(), "--row", "70"});
  EXPECT_EQ(missing.code, 4);
  EXPECT_THAT(missing.err, HasSubstr("no row 70"));
}

// Chinese task files, from the benchmark's layout to measured answers; a test file without labels is answered.
TEST(DataConvert, ClueFilesAreAnswered) {
  const Folder folder;
  const std::string files = std::string(INSTRUCT_GOLDENS) + "/data/clue/";
  const std::string set = std::string(INSTRUCT_GOLDENS) + "/../../examples/clue.iset.yaml";
  for (const char* task : {"tnews", "ocnli", "chid", "cluewsc"}) {
    const std::string rows = folder / (std::string(task) + ".jsonl");
    std::vector<std::string> words{"data", "convert", files + task + ".json", rows, "--from", "clue", "--json"};
    if (std::string(task) == "chid") words.insert(words.end(), {"--answers", files + "chid_answers.json"});
    const Outcome converted = run(words);
    ASSERT_EQ(converted.code, 0) << converted.err;
    const Outcome outcome = run({"eval", "--model", golden_model(), "--data", rows, "--instructions", set, "--shots",
                                 std::string(task) == "chid" ? "1" : "2", "--max-new-tokens", "8", "--json"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_GE(outcome.json().at(task).at(std::string(task) == "chid" ? "em" : "accuracy").as_double(), 0);
  }
  std::ofstream(folder / "test.json") << R"({"id": 4, "sentence": "不错"})" << '\n';
  EXPECT_THAT(run({"data", "convert", folder / "test.json", folder / "t.jsonl", "--from", "clue"}).err,
              HasSubstr("several tasks: tnews, iflytek, eprstmt"));
  ASSERT_EQ(run({"data", "convert", folder / "test.json", folder / "t.jsonl", "--from", "eprstmt"}).code, 0);
  const Outcome answered = run({"eval", "--model", golden_model(), "--data", folder / "t.jsonl", "--instructions", set,
                                "--output", folder / "answers"});
  ASSERT_EQ(answered.code, 0) << answered.err;
  EXPECT_THAT(answered.err, HasSubstr("1 rows have no output: answered, but not judged"));
  EXPECT_THAT(content_of(folder / "answers/generated_predictions.jsonl"),
              AllOf(HasSubstr("\"label\": null"), HasSubstr("向\"")));
}

TEST(DataConvert, ThereAndBack) {
  const Folder folder;
  const Outcome there = run({"data", "convert", golden_rows(), folder / "s.json", "--to", "sharegpt", "--json"});
  ASSERT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(there.json().at("rows").as_integer(), 7);
  ASSERT_EQ(run({"data", "convert", folder / "s.json", folder / "m.jsonl", "--to", "messages"}).code, 0);
  const std::vector<std::string> score{"score", "--model", golden_model(), "--dtype", "f32", "--data"};
  const auto scored = [&](const std::string& data) {
    std::vector<std::string> words = score;
    words.push_back(data);
    return run(words).out;
  };
  EXPECT_EQ(scored(golden_rows()), scored(folder / "m.jsonl"));
  const Outcome again = run({"data", "convert", golden_rows(), folder / "s.json", "--to", "sharegpt"});
  EXPECT_EQ(again.code, 2);
  EXPECT_THAT(again.err, HasSubstr("exists"));
}

TEST(DataSplit, PartsKeepKeysTogether) {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"text\": \"row {}\", \"who\": {}}}\n", i, i / 4);
  const Outcome outcome = run({"data", "split", folder.write("all.jsonl", lines), "--parts", "train=0.8,test=8", "--by",
                               "who", "--output", folder / "parts", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("test").at("rows").as_integer(), 8);
  EXPECT_THAT(folder.names("parts"), ElementsAre("test.jsonl", "train.jsonl"));
  const Outcome missing = run({"data", "split", folder / "all.jsonl", "--by", "whom", "--output", folder / "other"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_THAT(missing.err, HasSubstr("row 1 has no field 'whom'"));
}

}  // namespace
}  // namespace instruct::test
