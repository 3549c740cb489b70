#include "generate/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

namespace instruct::generate {
namespace {

TEST(Sampling, GreedyTakesTheFirstLargest) {
  const std::vector<float> logits{1, 3, 3, 2};
  RandomStream random(1, RandomPurpose::kTest);
  EXPECT_EQ(sample(logits, {}, random), 1);
}

TEST(Sampling, DrawsFollowTheProbabilities) {
  const std::vector<float> logits{0.0F, std::log(2.0F), std::log(4.0F), std::log(1.0F)};
  RandomStream random(1, RandomPurpose::kTest);
  std::map<std::int32_t, double> counts;
  for (int i = 0; i < 40000; ++i) counts[sample(logits, {.temperature = 1}, random)] += 1.0 / 40000;
  // Standard error is below 0.0025.
  EXPECT_NEAR(counts[2], 0.5, 0.012);
  EXPECT_NEAR(counts[1], 0.25, 0.012);
  EXPECT_NEAR(counts[0], 0.125, 0.012);
}

TEST(Sampling, CutsKeepOnlyLikelyTokens) {
  const std::vector<float> logits{0.0F, std::log(2.0F), std::log(4.0F), std::log(1.0F)};
  RandomStream random(1, RandomPurpose::kTest);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(sample(logits, {.temperature = 1, .top_k = 1}, random), 2);
    EXPECT_EQ(sample(logits, {.temperature = 1, .top_p = 0.5}, random), 2);
    EXPECT_NE(sample(logits, {.temperature = 1, .min_p = 0.4}, random), 0);
    EXPECT_NE(sample(logits, {.temperature = 1, .top_k = 2}, random), 3);
  }
}

TEST(Sampling, PenaltyMovesBothSignsDownAndCountsEachTokenOnce) {
  std::vector<float> logits{2, -2, 1};
  const std::vector<std::int32_t> seen{0, 1, 0};
  penalise_repeats(logits, seen, 2.0);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, 1}));
}

TEST(Sampling, LogProbabilityIsNormalised) {
  const std::vector<float> logits{100, 101, 99};
  double sum = 0;
  for (std::int32_t i = 0; i < 3; ++i) sum += std::exp(log_probability(logits, i));
  EXPECT_NEAR(sum, 1.0, 1e-12);
}

}  // namespace
}  // namespace instruct::generate
