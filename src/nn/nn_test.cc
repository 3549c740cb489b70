#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "nn/key_value_cache.h"
#include "nn/rotary.h"
#include "ops/engine.h"

namespace instruct::nn {
namespace {

TEST(Rotary, PlainFrequenciesFallGeometrically) {
  const std::vector<double> f = rotary_frequencies({.theta = 10000, .width = 8}, 10);
  ASSERT_EQ(f.size(), 4U);
  EXPECT_DOUBLE_EQ(f[0], 1.0);
  EXPECT_NEAR(f[1], 0.1, 1e-12);
  EXPECT_NEAR(f[3], 0.001, 1e-12);
}

TEST(Rotary, LinearScalingDividesAndLlama3KeepsShortWavelengths) {
  const std::vector<double> plain = rotary_frequencies({.theta = 500000, .width = 128}, 10);
  const std::vector<double> linear =
      rotary_frequencies({.theta = 500000, .width = 128, .scaling = RotaryConfig::Scaling::kLinear, .factor = 4}, 10);
  const std::vector<double> llama3 =
      rotary_frequencies({.theta = 500000, .width = 128, .scaling = RotaryConfig::Scaling::kLlama3, .factor = 8}, 10);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(linear[i], plain[i] / 4);
  EXPECT_DOUBLE_EQ(llama3.front(), plain.front());
  EXPECT_DOUBLE_EQ(llama3.back(), plain.back() / 8);
}

TEST(Rotary, TablesHoldCosineAndSineOfTheAngle) {
  const auto allocator = tensor::make_host_allocator();
  const ops::RotaryTables tables = make_rotary_tables({.theta = 10000, .width = 4}, 3, 3, *allocator);
  EXPECT_FLOAT_EQ(tables.cosine.data<float>()[2 * 2 + 0], std::cos(2.0F));
  EXPECT_FLOAT_EQ(tables.sine.data<float>()[2 * 2 + 1], std::sin(0.02F));
}

TEST(KeyValueCache, PutsRowsIntoTheirSlots) {
  const auto allocator = tensor::make_host_allocator();
  ops::Engine engine(1);
  KeyValueCache cache(2, 5, 1, 3, tensor::DType::kF32, *allocator);
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const tensor::Tensor rows = tensor::Tensor::from_floats(values, {2, 3}, *allocator);
  const std::vector<std::int32_t> slots{4, 1};
  cache.store(engine.context(), 1, slots, rows, rows);
  EXPECT_EQ(cache.keys(1).data<float>()[4 * 3], 1.0F);
  EXPECT_EQ(cache.values(1).data<float>()[1 * 3 + 2], 6.0F);
  const tensor::Tensor zeros = tensor::Tensor::zeros({2, 3}, tensor::DType::kF32, *allocator);
  cache.store(engine.context(), 0, slots, zeros, zeros);
  EXPECT_EQ(cache.keys(0).data<float>()[4 * 3], 0.0F);
  EXPECT_EQ(cache.keys(1).data<float>()[4 * 3], 1.0F);  // layers do not share
  const std::vector<std::int32_t> outside{5, 0};
  EXPECT_THROW(cache.store(engine.context(), 0, outside, zeros, zeros), Error);
  EXPECT_EQ(cache.bytes_per_slot(), 2 * 2 * 3 * 4);
  EXPECT_EQ(KeyValueCache(2, 5, 1, 3, tensor::DType::kI8, *allocator).bytes_per_slot(), 2 * 2 * (3 + 4));
}

TEST(KeyValueCache, KeepsRangesAtItsFront) {
  ops::Engine engine(1);
  KeyValueCache cache(2, 8, 1, 1, tensor::DType::kF32, engine.allocator());
  const tensor::Tensor rows =
      tensor::Tensor::from_floats(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}, {8, 1}, engine.allocator());
  const std::vector<std::int32_t> slots{0, 1, 2, 3, 4, 5, 6, 7};
  for (const std::int64_t layer : {0, 1}) cache.store(engine.context(), layer, slots, rows, rows);
  const std::vector<tensor::KeyRange> ranges{{0, 1}, {2, 2}, {3, 6}, {7, 8}};
  cache.keep(ranges);
  for (const std::int64_t layer : {0, 1}) {
    EXPECT_EQ(cache.keys(layer).rows(0, 5).to_floats(), (std::vector<float>{0, 3, 4, 5, 7}));
    EXPECT_EQ(cache.values(layer).rows(0, 5).to_floats(), (std::vector<float>{0, 3, 4, 5, 7}));
  }
}

}  // namespace
}  // namespace instruct::nn
