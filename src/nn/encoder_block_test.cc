// The gradient of a whole encoder block.
#include "nn/encoder_block.h"

#include <gtest/gtest.h>

#include "nn/rotary.h"
#include "ops/checkpoint.h"
#include "ops/engine.h"
#include "ops/gradient_check.h"

namespace instruct::nn {
namespace {

using autograd::Tape;
using tensor::DType;

constexpr std::int64_t kTokens = 7;
constexpr std::int64_t kWidth = 8;

class EncoderBlockGradient : public ::testing::Test {
 protected:
  EncoderBlockGradient() {
    block_.attention = {.head_width = 4, .scale = 0.5F};
    block_.attention_norm = norm();
    block_.feed_forward_norm = norm();
    block_.query = linear(kWidth, kWidth);
    block_.key = linear(kWidth, kWidth);
    block_.value = linear(kWidth, kWidth);
    block_.output = linear(kWidth, kWidth);
    block_.up = linear(12, kWidth);
    block_.down = linear(kWidth, 12);
    plan_ = tensor::plan_of_whole_rows({{0, 5, -1}, {5, kTokens, -1}});
    pass_.positions = positions_;
    pass_.plan = &plan_;
    pass_.rotary = {make_rotary_tables({.theta = 100, .width = 4}, 8, 8, engine_.allocator()), {}};
  }

  tensor::Tensor random(const tensor::Shape& shape) {
    tensor::Tensor values = tensor::Tensor::empty(shape, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < values.elements(); ++i)
      values.data<float>()[i] = static_cast<float>(random_.next_normal() * 0.5);
    return values;
  }
  Variable parameter(const tensor::Shape& shape) {
    trained_.push_back(Variable::parameter(random(shape)));
    return trained_.back();
  }
  LayerNorm norm() { return {.weight = parameter({kWidth}), .bias = parameter({kWidth})}; }
  Linear linear(std::int64_t outputs, std::int64_t inputs) {
    return {.name = "layer", .weight = parameter({outputs, inputs}), .bias = parameter({outputs})};
  }

  void expect_gradients(bool checkpoint = false, const std::vector<std::int32_t>& rows = {}) {
    const Variable x(random({kTokens, kWidth}), true);
    const auto count = rows.empty() ? kTokens : static_cast<std::int64_t>(rows.size());
    const tensor::Tensor weights = random({count, kWidth});
    const auto loss = [&](Tape* tape) {
      Tape own;  // dropout acts only while recording
      const Context context = engine_.context(tape != nullptr ? tape : &own);
      const auto body = [this, &rows](const Context& c, const Variable& in) { return block_(c, in, pass_, rows); };
      const Variable y = checkpoint ? ops::checkpoint(context, x, body) : body(context, x);
      double sum = 0;
      for (std::int64_t i = 0; i < weights.elements(); ++i)
        sum += static_cast<double>(y.value().data<float>()[i]) * static_cast<double>(weights.data<float>()[i]);
      if (tape != nullptr) {
        y.mutable_gradient() = tensor::Tensor::empty(weights.shape(), DType::kF32, engine_.allocator());
        std::copy_n(weights.data<float>(), weights.elements(), y.mutable_gradient().data<float>());
      }
      return sum;
    };
    std::vector<Variable> inputs;
    for (const Variable& input : trained_) {
      if (used(input)) inputs.push_back(input);
    }
    inputs.push_back(x);
    for (const Variable& input : inputs) input.mutable_gradient() = tensor::Tensor();
    const ops::GradientCheck check = ops::check_gradients(loss, inputs, 6e-3, 6e-3);
    EXPECT_LE(check.worst, 1.0) << check.description;
  }
  bool used(const Variable& input) const {
    const auto has = [&input](const Linear& layer) {
      return (layer.weight.defined() && layer.weight.value().same_data(input.value())) ||
             (layer.bias.defined() && layer.bias.value().same_data(input.value()));
    };
    for (const LayerNorm* norm : {&block_.attention_norm, &block_.feed_forward_norm}) {
      if (norm->weight.defined() && norm->weight.value().same_data(input.value())) return true;
      if (norm->bias.defined() && norm->bias.value().same_data(input.value())) return true;
    }
    return has(block_.query) || has(block_.key) || has(block_.value) || has(block_.output) || has(block_.up) ||
           has(block_.down);
  }

  ops::Engine engine_{2};
  RandomStream random_{11, RandomPurpose::kTest};
  std::vector<Variable> trained_;
  EncoderBlock block_;
  std::vector<std::int32_t> positions_{0, 1, 2, 3, 4, 0, 1};
  tensor::AttentionPlan plan_;
  EncoderInput pass_;
};

TEST_F(EncoderBlockGradient, OfAllRows) {
  expect_gradients();
}
TEST_F(EncoderBlockGradient, OfSomeRowsWithCheckpointing) {
  expect_gradients(false, {0, 5});
  expect_gradients(true, {0, 5});
}
TEST_F(EncoderBlockGradient, WithDropout) {
  pass_.dropout = {.rate = 0.4F, .seed = 3, .pass = 8};
  expect_gradients();
  expect_gradients(true);
}
// As in BigBird: two heads that see different keys, some of them twice.
TEST_F(EncoderBlockGradient, OfHeadsWithKeysOfTheirOwn) {
  tensor::AttentionPlan plan;
  for (const std::int64_t head : {0, 1}) {
    const std::int64_t first = head * kTokens;
    const tensor::KeyRange all{first, first + kTokens}, some{first + head, first + 2 + head};
    plan.queries.push_back({.begin = first,
                            .end = first + 5,
                            .visible = {some, {first + 4, first + 6}, some},
                            .own = tensor::OwnKeys::kNone});
    plan.queries.push_back(
        {.begin = first + 5, .end = first + kTokens, .visible = {all}, .own = tensor::OwnKeys::kNone});
  }
  pass_.plans_by_head = std::span(&plan, 1);
  expect_gradients();
  expect_gradients(true, {0, 5});
}
TEST_F(EncoderBlockGradient, OfModernBert) {
  block_.norms = EncoderBlock::Norms::kBefore;
  block_.gated = true;
  block_.rotary = 0;
  block_.attention.window = 2;
  block_.query = linear(3 * kWidth, kWidth);
  block_.key = block_.value = {};
  block_.up = linear(24, kWidth);
  expect_gradients();
  block_.attention_norm = {};  // the first block's
  expect_gradients(true, {1, 6});
}

}  // namespace
}  // namespace instruct::nn
