// Spans left out of texts: what goes where, how much, and that it follows from the random stream alone.
#include "data/denoise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace instruct::data {
namespace {

constexpr std::int32_t kStart = 0, kEnd = 1, kFirst = 1000;
const std::vector<std::int32_t> kSentinels{900, 901, 902, 903};

EncodedRow row_of(std::int64_t length, std::uint64_t place, const DenoiseOptions& options = {}) {
  std::vector<std::int32_t> text(static_cast<std::size_t>(length));
  std::iota(text.begin(), text.end(), kFirst);
  return denoised_row(text, kSentinels, kStart, kEnd, options, RandomStream(5, RandomPurpose::kTest, place));
}

// The text that source and answer are of; the number of spans.
std::vector<std::int32_t> put_together(const EncodedRow& row, std::size_t& spans) {
  const auto answer = row.tokens.begin() + row.source;
  EXPECT_EQ(*answer, kStart);
  EXPECT_EQ(row.tokens.back(), kEnd);
  EXPECT_EQ(*(answer - 1), kEnd);
  std::vector<std::int32_t> text;
  spans = 0;
  for (auto token = row.tokens.begin(); token + 1 != answer; ++token) {
    if (*token >= kFirst) {
      text.push_back(*token);
      continue;
    }
    EXPECT_EQ(*token, kSentinels[spans]);
    auto out = std::find(answer, row.tokens.end(), kSentinels[spans++]);
    EXPECT_NE(out, row.tokens.end());
    EXPECT_GE(*(out + 1), kFirst) << "an empty span";
    while (*++out >= kFirst) text.push_back(*out);
  }
  return text;
}

TEST(Denoise, SourceAndAnswerAreTheText) {
  for (const std::int64_t length : {2, 3, 5, 20, 21, 60, 500}) {
    for (std::uint64_t place = 0; place < 50; ++place) {
      const EncodedRow row = row_of(length, place);
      std::size_t spans = 0;
      const std::vector<std::int32_t> text = put_together(row, spans);
      ASSERT_EQ(static_cast<std::int64_t>(text.size()), length);
      for (std::size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], kFirst + static_cast<std::int32_t>(i));
      EXPECT_GE(row.tokens.front(), kFirst) << "the text begins with what stays";
      const std::int64_t out =
          std::clamp<std::int64_t>(std::llround(static_cast<double>(length) * 0.15), 1, length - 1);
      EXPECT_EQ(row.trained_tokens(), out + static_cast<std::int64_t>(spans) + 1);
      EXPECT_EQ(row.trained[static_cast<std::size_t>(row.source)], 0);
      EXPECT_LE(spans, kSentinels.size());
    }
  }
}

TEST(Denoise, EverySpanIsAsLikely) {
  // Of 20 tokens 6 in two spans: the first has 1 to 5 of them, each as often.
  std::vector<int> counts(6, 0);
  constexpr int kDraws = 5000;
  for (std::uint64_t place = 0; place < kDraws; ++place) {
    const EncodedRow row = row_of(20, place, {.rate = 0.3, .mean_length = 3});
    const auto first = std::find(row.tokens.begin() + row.source, row.tokens.end(), kSentinels[0]);
    const auto second = std::find(first, row.tokens.end(), kSentinels[1]);
    ++counts[static_cast<std::size_t>(second - first - 1)];
  }
  EXPECT_EQ(counts[0], 0);
  for (std::size_t i = 1; i < counts.size(); ++i) EXPECT_NEAR(counts[i], kDraws / 5, 5 * 28.3) << i;  // 5 deviations
}

TEST(Denoise, FollowsFromTheStream) {
  EXPECT_EQ(row_of(60, 3).tokens, row_of(60, 3).tokens);
  EXPECT_NE(row_of(60, 3).tokens, row_of(60, 4).tokens);
  EXPECT_THROW(row_of(1, 0), Error);
}

}  // namespace
}  // namespace instruct::data
