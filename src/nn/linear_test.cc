// Layers with integer products against the same layers over converted weights.
#include "nn/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "ops/cross_entropy.h"
#include "ops/engine.h"
#include "ops/weights.h"
#include "tensor/block_codec.h"

namespace instruct::nn {
namespace {

using tensor::DType;

class IntegerLinear : public ::testing::TestWithParam<ops::Backend> {
 protected:
  // Whole numbers with 127 in every block: rounding to 8-bit integers changes nothing.
  Tensor inputs(std::int64_t rows, std::int64_t columns) {
    Tensor x = Tensor::empty({rows, columns}, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < x.elements(); ++i)
      x.data<float>()[i] = i % 32 == 3 ? 127.0F : std::floor(static_cast<float>(random_.next_uniform()) * 255) - 127;
    return x;
  }
  Tensor numbers(const tensor::Shape& shape) {
    Tensor x = Tensor::empty(shape, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < x.elements(); ++i)
      x.data<float>()[i] = static_cast<float>(random_.next_uniform()) - 0.5F;
    return x;
  }
  // On the reference backend a packed weight is the stored one.
  ops::IntegerForms forms(const Tensor& stored) {
    if (GetParam() == ops::Backend::kCpu)
      return ops::pack_for_integers(stored, ops::IntegerUse::kForward8, engine_.allocator(), engine_.threads());
    return {std::make_shared<kernels::IntegerWeight>(
                kernels::IntegerWeight{stored.dtype(), stored.dim(0), stored.dim(1), stored}),
            nullptr};
  }
  Linear layer(std::int64_t outputs, std::int64_t columns) {
    const Tensor values = numbers({outputs, columns});
    Tensor stored = Tensor::empty(values.shape(), DType::kQ8_0, engine_.allocator());
    tensor::encode_elements(DType::kQ8_0, {values.data<float>(), static_cast<std::size_t>(values.elements())},
                            stored.raw());
    Linear made{.name = "layer", .weight = Variable(stored), .bias = Variable(numbers({outputs}))};
    made.integer = forms(stored);
    made.branch = std::make_shared<ops::LowRank>(ops::LowRank{.a = Variable::parameter(numbers({4, columns})),
                                                              .b = Variable::parameter(numbers({outputs, 4})),
                                                              .scale = 0.5F});
    return made;
  }
  static void expect_near(const Tensor& actual, const Tensor& expected, float allowed) {
    const std::vector<float> a = actual.to_floats(), e = expected.to_floats();
    ASSERT_EQ(a.size(), e.size());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], e[i], allowed) << i;
  }
  static void expect_near(const Variable& actual, const Variable& expected) {
    expect_near(actual.value(), expected.value(), 2e-3F);  // of sums around 600
  }
  // Whole numbers with 127 in every block of every row and column: Q8_0 holds them, and their transpose, as they are.
  Tensor whole_weight(std::int64_t outputs, std::int64_t columns) {
    Tensor w = inputs(outputs, columns);
    for (std::int64_t n = 0; n < outputs; ++n) {
      for (std::int64_t k = 0; k < columns; ++k) {
        float& value = w.data<float>()[n * columns + k];
        value = (n + k) % 32 == 0 ? 127.0F : std::min(value, 126.0F);
      }
    }
    return w;
  }
  ops::IntegerForms both_forms(const Tensor& weight) {
    if (GetParam() == ops::Backend::kCpu)
      return ops::pack_for_integers(weight, ops::IntegerUse::kGradients8, engine_.allocator(), engine_.threads());
    Tensor turned = Tensor::empty({weight.dim(1), weight.dim(0)}, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < weight.elements(); ++i)
      turned.data<float>()[i % weight.dim(1) * weight.dim(0) + i / weight.dim(1)] = weight.data<float>()[i];
    const auto packed = [&](const Tensor& values) {
      Tensor stored = Tensor::empty(values.shape(), DType::kQ8_0, engine_.allocator());
      tensor::encode_elements(DType::kQ8_0, {values.data<float>(), static_cast<std::size_t>(values.elements())},
                              stored.raw());
      return forms(stored).forward;
    };
    return {packed(weight), packed(turned)};
  }

  ops::Engine engine_{2, GetParam()};
  RandomStream random_{3, RandomPurpose::kTest};
};
INSTANTIATE_TEST_SUITE_P(Backends, IntegerLinear, ::testing::Values(ops::Backend::kCpu, ops::Backend::kReference),
                         [](const auto& tested) { return tested.param == ops::Backend::kCpu ? "Cpu" : "Reference"; });

TEST_P(IntegerLinear, BiasAndBranchAreThoseOfThePlainLayer) {
  if (GetParam() == ops::Backend::kCpu && !ops::has_integer_products()) GTEST_SKIP() << "no integer products here";
  const Linear first = layer(20, 96), second = layer(48, 96);
  const Variable x(inputs(5, 96));
  Linear plain_first = first, plain_second = second;
  plain_first.integer = plain_second.integer = {};
  const ops::Context context = engine_.context();
  expect_near(first(context, x), plain_first(context, x));
  const auto both = apply_all<2>(context, x, {&first, &second});
  expect_near(both[0], plain_first(context, x));
  expect_near(both[1], plain_second(context, x));
  const auto mixed = apply_all<2>(context, x, {&first, &plain_second});
  expect_near(mixed[1], plain_second(context, x));
}

TEST_P(IntegerLinear, APassThatRecordsUsesTheValuesOfTheWeight) {
  if (GetParam() == ops::Backend::kCpu && !ops::has_integer_products()) GTEST_SKIP() << "no integer products here";
  const Linear packed = layer(20, 96);
  Linear plain = packed;
  plain.integer = {};
  const Variable x(numbers({5, 96}));  // not whole: the integers of it would show
  autograd::Tape tape;
  const ops::Context records = engine_.context(&tape);
  const std::vector<float> recorded = packed(records, x).value().to_floats();
  EXPECT_EQ(recorded, plain(records, x).value().to_floats());
  EXPECT_EQ(recorded, apply_all<2>(records, x, {&packed, &packed})[1].value().to_floats());
  EXPECT_NE(recorded, packed(engine_.context(), x).value().to_floats());
}

TEST_P(IntegerLinear, GradientsAreThoseOfThePlainLayer) {
  if (GetParam() == ops::Backend::kCpu && !ops::has_integer_products()) GTEST_SKIP() << "no integer products here";
  const Tensor weight = whole_weight(64, 96);
  const Tensor values = inputs(5, 96);
  const Tensor dy = inputs(5, 64);
  const Tensor a = numbers({4, 96}), b = numbers({64, 4}), bias = numbers({64});
  const auto gradients = [&](bool on_integers, float dropout) {
    Linear layer{.name = "layer", .weight = Variable(weight), .bias = Variable::parameter(bias)};
    if (on_integers) layer.integer = both_forms(weight);
    auto branch = std::make_shared<ops::LowRank>(
        ops::LowRank{.a = Variable::parameter(a), .b = Variable::parameter(b), .scale = 0.5F, .dropout = dropout});
    layer.branch = branch;
    const Variable x(values, true);
    autograd::Tape tape;
    const auto y = apply_all<2>(engine_.context(&tape), x, {&layer, &layer});  // both add to the gradient of x
    y[0].mutable_gradient() = dy;
    y[1].mutable_gradient() = dy;
    tape.backward();
    return std::vector<Tensor>{y[0].value(), x.gradient(), branch->a.gradient(), branch->b.gradient(),
                               layer.bias.gradient()};
  };
  for (const float dropout : {0.0F, 0.25F}) {
    const std::vector<Tensor> expected = gradients(false, dropout), actual = gradients(true, dropout);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      SCOPED_TRACE(i);
      float size = 0;
      for (const float value : expected[i].to_floats()) size = std::max(size, std::abs(value));
      EXPECT_GT(size, 1.0F);
      expect_near(actual[i], expected[i], 3e-6F * size);
    }
  }
}

TEST_P(IntegerLinear, CrossEntropyOverAPackedHeadIsNearThatOverItsValues) {
  if (GetParam() == ops::Backend::kCpu && !ops::has_integer_products()) GTEST_SKIP() << "no integer products here";
  const Tensor weight = numbers({64, 96});
  const Variable x(numbers({7, 96}), true);
  const std::vector<std::int32_t> targets{1, 5, 9, 59, 0, 33, 2};
  const std::vector<float> weights(7, 1.0F);
  const auto losses = [&](const ops::IntegerForms& integer) {
    x.mutable_gradient() = Tensor();
    autograd::Tape tape;
    const auto result =
        ops::linear_cross_entropy(engine_.context(&tape), x, Variable(weight), {targets, weights}, 60, integer);
    tape.backward();
    return std::pair(result, x.gradient());
  };
  const auto [expected, dexpected] = losses({});
  const auto [actual, dactual] = losses(both_forms(weight));
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 0.03F) << i;
  EXPECT_NE(actual, expected);
  expect_near(dactual, dexpected, 0.02F);
}

}  // namespace
}  // namespace instruct::nn
