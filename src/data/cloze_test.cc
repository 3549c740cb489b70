// Labels scored by words at a gap.
#include "data/cloze.h"

#include <gtest/gtest.h>

#include <cmath>

namespace instruct::data {
namespace {

TEST(ClozeScores, AreMeansOverWordsOfMeansOverTokens) {
  const Verbalisers verbalisers{.labels = {{{7}, {11, 12}}, {{9}}}, .masks = 2};
  ClozeScores gaps;
  gaps.add(verbalisers, 0);
  gaps.add(verbalisers, 2);
  EXPECT_EQ(gaps.targets(), (std::vector<std::int32_t>{7, 11, 12, 9, 7, 11, 12, 9}));
  EXPECT_EQ(gaps.rows(), (std::vector<std::int32_t>{0, 0, 1, 0, 2, 2, 3, 2}));
  const std::vector<float> found{-1, -2, -4, -3, -5, -6, -8, -1};
  const std::vector<std::vector<double>> scores = gaps.of(found);
  EXPECT_EQ(scores, (std::vector<std::vector<double>>{{-2, -3}, {-6, -1}}));
  // Of the scores' sum with factors, by each log P.
  const std::vector<float> weights = gaps.weights({{1, 0}, {0, 2}});
  EXPECT_EQ(weights, (std::vector<float>{0.5F, 0.25F, 0.25F, 0, 0, 0, 0, 2}));
  const std::vector<double> logs = log_softmax(scores[0]);
  EXPECT_NEAR(std::exp(logs[0]) + std::exp(logs[1]), 1, 1e-12);
  EXPECT_NEAR(logs[0] - logs[1], 1, 1e-12);
}

}  // namespace
}  // namespace instruct::data
