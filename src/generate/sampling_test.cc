#include "generate/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "generate/test_support.h"
#include "ops/cross_entropy.h"

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
  for (std::int32_t i = 0; i < 3; ++i) sum += std::exp(ops::log_probability(logits, i));
  EXPECT_NEAR(sum, 1.0, 2e-7);  // powers in f32
}

// What is left, how likely, and in which order the cuts apply.
TEST(Sampling, CandidatesEqualTransformersProcessors) {
  const std::string path = INSTRUCT_GOLDENS "/generate/expected.json";
  const Value golden = parse_json(read_file(path), path).at("sampling");
  ASSERT_EQ(golden.size(), 39U);
  for (const Value& row : golden.as_array()) {
    SamplingOptions options;
    for (const auto& [name, value] : row.at("options").as_object()) {
      if (name == "temperature") options.temperature = value.as_double();
      if (name == "top_k") options.top_k = value.as_integer();
      if (name == "top_p") options.top_p = value.as_double();
      if (name == "min_p") options.min_p = value.as_double();
      if (name == "repetition_penalty") options.repetition_penalty = value.as_double();
    }
    std::vector<float> logits;
    for (const Value& logit : row.at("logits").as_array()) logits.push_back(static_cast<float>(logit.as_double()));
    penalise_repeats(logits, ids_of(row.at("seen")), options.repetition_penalty);
    const std::vector<Candidate> left = candidates(logits, options);
    double total = 0;
    for (const Candidate& candidate : left) total += candidate.weight;
    const Value& expected = row.at("left");
    EXPECT_EQ(left.size(), expected.size()) << dump_json(row.at("options"));
    for (const Candidate& candidate : left) {
      const Value* probability = expected.find(std::to_string(candidate.token));
      ASSERT_NE(probability, nullptr) << dump_json(row.at("options")) << " token " << candidate.token;
      // The golden's logits are written with six decimals; a temperature of 0.5 doubles that.
      EXPECT_NEAR(candidate.weight / total, probability->as_double(), 5e-6) << dump_json(row.at("options"));
    }
  }
}

TEST(Sampling, TokensThatCannotBeAreNeverDrawn) {
  std::vector<float> logits(50, -INFINITY);
  logits[17] = -3;
  logits[31] = -4;
  RandomStream random(1, RandomPurpose::kTest);
  for (int i = 0; i < 200; ++i) {
    for (const SamplingOptions& options :
         {SamplingOptions{.temperature = 5}, SamplingOptions{.temperature = 5, .top_p = 0.999},
          SamplingOptions{.temperature = 5, .top_k = 40}}) {
      const std::int32_t token = sample(logits, options, random);
      EXPECT_TRUE(token == 17 || token == 31);
    }
  }
}

}  // namespace
}  // namespace instruct::generate
