#include "generate/writer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "generate/test_support.h"

namespace instruct::generate {
namespace {

class WriterTest : public ::testing::Test {
 protected:
  // Logits that leave no doubt about a token.
  std::vector<float> only(std::int32_t token) const {
    std::vector<float> logits(static_cast<std::size_t>(tiny_.tokenizer().vocabulary_size()), 0.0F);
    logits[static_cast<std::size_t>(token)] = 50.0F;
    return logits;
  }
  // Writes these tokens until the answer is complete; the text that was certain after each.
  std::vector<std::string> write(Writer& writer, const std::vector<std::int32_t>& tokens) const {
    std::vector<std::string> certain;
    for (const std::int32_t token : tokens) {
      std::vector<float> logits = only(token);
      const bool goes_on = writer.step(logits);
      certain.push_back(writer.answer().text);
      if (!goes_on) break;
    }
    return certain;
  }
  // Each byte as a token of its own.
  std::vector<std::int32_t> bytes(std::string_view text) const {
    std::vector<std::int32_t> ids;
    for (const char byte : text) ids.push_back(*tiny_.tokenizer().find(std::string(1, byte)));
    return ids;
  }
  std::int32_t end() const { return *tiny_.tokenizer().eos(); }

  TinyModel tiny_;
};

TEST_F(WriterTest, AnEndTokenEndsAndIsNotPartOfTheAnswer) {
  const Request request{.prompt = {2}};
  Writer writer(request, tiny_.tokenizer(), 100);
  std::vector<std::int32_t> tokens = bytes("ok");
  tokens.push_back(end());
  tokens.push_back(bytes("x").front());  // never asked for
  EXPECT_EQ(write(writer, tokens), (std::vector<std::string>{"o", "ok", "ok"}));
  EXPECT_EQ(writer.answer().tokens, bytes("ok"));
  EXPECT_EQ(writer.answer().finish, Finish::kStop);
  EXPECT_NEAR(writer.answer().log_probability, 0.0, 1e-12);  // three certain tokens
}

TEST_F(WriterTest, AStopTextAcrossTokensIsNeverShown) {
  const Request request{.prompt = {2}, .stop = {"\n\nQ:", "never"}};
  Writer writer(request, tiny_.tokenizer(), 100);
  // "\n" alone might start the stop text and is held back; when another letter follows it was none.
  const auto certain = write(writer, bytes("a\nb\n\nQ:c"));
  EXPECT_EQ(certain, (std::vector<std::string>{"a", "a", "a\nb", "a\nb", "a\nb", "a\nb", "a\nb"}));
  EXPECT_EQ(writer.answer().finish, Finish::kStop);
}

TEST_F(WriterTest, AStopTextWithinOneTokenCutsTheTokensText) {
  const std::vector<std::int32_t> word = tiny_.plain(" library");
  const Request request{.prompt = {2}, .stop = {"ibr"}};
  Writer writer(request, tiny_.tokenizer(), 100);
  write(writer, word);
  EXPECT_EQ(writer.answer().text, " l");
  EXPECT_EQ(writer.answer().finish, Finish::kStop);
}

TEST_F(WriterTest, TheEarliestStopTextCounts) {
  const Request request{.prompt = {2}, .stop = {"cd", "bcd", ""}};
  Writer writer(request, tiny_.tokenizer(), 100);
  write(writer, bytes("abcde"));
  EXPECT_EQ(writer.answer().text, "a");
}

TEST_F(WriterTest, AHeldBackStartOfAStopTextIsShownWhenTheAnswerEnds) {
  const Request request{.prompt = {2}, .max_new_tokens = 3, .stop = {"cdef"}};
  Writer writer(request, tiny_.tokenizer(), 100);
  EXPECT_EQ(write(writer, bytes("bcd")), (std::vector<std::string>{"b", "b", "bcd"}));
  EXPECT_EQ(writer.answer().finish, Finish::kLength);
}

TEST_F(WriterTest, CharactersAppearWholeAndBrokenOnesAsReplacements) {
  const Request request{.prompt = {2}};
  Writer writer(request, tiny_.tokenizer(), 100);
  std::vector<std::int32_t> tokens = bytes(
      "\xE8\xBD\xAF"
      "\xFF"
      "a\xF0\x9F\x98");  // 软, no character, a, half of one
  tokens.push_back(end());
  const std::string whole = "\xE8\xBD\xAF";
  const std::string broken = whole + "\xEF\xBF\xBD";
  EXPECT_EQ(write(writer, tokens), (std::vector<std::string>{"", "", whole, broken, broken + "a", broken + "a",
                                                             broken + "a", broken + "a", broken + "a\xEF\xBF\xBD"}));
  EXPECT_FALSE(find_invalid_utf8(writer.answer().text));
}

TEST_F(WriterTest, TheRoomOfTheContextEndsAnAnswer) {
  const Request request{.prompt = {2}, .max_new_tokens = 50};
  Writer writer(request, tiny_.tokenizer(), 2);
  EXPECT_EQ(write(writer, bytes("abc")).size(), 2U);
  EXPECT_EQ(writer.answer().finish, Finish::kLength);
}

TEST_F(WriterTest, SpecialTokensAreNoText) {
  const Request request{.prompt = {2}};
  Writer writer(request, tiny_.tokenizer(), 100);
  std::vector<std::int32_t> tokens{*tiny_.tokenizer().bos()};
  tokens.push_back(bytes("a").front());
  EXPECT_EQ(write(writer, tokens).back(), "a");
  EXPECT_EQ(writer.answer().tokens.size(), 2U);
}

TEST_F(WriterTest, ThePenaltyCountsPromptAndAnswer) {
  const std::int32_t a = bytes("a").front(), b = bytes("b").front(), c = bytes("c").front();
  const Request request{.prompt = {a}, .sampling = {.repetition_penalty = 2}};
  Writer writer(request, tiny_.tokenizer(), 100);
  for (const std::int32_t expected : {b, c}) {
    std::vector<float> logits(static_cast<std::size_t>(tiny_.tokenizer().vocabulary_size()), 0.0F);
    logits[static_cast<std::size_t>(a)] = 5;
    logits[static_cast<std::size_t>(b)] = 4;
    logits[static_cast<std::size_t>(c)] = 3;
    writer.step(logits);
    EXPECT_EQ(writer.answer().tokens.back(), expected);
  }
}

TEST_F(WriterTest, IgnoredEndsAndLogitsThatAreNotFinite) {
  const Request ignoring{.prompt = {2}, .ignore_end = true};
  Writer writer(ignoring, tiny_.tokenizer(), 100);
  std::vector<float> logits = only(end());
  EXPECT_TRUE(writer.step(logits));
  const Request request{.prompt = {2}};
  Writer broken(request, tiny_.tokenizer(), 100);
  std::vector<float> none(logits.size(), NAN);
  EXPECT_THROW(broken.step(none), Error);
}

}  // namespace
}  // namespace instruct::generate
