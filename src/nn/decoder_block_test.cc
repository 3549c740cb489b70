// The gradient of a whole block, whose backward pass computes forgotten values again.
#include "nn/decoder_block.h"

#include <gtest/gtest.h>

#include "nn/rotary.h"
#include "ops/checkpoint.h"
#include "ops/engine.h"
#include "ops/gradient_check.h"

namespace instruct::nn {
namespace {

using autograd::Tape;
using tensor::DType;

constexpr std::int64_t kTokens = 5;
constexpr std::int64_t kWidth = 8;

class DecoderBlockGradient : public ::testing::Test {
 protected:
  DecoderBlockGradient() {
    block_.rotary = 0;
    block_.attention = {.head_width = 4, .scale = 0.5F};
    block_.attention_norm = rms_norm(Variable(random({kWidth})));
    block_.feed_forward_norm = rms_norm(Variable(random({kWidth})));
    block_.query = linear(kWidth, kWidth, 1);
    block_.key = linear(4, kWidth, 2);
    block_.value = linear(4, kWidth, 3);
    block_.output = linear(kWidth, kWidth, 4);
    block_.gate = linear(12, kWidth, 5);
    block_.up = linear(12, kWidth, 6);
    block_.down = linear(kWidth, 12, 7);
    plan_.queries = {{.begin = 0, .end = 3, .self_begin = 0, .visible = {}},
                     {.begin = 3, .end = kTokens, .self_begin = 3, .visible = {{.begin = 0, .end = 2}}}};
    pass_ = {.positions = positions_,
             .plan = &plan_,
             .rotary = {make_rotary_tables({.theta = 100, .width = 4}, 8, 8, engine_.allocator()),
                        make_rotary_tables({.theta = 7, .width = 4}, 8, 8, engine_.allocator())},
             .cache = nullptr,
             .slots = {}};
  }

  tensor::Tensor random(const tensor::Shape& shape) {
    tensor::Tensor values = tensor::Tensor::empty(shape, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < values.elements(); ++i)
      values.data<float>()[i] = static_cast<float>(random_.next_normal() * 0.5);
    return values;
  }

  static LayerNorm rms_norm(const Variable& weight, float offset = 0) {
    return {.weight = weight, .centred = false, .offset = offset};
  }
  Variable trained(const tensor::Shape& shape) {
    trained_.push_back(Variable::parameter(random(shape)));
    return trained_.back();
  }

  // With a branch that has dropout: values that are computed again must meet the same dropout.
  Linear linear(std::int64_t outputs, std::int64_t inputs, std::uint64_t stream) {
    auto branch = std::make_shared<ops::LowRank>();
    branch->a = Variable::parameter(random({2, inputs}));
    branch->b = Variable::parameter(random({outputs, 2}));
    branch->dropout = 0.5F;
    branch->random = RandomStream(3, RandomPurpose::kDropout, stream);
    trained_.push_back(branch->a);
    trained_.push_back(branch->b);
    return {.name = "layer", .weight = Variable(random({outputs, inputs})), .bias = {}, .branch = branch};
  }

  void expect_gradients(bool checkpoint, const std::vector<std::int32_t>& rows) {
    const Variable x(random({kTokens, kWidth}), true);
    const auto count = rows.empty() ? kTokens : static_cast<std::int64_t>(rows.size());
    const tensor::Tensor weights = random({count, kWidth});
    const auto loss = [&](Tape* tape) {
      Tape own;  // dropout acts only while recording
      const Context context = engine_.context(tape != nullptr ? tape : &own);
      const auto body = [this, &rows](const Context& c, const Variable& in) { return block_(c, in, pass_, rows); };
      const Variable y = checkpoint ? ops::checkpoint(context, x, body) : body(context, x);
      double sum = 0;
      for (std::int64_t i = 0; i < weights.elements(); ++i) {
        sum += static_cast<double>(y.value().data<float>()[i]) * static_cast<double>(weights.data<float>()[i]);
      }
      if (tape != nullptr) {
        y.mutable_gradient() = tensor::Tensor::empty(weights.shape(), DType::kF32, engine_.allocator());
        std::copy_n(weights.data<float>(), weights.elements(), y.mutable_gradient().data<float>());
      }
      return sum;
    };
    std::vector<Variable> inputs = trained_;
    inputs.push_back(x);
    for (const Variable& input : inputs) input.mutable_gradient() = tensor::Tensor();
    const ops::GradientCheck check = ops::check_gradients(loss, inputs, 4e-3, 4e-3);
    EXPECT_LE(check.worst, 1.0) << check.description;
  }

  ops::Engine engine_{2};
  RandomStream random_{11, RandomPurpose::kTest};
  std::vector<Variable> trained_;
  DecoderBlock block_;
  std::vector<std::int32_t> positions_{0, 1, 2, 2, 3};
  tensor::AttentionPlan plan_;
  PassInput pass_;
};

TEST_F(DecoderBlockGradient, OfAllRows) {
  expect_gradients(false, {});
}

TEST_F(DecoderBlockGradient, OfSomeRows) {
  expect_gradients(false, {1, 4});
}

TEST_F(DecoderBlockGradient, WithCheckpointing) {
  expect_gradients(true, {});
}

TEST_F(DecoderBlockGradient, WithoutRotation) {
  block_.rotary.reset();
  expect_gradients(false, {});
}

TEST_F(DecoderBlockGradient, WithHeadNorms) {
  block_.query_norm = rms_norm(trained({4}));
  block_.key_norm = rms_norm(trained({4}));
  expect_gradients(false, {});
  expect_gradients(true, {1, 4});
}

// As in Gemma: norms before and behind, weights stored as differences from 1, gelu, positions by the second tables.
TEST_F(DecoderBlockGradient, WithNormsBehind) {
  block_.attention_norm.offset = block_.feed_forward_norm.offset = 1;
  block_.activation = ops::Activation::kGeluTanh;
  block_.rotary = 1;
  block_.attention_out_norm = rms_norm(trained({kWidth}), 1);
  block_.feed_forward_out_norm = rms_norm(trained({kWidth}), 1);
  for (const bool checkpoint : {false, true}) {
    expect_gradients(checkpoint, {});
    expect_gradients(checkpoint, {1, 4});
  }
}

// As in GPT-2: norms that take the mean away, biases everywhere, no rotation, no gate.
TEST_F(DecoderBlockGradient, WithLayerNormsAndWithoutAGate) {
  trained_.resize(8);  // the branches of attention; gate, up and down get others
  block_.rotary.reset();
  block_.activation = ops::Activation::kGeluTanh;
  for (LayerNorm* norm : {&block_.attention_norm, &block_.feed_forward_norm})
    *norm = {.weight = trained({kWidth}), .bias = trained({kWidth})};
  block_.gate = {};
  block_.up = linear(12, kWidth, 6);
  block_.down = linear(kWidth, 12, 7);
  for (Linear* layer : {&block_.query, &block_.key, &block_.value, &block_.output, &block_.up, &block_.down})
    layer->bias = trained({layer->outputs()});
  for (const bool checkpoint : {false, true}) {
    expect_gradients(checkpoint, {});
    expect_gradients(checkpoint, {1, 4});
  }
}

// Fewer rows than experts have places, so that some have none; router and experts are trained too, and their balance
// takes part. The choice must not change within a difference quotient: the router's logits lie far apart.
TEST_F(DecoderBlockGradient, WithExperts) {
  trained_.resize(8);  // the branches of attention: gate, up and down take no part
  const auto plain = [&](std::int64_t outputs, std::int64_t inputs) {
    return Linear{.name = "expert", .weight = trained({outputs, inputs})};
  };
  block_.mixture.router = plain(4, kWidth);
  for (std::int64_t i = 0; i < 4 * kWidth; ++i) block_.mixture.router.weight.mutable_value().data<float>()[i] *= 4;
  for (int e = 0; e < 4; ++e) block_.mixture.experts.push_back({plain(6, kWidth), plain(6, kWidth), plain(kWidth, 6)});
  for (const ops::Renormalise renormalise : {ops::Renormalise::kNo, ops::Renormalise::kYes}) {
    block_.mixture.routing = {.count = 2, .renormalise = renormalise};
    for (const bool checkpoint : {false, true}) {
      expect_gradients(checkpoint, {});
      expect_gradients(checkpoint, {1, 4});
    }
  }
}

}  // namespace
}  // namespace instruct::nn
