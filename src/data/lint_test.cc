#include "data/lint.h"

#include <gtest/gtest.h>

#include <set>

#include "base/json.h"
#include "base/random.h"
#include "data/duplicates.h"
#include "instructions/test_support.h"

namespace instruct::data {
namespace {

using instructions::testing::tiny_tokenizer;

constexpr const char* kTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}";

constexpr const char* kSet = R"(
name: notes
variables: {text: {type: text}}
instructions:
  summary: {inputs: [text], templates: ["{{ text }}\nSummarize."], output: {type: text}}
  section: {inputs: [text], templates: ["{{ text }}\nSection?"], output: {type: label, labels: [games, libs, sound]}}
)";

const Finding* find(const LintReport& report, std::string_view check) {
  for (const Finding& finding : report.findings) {
    if (finding.check == check) return &finding;
  }
  return nullptr;
}

std::vector<std::int64_t> rows_of(const LintReport& report, std::string_view check) {
  const Finding* finding = find(report, check);
  return finding == nullptr ? std::vector<std::int64_t>{} : finding->rows;
}

class Linting : public ::testing::Test {
 public:
  LintReport check(std::string_view jsonl, const EncodeOptions& options = {}, std::string_view held_out = {}) {
    std::vector<RowProblem> problems;
    const Dataset dataset = parse_dataset(jsonl, ".jsonl", "rows.jsonl", {}, &problems);
    const Dataset other = held_out.empty() ? Dataset{} : parse_dataset(held_out, ".jsonl", "test.jsonl");
    return lint(dataset, problems, held_out.empty() ? nullptr : &other, &encoder, {.encode = options});
  }
  tokenizers::Tokenizer tokenizer = tiny_tokenizer({{"~", "~"}}, true);
  instructions::DialogueEncoder dialogue{tokenizer, kTemplate, "test"};
  instructions::InstructionSet set = instructions::parse_instruction_set(kSet, "notes.iset.yaml");
  RowEncoder encoder{dialogue, &set};
};

using Rows = std::vector<std::int64_t>;

TEST_F(Linting, GoodRowsHaveNoFinding) {
  const LintReport report = check(
      R"({"messages": [{"role": "user", "content": "How do I count lines?"}, {"role": "assistant", "content": "wc -l"}]})"
      "\n"
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "And words in a file?"}, {"role": "assistant", "content": "wc -w"}]})");
  EXPECT_TRUE(report.findings.empty()) << lint_text(report);
  EXPECT_FALSE(report.has_errors());
  EXPECT_EQ(report.rows, 2);
  EXPECT_EQ(report.trained_tokens, 2 * 6) << "five bytes and the end of the turn";
  EXPECT_NE(lint_text(report).find("Nothing found."), std::string::npos);
}

TEST_F(Linting, UnreadableRows) {
  const LintReport report = check("{\"text\": \"one good row\"}\n{\n{\"text\": \"\xff\"}\n{\"txt\": 1}\n");
  EXPECT_EQ(rows_of(report, "unreadable"), (Rows{2, 4}));
  EXPECT_EQ(rows_of(report, "invalid-utf8"), Rows{3});
  EXPECT_TRUE(report.has_errors());
}

TEST_F(Linting, RowsThatTrainNothingOrNoEnd) {
  const LintReport report = check(
      R"({"messages": [{"role": "user", "content": "only a question"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "a question"}, {"role": "assistant", "content": ""}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "another question, longer"}, {"role": "assistant", "content": "yes"}]})");
  EXPECT_EQ(rows_of(report, "no-answer"), Rows{1});
  EXPECT_EQ(rows_of(report, "empty-output"), Rows{2});
  EXPECT_FALSE(rows_of(report, "zero-mask").empty());
  EXPECT_EQ(rows_of(report, "zero-mask").front(), 1);
  const instructions::DialogueEncoder endless(tokenizer, "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
                                              "test");
  const RowEncoder other(endless, nullptr);
  const Dataset dataset = parse_dataset(R"({"instruction": "q", "output": "a"})", ".jsonl", "x");
  EXPECT_EQ(rows_of(lint(dataset, {}, nullptr, &other, {}), "no-end"), Rows{1});
}

TEST_F(Linting, PromptsThatTheRowDoesNotFollow) {
  const instructions::DialogueEncoder thinks(
      tokenizer,
      "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
      "{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: <think>{% endif "
      "%}",
      "test");
  const RowEncoder other(thinks, nullptr);
  const Dataset dataset = parse_dataset(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "a", "reasoning_content": "h"}]})",
      ".jsonl", "x");
  EXPECT_EQ(rows_of(lint(dataset, {}, nullptr, &other, {}), "prompt-differs"), Rows{1});
}

TEST_F(Linting, OrderOfTurns) {
  const LintReport report = check(
      R"({"messages": [{"role": "user", "content": "aaaaaaaaaaaaaa"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]})"
      "\n"
      R"({"messages": [{"role": "assistant", "content": "dddddddddddddd"}, {"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "gggggggggggggg"}, {"role": "system", "content": "h"}, {"role": "assistant", "content": "i"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "jjjjjjjjjjjjjj"}, {"role": "assistant", "content": "k"}, {"role": "user", "content": "l"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "mmmmmmmmmmmmmm"}, {"role": "tool", "content": "n"}, {"role": "assistant", "content": "o"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "pppppppppppppp"}, {"role": "assistant", "content": "q"}, {"role": "tool", "content": "r"}, {"role": "assistant", "content": "s"}]})");
  EXPECT_EQ(rows_of(report, "role-order"), (Rows{1, 2, 3, 4, 5})) << lint_text(report);
}

TEST_F(Linting, TemplatedTextAndDoubleBos) {
  const LintReport report = check(R"({"text": "<s>User: hello there"})"
                                  "\n"
                                  R"({"text": "a plain text about <|im_end|> tokens"})"
                                  "\n"
                                  R"({"text": "another plain text"})");
  EXPECT_EQ(rows_of(report, "double-bos"), Rows{1});
  EXPECT_EQ(rows_of(report, "special-text"), (Rows{1, 2}));
}

TEST_F(Linting, InstructionRowsAgainstTheirSet) {
  const LintReport report =
      check(R"({"verb": "section", "text": "Snakes eat apples on a terminal.", "output": "games"})"
            "\n"
            R"({"verb": "section", "text": "A drum machine with patterns.", "output": "sounds"})"
            "\n"
            R"({"verb": "sections", "text": "Reads and writes PNG files.", "output": "libs"})");
  EXPECT_EQ(rows_of(report, "unusable"), (Rows{2, 3}));
  EXPECT_NE(find(report, "unusable")->message.find("did you mean"), std::string::npos) << lint_text(report);
  ASSERT_NE(find(report, "unseen-label:section"), nullptr);
  EXPECT_NE(find(report, "unseen-label:section")->message.find("libs, sound"), std::string::npos);
}

TEST_F(Linting, LengthsAndOverflow) {
  std::string rows;
  for (int i = 0; i < 10; ++i)
    rows += fmt::format("{{\"text\": \"{}\"}}\n",
                        std::string(static_cast<std::size_t>(100 * (i + 1) - 2), static_cast<char>('a' + i)));
  const LintReport report = check(rows, {.cutoff = 500});
  EXPECT_EQ(report.row_lengths.minimum, 100) << "bos and eos are added";
  EXPECT_EQ(report.row_lengths.maximum, 1000);
  EXPECT_EQ(report.row_lengths.median, 500);
  EXPECT_EQ(report.row_lengths.p90, 900);
  EXPECT_EQ(rows_of(report, "overflow"), (Rows{6, 7, 8, 9, 10}));
  EXPECT_EQ(find(report, "overflow")->severity, Severity::kError);
  EXPECT_EQ(find(check(rows, {.cutoff = 500, .overflow = Overflow::kLeft}), "overflow")->severity, Severity::kWarning);
  for (const OverflowLine& line : report.overflow) {
    if (line.cutoff != 500) continue;
    EXPECT_EQ(line.rows, 5);
    EXPECT_EQ(line.tokens, 100 + 200 + 300 + 400 + 500);
  }
}

TEST_F(Linting, DuplicatesContradictionsAndLeaks) {
  const std::string fox = "The quick brown fox jumps over the lazy dog and then runs back home through the dark forest";
  const auto row = [](const std::string& text, const std::string& output) {
    return dump_json(Value::object({{"verb", "summary"},
                                    {"text", text},
                                    {"output", output},
                                    {"id", text.size() + output.size() > 0 ? output + "!" : ""}})) +
           "\n";
  };
  const LintReport report =
      check(row(fox, "fox") + row("THE QUICK  " + fox.substr(10), "fox") + row(fox, "a dog") +
                row(fox + " again", "fox") + row("Something else altogether, about ships.", "ships"),
            {}, row(fox, "x") + row(fox + " twice", "x") + row("Nothing of the kind.", "x"));
  EXPECT_EQ(rows_of(report, "duplicate"), Rows{2}) << lint_text(report);
  EXPECT_EQ(rows_of(report, "contradiction"), Rows{3});
  EXPECT_EQ(rows_of(report, "near-duplicate"), Rows{4});
  EXPECT_EQ(rows_of(report, "leak"), Rows{1});
  EXPECT_EQ(rows_of(report, "near-leak"), Rows{2});
  const Value value = lint_value(report);
  EXPECT_FALSE(value.at("ok").as_bool());
  EXPECT_EQ(value.at("findings").size(), report.findings.size());
  EXPECT_EQ(parse_json(dump_json(value), "x"), value);
}

TEST(Duplicates, AgreeWithComparingEveryPair) {
  RandomStream random(5, RandomPurpose::kTest);
  std::vector<std::string> texts;
  for (int i = 0; i < 150; ++i) {
    std::string text;
    if (i > 0 && random.next_below(2) == 0) {
      text = texts[random.next_below(texts.size())];
      for (std::uint64_t k = random.next_below(6); k > 0; --k)
        text[random.next_below(text.size())] = static_cast<char>('a' + random.next_below(26));
    } else {
      for (int k = 0; k < 200; ++k) text += static_cast<char>('a' + random.next_below(26));
    }
    texts.push_back(text);
  }
  const auto pieces = [](const std::string& text) {
    std::set<std::string> result;
    for (std::size_t i = 0; i + 9 <= text.size(); ++i) result.insert(text.substr(i, 9));
    return result;
  };
  std::vector<std::set<std::string>> all;
  for (const std::string& text : texts) all.push_back(pieces(text));
  std::set<std::size_t> expected;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      std::size_t both = 0;
      for (const std::string& piece : all[i]) both += all[j].count(piece);
      if (static_cast<double>(both) >= 0.8 * static_cast<double>(all[i].size() + all[j].size() - both))
        expected.insert(i);
    }
  }
  std::set<std::size_t> found;
  for (const Duplicate& duplicate : find_duplicates(texts)) found.insert(duplicate.index);
  ASSERT_GT(expected.size(), 25U);
  EXPECT_EQ(found, expected);
}

TEST(Duplicates, FoldingAndOddTexts) {
  EXPECT_EQ(folded("  A\t b\n\nC "), "a b c");
  const std::vector<std::string> texts{"", "x", "", "漢字の短い文", "漢字の短い文", "\xff\xfe"};
  const std::vector<Duplicate> found = find_duplicates(texts);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].index, 2U);
  EXPECT_EQ(found[1].of, 3U);
  EXPECT_TRUE(find_duplicates({}).empty());
}

TEST(Summary, QuantilesByNearestRank) {
  const LengthSummary summary = summary_of({3, 1, 2});
  EXPECT_EQ(summary.minimum, 1);
  EXPECT_EQ(summary.median, 2);
  EXPECT_EQ(summary.p99, 3);
  EXPECT_DOUBLE_EQ(summary.mean, 2.0);
  EXPECT_EQ(summary_of({}).maximum, 0);
}

}  // namespace
}  // namespace instruct::data
