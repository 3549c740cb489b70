// Choosing experts and mixing what they give, CPU against reference.
#include <cmath>
#include <set>

#include "kernels/test_support.h"

namespace instruct::kernels::testing {
namespace {

struct Size {
  std::int64_t rows = 0;
  std::int64_t experts = 0;
  std::int64_t count = 0;
};
constexpr Size kSizes[] = {{1, 1, 1}, {5, 4, 2}, {33, 7, 3}, {130, 128, 8}};

class Routing : public ::testing::TestWithParam<DType> {
 protected:
  Tensor uniform(const tensor::Shape& shape, DType dtype, double spread) {
    Operand operand = make_operand(shape, dtype, Layout::kDense, *machine_.allocator);
    fill_uniform(operand.view, random_, 0, static_cast<float>(spread));
    return operand.view;
  }
  Tensor empty(const tensor::Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, *machine_.allocator); }
  double unit() const { return GetParam() == DType::kBF16 ? 1.0 / 256 : 1.0 / (1 << 23); }
  // Both are sums of at most a few hundred products of magnitude `most`, rounded to the type at the end.
  void expect_near(const Tensor& fast, const Tensor& plain, double most, double unit) {
    const std::vector<float> a = fast.to_floats(), b = plain.to_floats();
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_NEAR(a[i], b[i], unit * std::abs(static_cast<double>(b[i])) + 64 * most / (1 << 23)) << i;
  }
  Machine machine_{2};
  RandomStream random_{5, RandomPurpose::kTest};
};

TEST_P(Routing, ChoosesAndGoesBackAsTheReference) {
  for (const Size& size : kSizes) {
    for (const Renormalise renormalise : {Renormalise::kNo, Renormalise::kYes}) {
      const Tensor logits = uniform({size.rows, size.experts}, GetParam(), 4);
      const Tensor dweights = uniform({size.rows, size.count}, DType::kF32, 1);
      std::vector<float> balance(static_cast<std::size_t>(size.experts));
      for (float& value : balance) value = static_cast<float>(random_.next_uniform());
      const auto run = [&](auto forward, auto backward) {
        std::vector<std::int32_t> chosen(static_cast<std::size_t>(size.rows * size.count));
        Tensor probabilities = empty({size.rows, size.experts}, DType::kF32);
        Tensor weights = empty({size.rows, size.count}, DType::kF32);
        Tensor dlogits = empty({size.rows, size.experts}, GetParam());
        forward(machine_.stream, logits, renormalise, probabilities, chosen, weights);
        backward(machine_.stream, probabilities, chosen, renormalise, weights, dweights, balance, dlogits);
        return std::tuple{chosen, probabilities, weights, dlogits};
      };
      const auto [chosen, probabilities, weights, dlogits] = run(cpu::route, cpu::route_backward);
      const auto [chosen2, probabilities2, weights2, dlogits2] = run(reference::route, reference::route_backward);
      EXPECT_EQ(chosen, chosen2);
      expect_near(probabilities, probabilities2, 1, 0);
      expect_near(weights, weights2, 1, 0);
      expect_near(dlogits, dlogits2, 2, unit());
    }
  }
}

TEST_P(Routing, MixesAndGoesBackAsTheReference) {
  for (const std::int64_t width : {1, 7, 64, 129}) {
    for (const Size& size : kSizes) {
      const Tensor x = uniform({size.rows * size.count, width}, GetParam(), 1);
      const Tensor weights = uniform({size.rows, size.count}, DType::kF32, 1);
      const Tensor dy = uniform({size.rows, width}, GetParam(), 1);
      std::vector<std::int32_t> places(static_cast<std::size_t>(size.rows * size.count));
      for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int32_t>(places.size() - 1 - i);
      const auto run = [&](auto forward, auto backward) {
        Tensor y = empty({size.rows, width}, GetParam());
        Tensor dx = empty(x.shape(), GetParam());
        Tensor dweights = empty({size.rows, size.count}, DType::kF32);
        forward(machine_.stream, x, places, weights, y);
        backward(machine_.stream, x, places, weights, dy, dx, dweights);
        return std::tuple{y, dx, dweights};
      };
      const auto [y, dx, dweights] = run(cpu::mix_rows, cpu::mix_rows_backward);
      const auto [y2, dx2, dweights2] = run(reference::mix_rows, reference::mix_rows_backward);
      expect_near(y, y2, static_cast<double>(size.count), unit());
      expect_near(dx, dx2, 1, unit());
      expect_near(dweights, dweights2, static_cast<double>(width), 0);
    }
  }
}

// A run that diverges ends with an error, not outside of memory.
TEST_P(Routing, LogitsThatAreNoNumbersChooseDifferentExperts) {
  Tensor logits = uniform({3, 5}, GetParam(), 1);
  for (std::int64_t i = 0; i < 10; ++i) set_element(logits, i, NAN);
  for (const auto route : {cpu::route, reference::route}) {
    std::vector<std::int32_t> chosen(9);
    Tensor probabilities = empty({3, 5}, DType::kF32);
    Tensor weights = empty({3, 3}, DType::kF32);
    route(machine_.stream, logits, Renormalise::kYes, probabilities, chosen, weights);
    for (std::size_t row = 0; row < 3; ++row) {
      const std::set<std::int32_t> different(chosen.begin() + static_cast<std::ptrdiff_t>(3 * row),
                                             chosen.begin() + static_cast<std::ptrdiff_t>(3 * row + 3));
      EXPECT_EQ(different.size(), 3U);
      EXPECT_GE(*different.begin(), 0);
      EXPECT_LT(*different.rbegin(), 5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Routing, ::testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace instruct::kernels::testing
