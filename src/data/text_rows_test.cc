// Rows of encoders: pairs, special tokens, cutting, sentences and what is true of them.
#include "data/text_rows.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace instruct::data {
namespace {

tokenizers::Tokenizer bert() {
  const auto folder = std::filesystem::path(INSTRUCT_GOLDENS) / "encoders" / "bert";
  const Value config = parse_json(read_file(folder / "tokenizer_config.json"), "tokenizer_config.json");
  return tokenizers::Tokenizer(tokenizers::spec_from_tokenizer_json(
      parse_json(read_file(folder / "tokenizer.json"), "tokenizer.json"), &config, "tokenizer.json"));
}

constexpr const char* kSet = R"(
name: test
variables:
  text: {type: text}
  other: {type: text, optional: true}
instructions:
  kind:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: label, labels: [files, mail]}
  tags:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: labels, labels: [a, b, c]}
  entails:
    inputs: [text, other]
    templates: ["{{ text }}[SEP]{{ other }}"]
    output: {type: label, labels: ["yes", "no"]}
  summary:
    inputs: [text]
    templates: ["Abstract: {{ text }}"]
    output: {type: sentences, from: text, max_items: 1}
)";

class TextRows : public ::testing::Test {
 protected:
  std::vector<TextRow> rows(const std::string& text, const TextOptions& options = {}, TextReport* report = nullptr) {
    dataset_ = parse_dataset(text, ".jsonl", "rows.jsonl");
    std::vector<std::int64_t> indices;
    for (std::size_t i = 0; i < dataset_.examples.size(); ++i) indices.push_back(static_cast<std::int64_t>(i));
    TextReport own;
    return encoder_.encode_all(dataset_, indices, options, report == nullptr ? own : *report);
  }
  std::string message(const std::string& text, const TextOptions& options = {}) {
    try {
      rows(text, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::vector<std::int32_t> ids(std::initializer_list<const char*> tokens) const {
    std::vector<std::int32_t> result;
    for (const char* token : tokens) result.push_back(*tokenizer_.find(token));
    return result;
  }

  tokenizers::Tokenizer tokenizer_ = bert();
  instructions::InstructionSet set_ = instructions::parse_instruction_set(kSet, "test.iset.yaml");
  TextEncoder encoder_{tokenizer_, set_};
  Dataset dataset_;
};

TEST_F(TextRows, ATextHasTheModelsTokensAroundItAndItsLabelAtTheFirst) {
  const auto row = rows(R"({"verb": "kind", "text": "A tool to read mail", "output": "mail"})").front();
  EXPECT_EQ(row.tokens.front(), *tokenizer_.find("[CLS]"));
  EXPECT_EQ(row.tokens.back(), *tokenizer_.find("[SEP]"));
  EXPECT_EQ(row.truth, std::vector<float>{1});
  ASSERT_EQ(row.parts.size(), 1U);
  EXPECT_EQ(row.parts[0], (tensor::KeyRange{0, 1}));
  const auto mean = rows(R"({"verb": "kind", "text": "mail", "output": "mail"})", {.pooling = Pooling::kMean}).front();
  EXPECT_EQ(mean.parts[0], (tensor::KeyRange{0, static_cast<std::int64_t>(mean.tokens.size())}));
}

TEST_F(TextRows, ASeparatorOfTheTemplateMakesAPairAndOneOfAUserDoesNot) {
  const auto pair = rows(R"({"verb": "entails", "text": "mail [SEP] mail", "other": "files", "output": "no"})").front();
  const std::int32_t separator = *tokenizer_.find("[SEP]");
  EXPECT_EQ(std::count(pair.tokens.begin(), pair.tokens.end(), separator), 2);
  EXPECT_EQ(pair.types.front(), 0);
  EXPECT_EQ(pair.types.back(), 1);
  const auto first = std::find(pair.tokens.begin(), pair.tokens.end(), separator) - pair.tokens.begin();
  EXPECT_EQ(std::count(pair.types.begin(), pair.types.end(), 0), first + 1);
}

TEST_F(TextRows, LabelsAreAnyNumberOfTheSet) {
  const auto row = rows(R"({"verb": "tags", "text": "mail", "output": ["c", "a"]})").front();
  EXPECT_EQ(row.truth, (std::vector<float>{1, 0, 1}));
  EXPECT_EQ(units_of(row), 3);
}

TEST_F(TextRows, SentencesAreFoundAndTheMostLikeTheReferenceIsTrue) {
  const auto row = rows(R"({"verb": "summary", "text": "The library reads files. A tool to sort mail. Games.",)"
                        R"( "output": "sort the mail"})")
                       .front();
  EXPECT_EQ(row.sentences, (std::vector<std::string>{"The library reads files.", "A tool to sort mail.", "Games."}));
  EXPECT_EQ(row.truth, (std::vector<float>{0, 1, 0}));
  ASSERT_EQ(row.parts.size(), 3U);
  for (std::size_t i = 1; i < 3; ++i) EXPECT_EQ(row.parts[i].begin, row.parts[i - 1].end);
  EXPECT_EQ(row.parts[2].end + 1, static_cast<std::int64_t>(row.tokens.size()));
  std::vector<std::int32_t> second(row.tokens.begin() + row.parts[1].begin, row.tokens.begin() + row.parts[1].end);
  std::vector<std::int32_t> alone;
  for (const auto& token : tokenizer_.encode_plain("A tool to sort mail.")) alone.push_back(token.id);
  EXPECT_EQ(second, alone);
}

TEST_F(TextRows, WhatIsTooLongIsRefusedCutOrLeftOut) {
  const std::string row =
      R"({"verb": "kind", "text": "mail mail mail mail mail mail mail mail files", "output": "mail"})";
  EXPECT_NE(message(row, {.cutoff = 6}).find("at most 6 fit"), std::string::npos) << message(row, {.cutoff = 6});
  TextReport report;
  const auto right = rows(row, {.cutoff = 6, .overflow = Overflow::kRight}, &report).front();
  EXPECT_EQ(right.tokens.size(), 6U);
  EXPECT_EQ(right.tokens.back(), *tokenizer_.find("[SEP]"));
  EXPECT_EQ(report.shortened, std::vector<std::int64_t>{1});
  const auto left = rows(row, {.cutoff = 6, .overflow = Overflow::kLeft}).front();
  EXPECT_EQ(left.tokens.size(), 6U);
  EXPECT_NE(left.tokens[4], right.tokens[4]);
  EXPECT_NE(message(row, {.cutoff = 6, .overflow = Overflow::kDrop}).find("no row is left"), std::string::npos);
}

TEST_F(TextRows, BadRowsAreNamed) {
  EXPECT_NE(message(R"({"verb": "kind", "text": "x", "output": "mial"})").find("did you mean 'mail'"),
            std::string::npos);
  EXPECT_NE(message(R"({"text": "x"})").find("instruction rows"), std::string::npos);
}

TEST_F(TextRows, ABatchHasRowsSideBySide) {
  const auto encoded = rows(R"({"verb": "kind", "text": "mail", "output": "mail"})"
                            "\n"
                            R"({"verb": "summary", "text": "Files. Mail.", "output": "mail"})");
  const std::vector<const TextRow*> chosen{&encoded[0], &encoded[1]};
  const TextBatch batch = make_text_batch(chosen, 2);
  const auto first = static_cast<std::int64_t>(encoded[0].tokens.size());
  ASSERT_EQ(batch.parts.size(), 3U);
  EXPECT_EQ(batch.part_rows, (std::vector<std::size_t>{0, 1, 1}));
  EXPECT_EQ(batch.parts[1].begin, first + encoded[1].parts[0].begin);
  EXPECT_EQ(batch.positions[0], 2);
  EXPECT_EQ(batch.positions[static_cast<std::size_t>(first)], 2);
  EXPECT_EQ(batch.plan.queries[1].own, tensor::OwnKeys::kWhole);
  EXPECT_TRUE(single_tokens(batch).empty());
}

TEST(OracleSentences, AreTakenAsLongAsOneHelps) {
  const std::vector<std::string> sentences{"alpha beta", "gamma delta", "epsilon"};
  EXPECT_EQ(oracle_sentences(sentences, "gamma delta alpha beta", 3), (std::vector<float>{1, 1, 0}));
  EXPECT_EQ(oracle_sentences(sentences, "gamma delta alpha", 1), (std::vector<float>{0, 1, 0}));
  EXPECT_EQ(oracle_sentences(sentences, "zeta", 3), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(oracle_sentences(std::vector<std::string>{"数据库。", "游戏。"}, "数据", 1), (std::vector<float>{1, 0}));
}

}  // namespace
}  // namespace instruct::data
