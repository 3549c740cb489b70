#include "instructions/selector.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace instruct::instructions {
namespace {

std::vector<std::string> parts(std::string_view text, TextUnit unit) {
  std::vector<std::string> result;
  for (const ByteRange& range : segment(text, unit))
    result.emplace_back(text.substr(range.begin, range.end - range.begin));
  return result;
}

std::vector<std::string> selected(const std::string& text, std::string_view selector) {
  SegmentedText document(text);
  std::vector<std::string> result;
  for (const ByteRange& range : document.select(parse_selector(selector))) {
    result.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return result;
}

template <typename Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

using Texts = std::vector<std::string>;

TEST(Segmentation, ParagraphsEndAtBlankLines) {
  EXPECT_EQ(parts("One\ntwo.\n\n \t\nThree.\r\n\r\nFour", TextUnit::kParagraph),
            (Texts{"One\ntwo.", "Three.", "Four"}));
  EXPECT_EQ(parts("\n\n  Only one.  \n\n", TextUnit::kParagraph), Texts{"Only one."});
  EXPECT_TRUE(parts("", TextUnit::kParagraph).empty());
  EXPECT_TRUE(parts(" \n \n", TextUnit::kParagraph).empty());
}

TEST(Segmentation, AnIdeographicIndentStartsAParagraph) {
  EXPECT_EQ(parts("　　第一段。\n续行\n　　第二段。", TextUnit::kParagraph), (Texts{"第一段。\n续行", "第二段。"}));
}

TEST(Segmentation, EnglishSentences) {
  EXPECT_EQ(parts("It works. Does it? Yes! \"Really.\" (It does.) Fine", TextUnit::kSentence),
            (Texts{"It works.", "Does it?", "Yes!", "\"Really.\"", "(It does.)", "Fine"}));
  EXPECT_EQ(parts("GNU grep 3.8 is fast, e.g. for logs. See example.org or J. Smith et al. (2001). Done.",
                  TextUnit::kSentence),
            (Texts{"GNU grep 3.8 is fast, e.g. for logs.", "See example.org or J. Smith et al. (2001).", "Done."}));
  EXPECT_EQ(parts("This package contains the library. libfoo is small... and quick.", TextUnit::kSentence),
            (Texts{"This package contains the library.", "libfoo is small... and quick."}));
  EXPECT_EQ(parts("Foo Inc. makes it. Tools, docs, etc. The rest is free. See No. 5 of it.", TextUnit::kSentence),
            (Texts{"Foo Inc. makes it.", "Tools, docs, etc.", "The rest is free.", "See No. 5 of it."}));
}

TEST(Segmentation, SentencesStayInTheirParagraphAndBulletsStartOne) {
  EXPECT_EQ(parts("A title without stop\n\nNext. Features:\n * fast\n * small and\n   neat\n", TextUnit::kSentence),
            (Texts{"A title without stop", "Next.", "Features:", "* fast", "* small and\n   neat"}));
}

TEST(Segmentation, ChineseSentences) {
  EXPECT_EQ(parts("他说：“你好！”然后走了。真的吗？？是的。版本2.0发布", TextUnit::kSentence),
            (Texts{"他说：“你好！”", "然后走了。", "真的吗？？", "是的。", "版本2.0发布"}));
  EXPECT_EQ(parts("GNU 工具. 第二句。", TextUnit::kSentence), (Texts{"GNU 工具.", "第二句。"}));
}

TEST(Segmentation, LinesAndWords) {
  EXPECT_EQ(parts("a b\n\n  c\r\n", TextUnit::kLine), (Texts{"a b", "c"}));
  EXPECT_EQ(parts("two words,中文 和 more", TextUnit::kWord), (Texts{"two", "words,", "中", "文", "和", "more"}));
}

// Whatever the bytes, ranges are ordered, disjoint, not empty and inside the text.
TEST(Segmentation, BrokenTextIsCutWithoutHarm) {
  std::string text;
  for (int i = 0; i < 4096; ++i) text += static_cast<char>((i * 7919 + i / 13) & 0xFF);
  for (const TextUnit unit :
       {TextUnit::kDocument, TextUnit::kParagraph, TextUnit::kSentence, TextUnit::kLine, TextUnit::kWord}) {
    std::size_t last = 0;
    for (const ByteRange& range : segment(text, unit)) {
      EXPECT_LE(last, range.begin);
      EXPECT_LT(range.begin, range.end);
      EXPECT_LE(range.end, text.size());
      last = range.end;
    }
  }
}

struct Form {
  const char* text;
  const char* canonical;
};

class SelectorForms : public testing::TestWithParam<Form> {};

TEST_P(SelectorForms, AreReadAndPrinted) {
  const Selector selector = parse_selector(GetParam().text);
  EXPECT_EQ(print_selector(selector), GetParam().canonical);
  EXPECT_EQ(parse_selector(print_selector(selector)), selector);
}

INSTANTIATE_TEST_SUITE_P(
    Table, SelectorForms,
    testing::Values(Form{"1st paragraph", "1st paragraph"}, Form{"First Paragraph", "1st paragraph"},
                    Form{"the 2nd sentence", "2nd sentence"}, Form{"third line", "3rd line"},
                    Form{"11th line", "11th line"}, Form{"112th word", "112th word"}, Form{"21st word", "21st word"},
                    Form{"paragraph 7", "7th paragraph"}, Form{"last paragraph", "last paragraph"},
                    Form{"second last paragraph", "2nd last paragraph"},
                    Form{"3rd to last sentence", "3rd last sentence"}, Form{"paragraphs 2-4", "paragraphs 2-4"},
                    Form{"sentences 1 to 3", "sentences 1-3"}, Form{"paragraphs 2–4", "paragraphs 2-4"},
                    Form{"paragraphs 3-last", "paragraphs 3-last"}, Form{"paragraphs 3-end", "paragraphs 3-last"},
                    Form{"words 1-50", "words 1-50"}, Form{"first 3 sentences", "sentences 1-3"},
                    Form{"first three sentences", "sentences 1-3"}, Form{"last 2 paragraphs", "last 2 paragraphs"},
                    Form{"every sentence", "every sentence"}, Form{"each line", "every line"}, Form{"all", "document"},
                    Form{"document", "document"}, Form{"whole document", "document"}, Form{"第1段", "1st paragraph"},
                    Form{"第一段", "1st paragraph"}, Form{"第2句", "2nd sentence"}, Form{"第十二行", "12th line"},
                    Form{"第二十三个句子", "23rd sentence"}, Form{"第一百零五段", "105th paragraph"},
                    Form{"最后一段", "last paragraph"}, Form{"倒数第二段", "2nd last paragraph"},
                    Form{"每一段", "every paragraph"}, Form{"每句", "every sentence"},
                    Form{"每个句子", "every sentence"}, Form{"第2-4段", "paragraphs 2-4"},
                    Form{"第2到4段", "paragraphs 2-4"}, Form{"第2段到第4段", "paragraphs 2-4"},
                    Form{"第2段至最后一段", "paragraphs 2-last"}, Form{"前三句", "sentences 1-3"},
                    Form{"后两段", "last 2 paragraphs"}, Form{"首段", "1st paragraph"}, Form{"全文", "document"},
                    Form{"前50个词", "words 1-50"}));

class BadSelectors : public testing::TestWithParam<Form> {};

TEST_P(BadSelectors, SayWhy) {
  EXPECT_EQ(error_of([] { parse_selector(GetParam().text); }),
            std::string("selector '") + GetParam().text + "': " + GetParam().canonical);
}

constexpr const char* kForms =
    "expected a form such as '1st paragraph', 'last sentence', 'paragraphs 2-4', 'first 3 lines', 'every sentence' or "
    "'document'";

INSTANTIATE_TEST_SUITE_P(
    Table, BadSelectors,
    testing::Values(Form{"", "it is empty"},
                    Form{"1st paragrahp", "unknown unit 'paragrahp'; did you mean 'paragraph'?"},
                    Form{"every chapter", "unknown unit 'chapter'; known: paragraph, sentence, line, word"},
                    Form{"paragraphs 4-2", "it ends before it starts"}, Form{"0th line", "units are counted from 1"},
                    Form{"line 99999999999999999999", "the number is too large"},
                    Form{"all paragraphs", "say 'every paragraph' for one call each, or 'document' for the whole text"},
                    Form{"paragraphs", kForms}, Form{"paragraphs 1-2-3", kForms}, Form{"paragraphs -3", kForms},
                    Form{"第段", "a number is missing"}, Form{"第x段", "'x' is not a number"},
                    Form{"第三章", "it names no unit: 段 (paragraph), 句 (sentence), 行 (line) or 词 (word)"}));

TEST(Selector, SelectsRanges) {
  const std::string text = "One. Two.\n\nThree. Four. Five.\n\nSix.";
  EXPECT_EQ(selected(text, "2nd paragraph"), Texts{"Three. Four. Five."});
  EXPECT_EQ(selected(text, "last sentence"), Texts{"Six."});
  EXPECT_EQ(selected(text, "second last sentence"), Texts{"Five."});
  EXPECT_EQ(selected(text, "sentences 2-4"), Texts{"Two.\n\nThree. Four."});
  EXPECT_EQ(selected(text, "last 2 paragraphs"), Texts{"Three. Four. Five.\n\nSix."});
  EXPECT_EQ(selected(text, "every paragraph"), (Texts{"One. Two.", "Three. Four. Five.", "Six."}));
  EXPECT_EQ(selected(text, "document"), Texts{text});
}

TEST(Selector, PastTheEndNamesHowManyThereAre) {
  const std::string text = "One.\n\nTwo.";
  EXPECT_EQ(error_of([&] { selected(text, "5th paragraph"); }),
            "selector '5th paragraph': the document has 2 paragraphs");
  EXPECT_EQ(error_of([&] { selected("One.", "2nd sentence"); }),
            "selector '2nd sentence': the document has 1 sentence");
  EXPECT_EQ(error_of([&] { selected(text, "third last line"); }), "selector '3rd last line': the document has 2 lines");
  EXPECT_EQ(error_of([&] { selected(text, "paragraphs 2-3"); }),
            "selector 'paragraphs 2-3': the document has 2 paragraphs");
  EXPECT_EQ(error_of([&] { selected(" \n ", "document"); }), "selector 'document': the document has no text");
  EXPECT_EQ(error_of([&] { selected("", "every line"); }), "selector 'every line': the document has no text");
}

TEST(Selector, WithinCutsARangeAtTheEnd) {
  SegmentedText document("a b c d e");
  EXPECT_EQ(document.select_within(parse_selector("words 4-6")), (ByteRange{6, 9}));
  EXPECT_EQ(document.select_within(parse_selector("words 6-8")), std::nullopt);
}

}  // namespace
}  // namespace instruct::instructions
