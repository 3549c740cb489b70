#include "data/rows.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "data/sampler.h"

namespace instruct::data {
namespace {

Example first(std::string_view text, std::string_view extension = ".jsonl", const ColumnMap& map = {}) {
  return parse_dataset(text, extension, "rows", map).examples.at(0);
}

TEST(Rows, EveryFormatBecomesMessages) {
  const Example alpaca =
      first(R"({"instruction": "Add", "input": "1 2", "output": "3", "system": "s", "history": [["a", "b"]]})");
  ASSERT_EQ(alpaca.messages.size(), 5U);
  EXPECT_EQ(alpaca.messages[0].role, "system");
  EXPECT_EQ(alpaca.messages[3].content, "Add\n1 2");
  EXPECT_EQ(alpaca.messages[4].content, "3");
  const Example shared =
      first(R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(shared.messages[0].role, "user");
  EXPECT_EQ(shared.messages[1].role, "assistant");
  const Example open =
      first(R"({"messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}]})");
  EXPECT_EQ(open.messages[0].role, "system");
  const Example pair = first(R"({"prompt": "p", "completion": "c"})");
  EXPECT_TRUE(pair.plain);
  const Example lists =
      first(R"({"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]})");
  EXPECT_FALSE(lists.plain);
  EXPECT_EQ(lists.messages.size(), 2U);
  EXPECT_EQ(first("text\n\"a \"\"b\"\"\nc\"\n", ".csv").messages[0].content, "a \"b\"\nc");
  const Example verb = first(R"({"verb": "summary", "text": "t", "output": "o"})");
  EXPECT_EQ(verb.verb, "summary");
  EXPECT_EQ(verb.variables.at("text").as_string(), "t");
}

TEST(Rows, ColumnsMayBeMapped) {
  ColumnMap map{.formatting = "alpaca",
                .columns = parse_json(R"({"prompt": "q", "query": "ctx", "response": "a"})", "map")};
  const Example example = first(R"({"q": "Q", "ctx": "C", "a": "A"})", ".jsonl", map);
  EXPECT_EQ(example.messages[0].content, "Q\nC");
  EXPECT_EQ(example.messages[1].content, "A");
}

TEST(Rows, MistakesNameRowAndField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty"},
      {" \n", "empty"},
      {"[1]", "row 1"},
      {R"({"verb": "x"})"
       "\n"
       R"({"text": "y"})",
       "row 2 is of format text"},
      {R"({"instruction": "x", "outptu": "y"})", "did you mean 'outptu'"},
      {R"({"instruction": 3, "output": "y"})", "field 'instruction'"},
      {R"({"messages": [{"role": "robot", "content": "x"}]})", "'robot'"},
      {R"({"messages": {}})", "list of messages"},
      {R"({"conversations": [{"from": "alien", "value": "x"}]})", "alien"},
      {R"({"a": 1})", "fit no known format"},
      {"{\"text\": \"\xff\"}", "invalid UTF-8"},
      {"{\"text\": ", "malformed JSON"},
  };
  for (const auto& [text, expected] : cases) {
    try {
      parse_dataset(text, ".jsonl", "rows.jsonl");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.category(), ErrorCategory::kBadData);
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("rows.jsonl"), std::string::npos);
    }
  }
  EXPECT_THROW(parse_dataset("a,b\n1\n", ".csv", "x"), Error);
  EXPECT_THROW(parse_dataset("a\n\"open\n", ".csv", "x"), Error);
  EXPECT_THROW(parse_dataset("{}", ".xml", "x"), Error);
}

TEST(Sampler, OrdersDifferByEpochAndRepeatBySeed) {
  EXPECT_EQ(epoch_order(50, true, 1, 3), epoch_order(50, true, 1, 3));
  EXPECT_NE(epoch_order(50, true, 1, 3), epoch_order(50, true, 1, 4));
  EXPECT_EQ(epoch_order(3, false, 1, 9), (std::vector<std::int64_t>{0, 1, 2}));
  const auto [rest, held] = hold_out(10, 0.25, 7);
  EXPECT_EQ(held.size(), 3U);
  EXPECT_EQ(rest.size(), 7U);
  EXPECT_THROW(hold_out(10, 10, 7), Error);
}

}  // namespace
}  // namespace instruct::data
