// Rows of spans, extraction and clozes: tokens, words and windows of a text, and what is true of them.
#include "data/span_rows.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/text_rows.h"

namespace instruct::data {
namespace {

tokenizers::Tokenizer tokenizer_of(const std::string& family) {
  const auto folder = std::filesystem::path(INSTRUCT_GOLDENS) / "encoders" / family;
  const Value config = parse_json(read_file(folder / "tokenizer_config.json"), "tokenizer_config.json");
  return tokenizers::Tokenizer(tokenizers::spec_from_tokenizer_json(
      parse_json(read_file(folder / "tokenizer.json"), "tokenizer.json"), &config, "tokenizer.json"));
}

constexpr const char* kSet = R"(
name: test
variables:
  text: {type: text}
  question: {type: text, optional: true}
instructions:
  answer:
    inputs: [question, text]
    templates: ["{{ question }}[SEP]{{ text }}"]
    output: {type: span, from: text}
  find:
    inputs: [text]
    templates: ["Find: {{ text }}"]
    output: {type: json, schema: {type: object, properties: {tool: {type: array, items: {type: string}}, place: {type: string}}}}
  kind:
    inputs: [text]
    templates: ["{{ text }} It is a [MASK]."]
    output: {type: label, labels: [one, two], verbalisers: {one: [tool, library], two: mail}}
)";

class SpanRows : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (instructions::Instruction& instruction : set_.instructions) {
      if (instruction.verb == "find") instruction.output.labels = instructions::extraction_tags(instruction);
    }
  }
  std::vector<TextRow> rows(const std::string& row, const TextOptions& options = {}) {
    const Dataset dataset = parse_dataset(row, ".jsonl", "rows.jsonl");
    TextReport report;
    const std::vector<std::int64_t> indices = row_indices(dataset);
    return encoder_.encode_all(dataset, indices, options, report);
  }
  std::string message(const std::string& row, const TextOptions& options = {}) {
    try {
      rows(row, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  static std::string text_of(const TextRow& row, float first, float last) {
    const std::size_t begin = row.places[static_cast<std::size_t>(first)].begin;
    return row.source->substr(begin, row.places[static_cast<std::size_t>(last)].end - begin);
  }
  tokenizers::Tokenizer tokenizer_ = tokenizer_of(GetParam());
  instructions::InstructionSet set_ = instructions::parse_instruction_set(kSet, "test.iset.yaml");
  TextEncoder encoder_{tokenizer_, set_};
};
INSTANTIATE_TEST_SUITE_P(Tokenizers, SpanRows, ::testing::Values("bert", "roberta", "xlm-roberta"),
                         [](const auto& test) {
                           return std::string(test.param == "xlm-roberta" ? "unigram" : test.param);
                         });

TEST_P(SpanRows, ASpanIsFoundInItsTextAndNotInTheQuestion) {
  const TextRow row =
      rows(
          R"({"verb": "answer", "question": "mail mail", "text": "Größe: the mail, and 数据库 mail.", "output": "mail"})")
          .front();
  EXPECT_EQ(row.parts.size(), row.tokens.size());
  ASSERT_EQ(row.truth.size(), 2U);
  EXPECT_EQ(text_of(row, row.truth[0], row.truth[1]), "mail");
  EXPECT_EQ(row.places[static_cast<std::size_t>(row.truth[0])].begin, row.source->find("mail"));
  EXPECT_EQ(row.places.front().begin, row.places.front().end);  // a token that was put in
  const TextRow second =
      rows(R"({"verb": "answer", "question": "?", "text": "mail, the mail", "output": {"text": "mail", "start": 10}})")
          .front();
  EXPECT_EQ(second.places[static_cast<std::size_t>(second.truth[0])].begin, 10U);
  const TextRow open = rows(R"({"verb": "answer", "question": "?", "text": "mail"})").front();
  EXPECT_TRUE(open.truth.empty());
}

TEST_P(SpanRows, EverySpanOfTokensIsFoundAgain) {
  const std::string text = "Größe – naïve café, the mail\u3000and 这个数据库! \xF0\x9F\x98\x80 A mail.";
  const auto row_of = [&](const Value& output) {
    Value row = Value::object({{"verb", "answer"}, {"question", "mail?"}, {"text", text}});
    if (!output.is_null()) row.set("output", output);
    return rows(dump_json(row)).front();
  };
  const TextRow plain = row_of({});
  for (std::size_t i = 0; i < plain.places.size(); ++i) {
    for (std::size_t j = i; j < plain.places.size(); ++j) {
      const ByteRange span{plain.places[i].begin, plain.places[j].end};
      if (plain.places[i].end == 0 || plain.places[j].end == 0 || span.begin >= span.end) continue;
      const auto start = static_cast<std::int64_t>(decode_utf8(text.substr(0, span.begin)).size());
      const TextRow found =
          row_of(Value::object({{"text", text.substr(span.begin, span.end - span.begin)}, {"start", start}}));
      ASSERT_EQ(found.places[static_cast<std::size_t>(found.truth[0])].begin, span.begin) << i << " " << j;
      ASSERT_EQ(found.places[static_cast<std::size_t>(found.truth[1])].end, span.end) << i << " " << j;
    }
  }
}

TEST_P(SpanRows, WhatIsNoSpanOfTokensIsNamed) {
  EXPECT_NE(message(R"({"verb": "answer", "question": "?", "text": "the mail", "output": "post"})")
                .find("'post' is not a part of 'text'"),
            std::string::npos);
  EXPECT_NE(
      message(R"({"verb": "answer", "question": "?", "text": "the mail", "output": "mai"})").find("inside a token"),
      std::string::npos)
      << message(R"({"verb": "answer", "question": "?", "text": "the mail", "output": "mai"})");
  EXPECT_NE(message(R"({"verb": "find", "text": "the mail", "output": {"tool": ["ail"]}})").find("inside a word"),
            std::string::npos);
  EXPECT_NE(message(R"({"verb": "find", "text": "the mail", "output": {"tool": ["the mail"], "place": "mail"}})")
                .find("overlaps"),
            std::string::npos);
}

TEST_P(SpanRows, EveryWordHasOneTag) {
  const TextRow row =
      rows(
          R"({"verb": "find", "text": "The library, a mail library 在数据库。", "output": {"tool": ["mail library", "library"], "place": "数据"}})")
          .front();
  ASSERT_EQ(row.parts.size(), row.truth.size());
  std::string words;
  for (std::size_t i = 0; i < row.parts.size(); ++i) {
    EXPECT_EQ(row.parts[i].end, row.parts[i].begin + 1);
    words += row.source->substr(row.places[i].begin, row.places[i].end - row.places[i].begin) + ":" +
             set_.instruction("find").output.labels[static_cast<std::size_t>(row.truth[i])] + " ";
  }
  const std::string latin = "The:O library:B-tool ,:O a:O mail:B-tool library:I-tool ";
  EXPECT_EQ(words.substr(0, latin.size()), latin);
  EXPECT_NE(words.find("B-place"), std::string::npos) << words;
}

// Windows of the text with what the template wrote around each: every word has its tag in one of them, and a span is in
// those that have it whole.
TEST_P(SpanRows, LongTextsBecomeWindows) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += i == 31 ? "数据库 " : "the mail, ";
  const TextOptions options{.cutoff = 48, .overflow = Overflow::kSplit};
  const std::vector<TextRow> tagged =
      rows(R"({"verb": "find", "text": ")" + text + R"(", "output": {"place": "数据库"}})", options);
  const std::vector<TextRow> whole =
      rows(R"({"verb": "find", "text": ")" + text + R"(", "output": {"place": "数据库"}})", {.cutoff = 4096});
  ASSERT_GT(tagged.size(), 3U);
  std::vector<ByteRange> places;
  std::vector<float> truth;
  for (const TextRow& row : tagged) {
    EXPECT_LE(row.tokens.size(), 48U);
    EXPECT_EQ(row.tokens.front(), whole[0].tokens.front());
    places.insert(places.end(), row.places.begin(), row.places.end());
    truth.insert(truth.end(), row.truth.begin(), row.truth.end());
  }
  EXPECT_EQ(places, whole[0].places);
  EXPECT_EQ(truth, whole[0].truth);
  EXPECT_EQ(by_example(tagged).size(), 1U);

  const std::vector<TextRow> spans =
      rows(R"({"verb": "answer", "question": "Where?", "text": ")" + text + R"(", "output": "数据库"})", options);
  int with = 0;
  for (const TextRow& row : spans) {
    EXPECT_EQ(row.tokens[1], spans[0].tokens[1]);  // the question
    if (row.truth[1] == 0) continue;
    ++with;
    EXPECT_EQ(text_of(row, row.truth[0], row.truth[1]), "数据库");
  }
  EXPECT_GE(with, 1);
  EXPECT_LT(with, static_cast<int>(spans.size()));
  EXPECT_NE(message(R"({"verb": "answer", "question": "Where?", "text": ")" + text + R"(", "output": "数据库"})",
                    {.cutoff = 48})
                .find("or split"),
            std::string::npos);
  EXPECT_NE(message(R"({"verb": "kind", "text": ")" + text + R"(", "output": "one"})", options).find("at most 48 fit"),
            std::string::npos);
}

TEST_P(SpanRows, AClozeHasAGapThatTheTemplateWroteAlone) {
  const TextRow row = rows(R"({"verb": "kind", "text": "A [MASK] <mask> tool.", "output": "two"})").front();
  ASSERT_NE(row.verbalisers, nullptr);
  ASSERT_EQ(row.parts.size(), row.verbalisers->masks);
  EXPECT_EQ(row.truth, std::vector<float>{1});
  EXPECT_EQ(std::count(row.tokens.begin(), row.tokens.end(), *tokenizer_.mask()),
            static_cast<std::ptrdiff_t>(row.parts.size()));
  // The words as the wording would have them there, by the official tokenizer of the whole text.
  const Verbalisers::Word word = row.verbalisers->labels[1][0];
  std::vector<std::int32_t> said;
  for (const auto& token : tokenizer_.encode_plain("A tool. It is a mail.")) said.push_back(token.id);
  EXPECT_NE(std::search(said.begin(), said.end(), word.begin(), word.end()), said.end());
  // A text that is too long is cut, never the gap.
  std::string longer;
  for (int i = 0; i < 40; ++i) longer += "the mail ";
  const TextRow cut =
      rows(R"({"verb": "kind", "text": ")" + longer + R"("})", {.cutoff = 40, .overflow = Overflow::kRight}).front();
  EXPECT_EQ(cut.tokens.size(), 40U);
  EXPECT_EQ(cut.parts.size(), row.parts.size());
}

TEST(Windows, CoverAllAndShareAThird) {
  const std::vector<Window> windows = windows_of(100, 30);
  EXPECT_EQ(windows.front().begin, 0U);
  EXPECT_EQ(windows.back().end, 100U);
  EXPECT_EQ(windows[1].begin, 20U);
  for (std::size_t i = 1; i < windows.size(); ++i) EXPECT_EQ(windows[i].own_begin, windows[i - 1].own_end);
  EXPECT_EQ(windows_of(20, 30).size(), 1U);
  EXPECT_THROW(windows_of(100, 5), Error);
}

TEST(MaskedTexts, AreWholeOrInPiecesWithTheirWords) {
  const tokenizers::Tokenizer tokenizer = tokenizer_of("bert");
  const instructions::InstructionSet none;
  const TextEncoder encoder(tokenizer, none);
  const Dataset dataset =
      parse_dataset("{\"text\": \"The library reads, the tool sorts mail and files.\"}\n", ".jsonl", "t.jsonl");
  TextReport report;
  const std::vector<TextRow> whole = encoder.encode_texts(dataset, row_indices(dataset), {}, report);
  ASSERT_EQ(whole.size(), 1U);
  EXPECT_EQ(whole[0].parts.size(), 11U);  // nine words, a comma and a full stop
  const std::vector<TextRow> pieces =
      encoder.encode_texts(dataset, row_indices(dataset), {.cutoff = 8, .overflow = Overflow::kSplit}, report);
  std::vector<std::int32_t> joined;
  for (const TextRow& piece : pieces) {
    EXPECT_LE(piece.tokens.size(), 8U);
    joined.insert(joined.end(), piece.tokens.begin() + 1, piece.tokens.end() - 1);
  }
  EXPECT_EQ(joined, std::vector<std::int32_t>(whole[0].tokens.begin() + 1, whole[0].tokens.end() - 1));
  EXPECT_THROW(encoder.encode_texts(dataset, row_indices(dataset), {.cutoff = 8}, report), Error);
  EXPECT_THROW(encoder.encode_texts(dataset, row_indices(dataset), {.cutoff = 2, .overflow = Overflow::kSplit}, report),
               Error);
}

}  // namespace
}  // namespace instruct::data
