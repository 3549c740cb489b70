// Masks: how many tokens are chosen and what becomes of them, by seed alone.
#include "data/masking.h"

#include <gtest/gtest.h>

#include <cmath>

namespace instruct::data {
namespace {

constexpr std::int32_t kMask = 4;
constexpr std::int64_t kVocabulary = 1000;

// Texts of words of one to three tokens, between two special tokens.
std::vector<TextRow> texts(std::size_t count, std::int64_t words) {
  std::vector<TextRow> rows(count);
  for (std::size_t i = 0; i < count; ++i) {
    rows[i].tokens = {2};
    for (std::int64_t word = 0; word < words; ++word) {
      const auto begin = static_cast<std::int64_t>(rows[i].tokens.size());
      for (std::int64_t part = 0; part <= word % 3; ++part)
        rows[i].tokens.push_back(static_cast<std::int32_t>(100 + word));
      rows[i].parts.push_back({begin, static_cast<std::int64_t>(rows[i].tokens.size())});
    }
    rows[i].tokens.push_back(3);
  }
  return rows;
}

// Within four standard deviations of what is expected of so many independent draws.
void expect_share(double count, double of, double share, const char* what) {
  EXPECT_NEAR(count, of * share, 4 * std::sqrt(of * share * (1 - share))) << what;
}

TEST(Masking, ChoosesAndReplacesAsOftenAsBertDoes) {
  const std::vector<TextRow> plain = texts(100, 600);
  const std::vector<TextRow> masked = masked_rows(plain, {.seed = 7}, kMask, kVocabulary);
  double tokens = 0, chosen = 0, masks = 0, kept = 0;
  for (std::size_t i = 0; i < masked.size(); ++i) {
    tokens += static_cast<double>(plain[i].tokens.size() - 2);
    chosen += static_cast<double>(masked[i].parts.size());
    ASSERT_EQ(masked[i].truth.size(), masked[i].parts.size());
    std::size_t part = 0;
    for (std::size_t at = 0; at < plain[i].tokens.size(); ++at) {
      const bool is_part =
          part < masked[i].parts.size() && masked[i].parts[part].begin == static_cast<std::int64_t>(at);
      if (!is_part) {
        ASSERT_EQ(masked[i].tokens[at], plain[i].tokens[at]);  // what is not chosen stays
        continue;
      }
      ASSERT_EQ(masked[i].truth[part++], static_cast<float>(plain[i].tokens[at]));
      masks += masked[i].tokens[at] == kMask ? 1 : 0;
      kept += masked[i].tokens[at] == plain[i].tokens[at] ? 1 : 0;
    }
  }
  expect_share(chosen, tokens, 0.15, "chosen");
  expect_share(masks, chosen, 0.8 + 0.1 / kVocabulary, "masked");
  expect_share(kept, chosen, 0.1 + 0.1 / kVocabulary, "kept");
}

TEST(Masking, FollowsFromSeedAndEpochAlone) {
  const std::vector<TextRow> plain = texts(3, 60);
  const auto tokens = [&](const MaskingOptions& options) {
    std::vector<std::vector<std::int32_t>> all;
    for (const TextRow& row : masked_rows(plain, options, kMask, kVocabulary)) all.push_back(row.tokens);
    return all;
  };
  EXPECT_EQ(tokens({.seed = 1, .epoch = 2}), tokens({.seed = 1, .epoch = 2}));
  EXPECT_NE(tokens({.seed = 1, .epoch = 2}), tokens({.seed = 1, .epoch = 3}));
  EXPECT_NE(tokens({.seed = 1, .epoch = 2}), tokens({.seed = 2, .epoch = 2}));
  const auto same = tokens({.seed = 1});
  EXPECT_NE(same[0], same[1]);  // texts that are alike are masked each on its own
}

TEST(Masking, TakesWholeWordsWhereThatIsAsked) {
  const std::vector<TextRow> plain = texts(50, 300);
  double words = 0, chosen = 0;
  for (const TextRow& row : masked_rows(plain, {.whole_words = true, .seed = 3}, kMask, kVocabulary)) {
    std::vector<bool> is_part(row.tokens.size(), false);
    for (const tensor::KeyRange& part : row.parts) is_part[static_cast<std::size_t>(part.begin)] = true;
    for (const tensor::KeyRange& word : plain[0].parts) {
      ++words;
      chosen += is_part[static_cast<std::size_t>(word.begin)] ? 1 : 0;
      for (std::int64_t at = word.begin; at < word.end; ++at)
        ASSERT_EQ(is_part[static_cast<std::size_t>(at)], is_part[static_cast<std::size_t>(word.begin)]);
    }
  }
  expect_share(chosen, words, 0.15, "words");
}

TEST(Masking, LeavesOutOneTokenAtLeast) {
  const std::vector<TextRow> masked = masked_rows(texts(20, 1), {.rate = 0}, kMask, kVocabulary);
  for (const TextRow& row : masked) EXPECT_EQ(row.parts.size(), 1U);
}

}  // namespace
}  // namespace instruct::data
