// Masks, overflow policies and gathered errors, with a byte-level tokenizer: a token is a byte or a special token.
#include "data/encode.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "data/overflow.h"
#include "instructions/test_support.h"

namespace instruct::data {
namespace {

using instructions::testing::error_of;
using instructions::testing::tiny_tokenizer;

constexpr const char* kTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

constexpr const char* kSet = R"(
name: notes
system: You note.
variables: {text: {type: text}}
instructions:
  summary: {inputs: [text], templates: ["{{ text }}\n\nSummarize this."], output: {type: text}}
  section: {inputs: [text], templates: ["{{ text }}\nSection?"], output: {type: label, labels: [games, libs]}}
  quote:   {inputs: [text], templates: ["{{ text }}\nQuote."], output: {type: span, from: text}}
)";

class Encoding : public ::testing::Test {
 public:
  std::string text_of(const EncodedRow& row) const { return tokenizer.decode(row.tokens); }
  std::string trained_of(const EncodedRow& row) const {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < row.tokens.size(); ++i) {
      if (row.trained[i] != 0) ids.push_back(row.tokens[i]);
    }
    return tokenizer.decode(ids);
  }
  std::vector<EncodedRow> encode(std::string_view jsonl, const EncodeOptions& options) {
    dataset = parse_dataset(jsonl, ".jsonl", "rows.jsonl");
    std::vector<std::int64_t> indices(dataset.examples.size());
    std::iota(indices.begin(), indices.end(), std::int64_t{0});
    report = {};
    return encoder.encode_all(dataset, indices, options, report);
  }

  tokenizers::Tokenizer tokenizer = tiny_tokenizer();
  instructions::DialogueEncoder dialogue{tokenizer, kTemplate, "test"};
  instructions::InstructionSet set = instructions::parse_instruction_set(kSet, "notes.iset.yaml");
  RowEncoder encoder{dialogue, &set};
  Dataset dataset;
  EncodeReport report;
};

// 200 characters of input, the same words as everywhere in these tests.
std::string long_text(int words = 40) {
  std::string text;
  for (int i = 0; i < words; ++i) text += fmt::format("w{:03} ", i);
  return text;
}
std::string summary_row(const std::string& text) {
  return dump_json(Value::object({{"verb", "summary"}, {"text", text}, {"output", "short"}})) + "\n";
}
const std::string kDialogue =
    R"({"messages": [{"role": "system", "content": "Sys."}, {"role": "user", "content": "first question"}, {"role": "assistant", "content": "answer one"},)"
    R"( {"role": "user", "content": "second question"}, {"role": "assistant", "content": "answer two"}, {"role": "user", "content": "third question"},)"
    R"( {"role": "assistant", "content": "answer three"}]})";

TEST_F(Encoding, AnswersAndTheirEndAreTrained) {
  const auto rows = encode(kDialogue, {});
  EXPECT_EQ(trained_of(rows[0]), "answer one<|im_end|>answer two<|im_end|>answer three<|im_end|>");
  EXPECT_EQ(trained_of(encode(kDialogue, {.mask = {.mask_history = true}})[0]), "answer three<|im_end|>");
  EXPECT_EQ(trained_of(encode(summary_row("A text."), {})[0]), "short<|im_end|>");
  EXPECT_TRUE(report.no_end.empty());
  EXPECT_EQ(trained_of(encode(R"({"prompt": "Q: 1+1\nA:", "completion": " 2"})", {})[0]), " 2<|endoftext|>");
  EXPECT_EQ(trained_of(encode(R"({"text": "abc"})", {})[0]), "bc<|endoftext|>");
}

TEST_F(Encoding, UsersCannotWriteSpecialTokens) {
  const auto rows = encode(R"({"instruction": "<|im_end|>", "output": "x"})", {});
  const std::int32_t end = *tokenizer.find("<|im_end|>");
  EXPECT_EQ(std::count(rows[0].tokens.begin(), rows[0].tokens.end(), end), 2);
}

TEST_F(Encoding, TooLongIsAnErrorUnlessAPolicySaysOtherwise) {
  const std::string error = error_of([&] { encode(summary_row(long_text()), {.cutoff = 100}); });
  EXPECT_NE(error.find("rows.jsonl: row 1 has 262 tokens, cutoff_len is 100"), std::string::npos) << error;
  const auto rows =
      encode(summary_row(long_text()) + summary_row("A text."), {.cutoff = 100, .overflow = Overflow::kDrop});
  EXPECT_EQ(rows.size(), 1U);
  EXPECT_EQ(report.dropped, std::vector<std::int64_t>{1});
  EXPECT_NE(error_of([&] {
              encode(summary_row(long_text()), {.cutoff = 100, .overflow = Overflow::kDrop});
            }).find("no row is left"),
            std::string::npos);
  EXPECT_NE(error_of([&] { encode(summary_row("x"), {.cutoff = 3}); }).find("at least 8"), std::string::npos);
}

TEST_F(Encoding, LeftCutsTheInputOfACallAndNothingElse) {
  for (const std::int64_t cutoff : {120, 200, 261}) {
    const auto rows = encode(summary_row(long_text()), {.cutoff = cutoff, .overflow = Overflow::kLeft});
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(static_cast<std::int64_t>(rows[0].tokens.size()), cutoff) << "a byte a token: the cut can be exact";
    const std::string text = text_of(rows[0]);
    EXPECT_TRUE(text.starts_with("<|im_start|>system\nYou note.<|im_end|>\n<|im_start|>user\n")) << text;
    EXPECT_TRUE(text.ends_with("w039 \n\nSummarize this.<|im_end|>\n<|im_start|>assistant\nshort<|im_end|>\n")) << text;
    EXPECT_EQ(trained_of(rows[0]), "short<|im_end|>");
    EXPECT_EQ(report.shortened, std::vector<std::int64_t>{1});
  }
  // Nothing worth reading would be left of it.
  EXPECT_NE(error_of([&] {
              encode(summary_row(long_text()), {.cutoff = 90, .overflow = Overflow::kLeft});
            }).find("no row is left"),
            std::string::npos);
}

TEST_F(Encoding, LeftNeverCutsACharacter) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "漢";
  for (std::int64_t cutoff = 130; cutoff < 136; ++cutoff) {
    const auto rows = encode(summary_row(text), {.cutoff = cutoff, .overflow = Overflow::kLeft});
    EXPECT_LE(static_cast<std::int64_t>(rows[0].tokens.size()), cutoff);
    EXPECT_GE(static_cast<std::int64_t>(rows[0].tokens.size()), cutoff - 2);
    EXPECT_EQ(text_of(rows[0]).find("\xEF\xBF\xBD"), std::string::npos);
  }
}

TEST_F(Encoding, LeftLeavesOutOldExchangesFirst) {
  const auto whole = encode(kDialogue, {});
  const auto length = static_cast<std::int64_t>(whole[0].tokens.size());
  const auto rows = encode(kDialogue, {.cutoff = length - 1, .overflow = Overflow::kLeft});
  EXPECT_EQ(trained_of(rows[0]), "answer two<|im_end|>answer three<|im_end|>");
  EXPECT_TRUE(text_of(rows[0]).starts_with("<|im_start|>system\nSys.<|im_end|>\n<|im_start|>user\nsecond question"));
}

TEST_F(Encoding, LeftKeepsAlpacasInstruction) {
  const std::string row =
      dump_json(Value::object({{"instruction", "Summarize the text."}, {"input", long_text()}, {"output", "short"}}));
  const auto rows = encode(row, {.cutoff = 120, .overflow = Overflow::kLeft});
  EXPECT_TRUE(text_of(rows[0]).starts_with("<|im_start|>user\nSummarize the text.\n"));
  EXPECT_NE(text_of(rows[0]).find("w039 <|im_end|>"), std::string::npos);
}

TEST_F(Encoding, ASpanIsNotCutOff) {
  const auto row = [](const std::string& span) {
    return dump_json(Value::object({{"verb", "quote"}, {"text", long_text()}, {"output", span}})) + "\n";
  };
  const auto rows = encode(row("w000") + row("w039"), {.cutoff = 150, .overflow = Overflow::kLeft});
  EXPECT_EQ(rows.size(), 1U);
  EXPECT_EQ(report.dropped, std::vector<std::int64_t>{1});
  EXPECT_EQ(trained_of(rows[0]), "w039<|im_end|>");
}

TEST_F(Encoding, SplitMakesDialoguesOfWholeExchanges) {
  const auto rows = encode(kDialogue, {.cutoff = 100, .overflow = Overflow::kSplit});
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(trained_of(rows[0]) + trained_of(rows[1]) + trained_of(rows[2]),
            "answer one<|im_end|>answer two<|im_end|>answer three<|im_end|>");
  for (const EncodedRow& row : rows) {
    EXPECT_LE(row.tokens.size(), 100U);
    EXPECT_TRUE(text_of(row).starts_with("<|im_start|>system\nSys.<|im_end|>"));
  }
  EXPECT_EQ(report.divided, std::vector<std::int64_t>{1});
  EXPECT_TRUE(report.no_end.empty());
  const auto kept =
      encode(summary_row(long_text()) + summary_row("A text."), {.cutoff = 100, .overflow = Overflow::kSplit});
  EXPECT_EQ(kept.size(), 1U) << "one question and answer cannot be split";
  EXPECT_EQ(report.dropped, std::vector<std::int64_t>{1});
}

TEST_F(Encoding, ErrorsOfRowsComeTogether) {
  const std::string error = error_of([&] {
    encode(R"({"verb": "section", "text": "t", "output": "gmaes"})"
           "\n"
           R"({"verb": "sumary", "text": "t", "output": "o"})"
           "\n"
           R"({"verb": "summary", "txt": "t", "output": "o"})"
           "\n"
           R"({"verb": "summary", "text": "t", "output": "o"})",
           {});
  });
  for (const char* expected : {"3 of 4 rows cannot be used", "row 1: ", "games", "row 2: ", "summary", "row 3: "}) {
    EXPECT_NE(error.find(expected), std::string::npos) << error;
  }
  EXPECT_NE(
      error_of([&] { encode(R"({"messages": [{"role": "user", "content": "x"}]})", {}); }).find("no trained token"),
      std::string::npos);
  const RowEncoder without(dialogue, nullptr);
  const std::vector<std::int64_t> all{0};
  dataset = parse_dataset(summary_row("x"), ".jsonl", "rows.jsonl");
  EXPECT_NE(error_of([&] { without.encode_all(dataset, all, {}, report); }).find("no instruction set was given"),
            std::string::npos);
}

TEST_F(Encoding, TemplatesWithoutAnEndAreReported) {
  const instructions::DialogueEncoder endless(tokenizer, "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
                                              "test");
  const RowEncoder other(endless, &set);
  dataset = parse_dataset(kDialogue, ".jsonl", "rows.jsonl");
  const std::vector<std::int64_t> all{0};
  other.encode_all(dataset, all, {}, report);
  EXPECT_EQ(report.no_end, std::vector<std::int64_t>{1});
}

TEST(Overflow, NamesAreChecked) {
  EXPECT_EQ(overflow_from_name("split"), Overflow::kSplit);
  EXPECT_NE(error_of([] { overflow_from_name("lift"); }).find("left"), std::string::npos);
}

RC_GTEST_PROP(Overflow, PiecesTrainEveryTokenOnce, ()) {
  EncodedRow row;
  const auto length = *rc::gen::inRange<std::size_t>(1, 100);
  const bool with_bos = *rc::gen::arbitrary<bool>();
  for (std::size_t i = 0; i < length; ++i) {
    row.tokens.push_back(static_cast<std::int32_t>(i));
    row.trained.push_back(i > 0 && *rc::gen::inRange(0, 4) > 0 ? 1 : 0);
  }
  const auto cutoff = *rc::gen::inRange<std::int64_t>(8, 40);
  const std::optional<std::int32_t> bos = with_bos ? std::optional<std::int32_t>(0) : std::nullopt;
  std::vector<std::pair<std::int32_t, std::int32_t>> trained, expected;  // token and the one before it
  for (std::size_t i = 1; i < length; ++i) {
    if (row.trained[i] != 0) expected.emplace_back(row.tokens[i - 1], row.tokens[i]);
  }
  for (const EncodedRow& piece : split_tokens(row, cutoff, bos)) {
    RC_ASSERT(static_cast<std::int64_t>(piece.tokens.size()) <= cutoff);
    if (bos) RC_ASSERT(piece.tokens.front() == *bos);
    for (std::size_t i = 1; i < piece.tokens.size(); ++i) {
      if (piece.trained[i] != 0) trained.emplace_back(piece.tokens[i - 1], piece.tokens[i]);
    }
  }
  RC_ASSERT(trained == expected);
}

}  // namespace
}  // namespace instruct::data
