// Rows under several adapters against each adapter alone.
#include "adapters/adapter_set.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "ops/engine.h"

namespace instruct::adapters {
namespace {

Tensor random_tensor(const tensor::Shape& shape, DType dtype, std::uint64_t seed, tensor::Allocator& allocator) {
  RandomStream random(seed, RandomPurpose::kTest);
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (float& value : values) value = static_cast<float>(random.next_uniform() - 0.5);
  const Tensor plain = Tensor::from_floats(values, shape, allocator);
  return dtype == DType::kF32 ? plain : ops::converted_copy(plain, dtype, allocator);
}

class RowsUnderAdapters : public ::testing::TestWithParam<std::tuple<DType, ops::IntegerUse>> {
 protected:
  static DType dtype() { return std::get<0>(GetParam()); }
  nn::Linear layer(const std::string& name, std::int64_t outputs, std::int64_t inputs) {
    const Tensor weight = random_tensor({outputs, inputs}, dtype(), static_cast<std::uint64_t>(outputs), allocator());
    return {.name = name,
            .weight = Variable(weight),
            .bias = {},
            .integer = ops::pack_for_integers(weight, std::get<1>(GetParam()), allocator(), engine_.threads()),
            .branch = {}};
  }
  std::unique_ptr<LoraAdapter> adapter(const LoraConfig& config, std::span<nn::Linear* const> layers,
                                       std::uint64_t seed) {
    auto made = LoraAdapter::create(config, layers, dtype(), seed, allocator());
    for (LoraModule& module : made->modules())
      module.b.mutable_value() = random_tensor(module.b.value().shape(), dtype(), seed + 1, allocator());
    return made;
  }
  std::vector<float> apply(const nn::Linear& to, const Tensor& x, std::span<const std::int32_t> chosen = {}) {
    return to(engine_.context(), Variable(x), chosen).value().to_floats();
  }
  tensor::Allocator& allocator() { return engine_.allocator(); }

  ops::Engine engine_{2};
};
INSTANTIATE_TEST_SUITE_P(Adapters, RowsUnderAdapters,
                         ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::Values(ops::IntegerUse::kNone, ops::IntegerUse::kGradients8)),
                         [](const auto& tested) {
                           return std::string(tensor::info(std::get<0>(tested.param)).name) +
                                  (std::get<1>(tested.param) == ops::IntegerUse::kNone ? "" : "_integers");
                         });

TEST_P(RowsUnderAdapters, AreThoseOfEachAlone) {
  nn::Linear query = layer("a.q_proj", 80, 96), value = layer("a.v_proj", 48, 96), other = layer("a.o_proj", 16, 96);
  const std::vector<nn::Linear*> layers{&query, &value, &other};
  const std::array configs{LoraConfig{.rank = 4, .alpha = 6, .target_modules = {"q_proj", "v_proj"}},
                           LoraConfig{.rank = 12, .alpha = 8, .target_modules = {"q_proj"}},
                           LoraConfig{.rank = 2, .alpha = 8, .target_modules = {"v_proj"}}};
  for (const std::int64_t rows : {1, 7, 40}) {
    const Tensor x = random_tensor({rows, 96}, dtype(), 5, allocator());
    // By layer, then without an adapter and with each.
    std::vector<std::vector<std::vector<float>>> alone(3);
    for (std::size_t l = 0; l < 3; ++l) alone[l].push_back(apply(*layers[l], x));
    std::vector<std::unique_ptr<LoraAdapter>> made;
    for (const LoraConfig& config : configs) {
      made.push_back(adapter(config, layers, 10 * (made.size() + 1)));
      for (std::size_t l = 0; l < 3; ++l) alone[l].push_back(apply(*layers[l], x));
      made.back()->detach();
    }
    std::vector<std::int32_t> chosen;
    for (std::int64_t t = 0; t < rows; ++t) chosen.push_back(static_cast<std::int32_t>((t * 5 + 2) % 4 - 1));
    {
      const std::array<const LoraAdapter*, 3> together{made[0].get(), made[1].get(), made[2].get()};
      const AdapterSet set(together, layers, allocator());
      EXPECT_EQ(set.size(), 3);
      made.clear();  // the set lives on
      for (std::size_t l = 0; l < 3; ++l) {
        const std::vector<float> mixed = apply(*layers[l], x, chosen);
        const std::size_t width = static_cast<std::size_t>(layers[l]->outputs());
        for (std::size_t i = 0; i < mixed.size(); ++i) {
          const auto take = static_cast<std::size_t>(chosen[i / width] + 1);
          // Products of other widths may be summed in another order.
          const double unit = dtype() == DType::kF32 ? 1e-6 : 1.0 / 128;
          const auto expected = static_cast<double>(alone[l][take][i]);
          ASSERT_NEAR(mixed[i], expected, unit * (1 + std::abs(expected)))
              << layers[l]->name << " row " << i / width << " of " << rows;
        }
      }
      EXPECT_NE(apply(query, x, std::vector<std::int32_t>(chosen.size(), 0)), alone[0][0]);
    }
    for (std::size_t l = 0; l < 3; ++l) EXPECT_EQ(apply(*layers[l], x), alone[l][0]);  // detached
  }
}

// The second adapter takes the first one's place, and the first going away leaves it there.
TEST_P(RowsUnderAdapters, AnAdapterDetachesOnlyItself) {
  nn::Linear query = layer("a.q_proj", 32, 64);
  const std::vector<nn::Linear*> layers{&query};
  const Tensor x = random_tensor({3, 64}, dtype(), 5, allocator());
  const LoraConfig config{.rank = 4, .alpha = 6, .target_modules = {"q_proj"}};
  auto first = adapter(config, layers, 1);
  const auto second = adapter(config, layers, 2);
  const std::vector<float> with_second = apply(query, x);
  first.reset();
  EXPECT_EQ(apply(query, x), with_second);
}

}  // namespace
}  // namespace instruct::adapters
