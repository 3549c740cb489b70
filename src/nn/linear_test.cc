// Layers with integer products against the same layers over converted weights.
#include "nn/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
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
    for (std::int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = static_cast<float>(random_.next_uniform()) - 0.5F;
    return x;
  }
  // On the reference backend a packed weight is the stored one.
  ops::IntegerForms forms(const Tensor& stored) {
    if (GetParam() == ops::Backend::kCpu)
      return ops::pack_for_integers(stored, ops::IntegerUse::kForward, engine_.allocator(), engine_.threads());
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
  void expect_near(const Variable& actual, const Variable& expected) {
    const std::vector<float> a = actual.value().to_floats(), e = expected.value().to_floats();
    ASSERT_EQ(a.size(), e.size());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], e[i], 2e-3F) << i;  // of sums around 600
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

}  // namespace
}  // namespace instruct::nn
