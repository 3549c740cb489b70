#include "adapters/lora.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ops/engine.h"

namespace instruct::adapters {
namespace {

class Lora : public ::testing::Test {
 protected:
  nn::Linear layer(const std::string& name, std::int64_t outputs, std::int64_t inputs) {
    Tensor weight = Tensor::empty({outputs, inputs}, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < weight.elements(); ++i) weight.data<float>()[i] = static_cast<float>(i % 7) - 3.0F;
    return {.name = name, .weight = Variable(weight), .bias = {}, .branch = {}};
  }
  ops::Engine engine_{2};
};

TEST_F(Lora, FreshBranchesChangeNothingAndStartAsPeftDoes) {
  nn::Linear q = layer("model.layers.0.self_attn.q_proj", 6, 16);
  nn::Linear head = layer("lm_head", 9, 16);
  const std::vector<nn::Linear*> layers{&q, &head};
  const Variable x(Tensor::from_floats(std::vector<float>(16, 0.5F), {1, 16}, engine_.allocator()));
  const std::vector<float> before = q(engine_.context(), x).value().to_floats();
  {
    const auto adapter = LoraAdapter::create({.rank = 4, .alpha = 8, .target_modules = {"all-linear"}}, layers,
                                             DType::kF32, 5, engine_.allocator());
    ASSERT_EQ(adapter->modules().size(), 1U);  // the head is left alone
    EXPECT_EQ(q(engine_.context(), x).value().to_floats(), before);
    double most = 0;
    for (const float a : adapter->modules()[0].a.value().to_floats()) most = std::max(most, std::abs(double{a}));
    EXPECT_LE(most, 0.25);  // 1/sqrt(16)
    EXPECT_GT(most, 0.15);
    adapter->modules()[0].b.mutable_value().data<float>()[0] = 1.0F;
    EXPECT_NE(q(engine_.context(), x).value().to_floats(), before);
    // Merging gives the same output as the branch.
    nn::Linear merged = layer("merged", 6, 16);
    merge_low_rank(adapter->modules()[0].a.value(), adapter->modules()[0].b.value(), adapter->modules()[0].scale,
                   merged.weight.mutable_value());
    const std::vector<float> branch = q(engine_.context(), x).value().to_floats();
    const std::vector<float> folded = merged(engine_.context(), x).value().to_floats();
    for (std::size_t i = 0; i < branch.size(); ++i) EXPECT_NEAR(branch[i], folded[i], 1e-4);
  }
  EXPECT_EQ(q(engine_.context(), x).value().to_floats(), before);  // detached
}

TEST_F(Lora, ScaleFollowsRankAlphaAndPatterns) {
  LoraConfig config{.rank = 16, .alpha = 32};
  EXPECT_DOUBLE_EQ(config.scale_of("a.q_proj"), 2.0);
  config.rank_stabilised = true;
  EXPECT_DOUBLE_EQ(config.scale_of("a.q_proj"), 8.0);
  config.rank_pattern = {{"q_proj", 4}};
  config.alpha_pattern = {{"a.q_proj", 6}};
  EXPECT_DOUBLE_EQ(config.scale_of("a.q_proj"), 3.0);
  EXPECT_DOUBLE_EQ(config.scale_of("a.xq_proj"), 8.0);  // a suffix counts only at a dot
}

TEST_F(Lora, MistakesAreNamed) {
  nn::Linear q = layer("model.layers.0.self_attn.q_proj", 6, 16);
  const std::vector<nn::Linear*> layers{&q};
  try {
    LoraAdapter::create({.target_modules = {"q_prj"}}, layers, DType::kF32, 0, engine_.allocator());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("q_proj"), std::string::npos) << error.what();
  }
  EXPECT_THROW(
      LoraAdapter::create({.rank = 7, .target_modules = {"q_proj"}}, layers, DType::kF32, 0, engine_.allocator()),
      Error);
  const std::vector<LoraAdapter::Weights> wrong{{"model.layers.0.self_attn.q_proj",
                                                 Tensor::zeros({4, 15}, DType::kF32, engine_.allocator()),
                                                 Tensor::zeros({6, 4}, DType::kF32, engine_.allocator())}};
  EXPECT_THROW(LoraAdapter::load({}, wrong, layers, DType::kF32, engine_.allocator()), Error);
}

TEST_F(Lora, TheHeadIsRefused) {
  nn::Linear q = layer("model.layers.0.self_attn.q_proj", 6, 16);
  nn::Linear head = layer("lm_head", 9, 16);
  const std::vector<nn::Linear*> layers{&q, &head};
  const auto expect_refusal = [](const auto& act) {
    try {
      act();
      ADD_FAILURE() << "an adapter of the head";
    } catch (const Error& error) {
      EXPECT_EQ(error.category(), ErrorCategory::kUnsupported);
      EXPECT_NE(std::string(error.what()).find("lm_head"), std::string::npos) << error.what();
    }
  };
  expect_refusal([&] {
    LoraAdapter::create({.rank = 4, .target_modules = {"q_proj", "lm_head"}}, layers, DType::kF32, 0,
                        engine_.allocator());
  });
  const std::vector<LoraAdapter::Weights> stored{{"lm_head", Tensor::zeros({4, 16}, DType::kF32, engine_.allocator()),
                                                  Tensor::zeros({9, 4}, DType::kF32, engine_.allocator())}};
  expect_refusal([&] { LoraAdapter::load({.rank = 4}, stored, layers, DType::kF32, engine_.allocator()); });
}

}  // namespace
}  // namespace instruct::adapters
