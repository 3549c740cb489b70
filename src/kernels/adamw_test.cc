// AdamW beside its plain twin: f32 weights and weights in two halves, f32 moments and moments in 8 bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/dynamic_code.h"
#include "kernels/test_support.h"

namespace instruct::kernels {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace)

TEST(SplitFloat, GivesTheNumberBack) {
  RandomStream random(5, RandomPurpose::kTest);
  const auto check = [](float value) {
    const tensor::SplitFloat halves = tensor::split(value);
    const float joined = tensor::join(halves);
    ASSERT_EQ(std::memcmp(&joined, &value, 4), 0) << value;
    if (!(std::abs(value) < 3e38F && std::abs(value) > 1e-37F)) return;
    EXPECT_LE(std::abs(tensor::to_float(halves.upper) - value), std::abs(value) / 256) << value;
  };
  for (const float value :
       {0.0F, -0.0F, 1.0F, 1.00390625F, 1.01171875F, -1.00390625F, 1e-45F, 3.4e38F, INFINITY, -INFINITY})
    check(value);
  for (int i = 0; i < 1 << 16; ++i)
    check(std::bit_cast<float>(static_cast<std::uint32_t>(random.next_below(std::uint64_t{1} << 32))));
  // A tie goes away from zero, everything else to the nearest.
  EXPECT_EQ(tensor::to_float(tensor::split(1.00390625F).upper), 1.0078125F);
  EXPECT_EQ(tensor::to_float(tensor::split(1.0039061F).upper), 1.0F);
}

// bitsandbytes 0.49, functional.create_dynamic_map(signed), ascending: its least and greatest values and some between.
TEST(DynamicCode, IsThatOfBitsandbytes) {
  constexpr auto kSigned = dynamic_values(DynamicSign::kSigned);
  constexpr auto kUnsigned = dynamic_values(DynamicSign::kUnsigned);
  EXPECT_EQ(kSigned[0], 0.0F);
  EXPECT_FLOAT_EQ(kSigned[1], 5.5e-7F);
  EXPECT_FLOAT_EQ(kSigned[2], 3.25e-6F);
  EXPECT_FLOAT_EQ(kSigned[3], 7.75e-6F);
  EXPECT_FLOAT_EQ(kSigned[127], 0.99296875F);
  EXPECT_FLOAT_EQ(kSigned[255], -0.99296875F);
  EXPECT_EQ(kSigned[128], 1.0F);
  EXPECT_FLOAT_EQ(kUnsigned[1], 3.25e-7F);
  EXPECT_FLOAT_EQ(kUnsigned[254], 0.996484375F);
  EXPECT_EQ(kUnsigned[255], 1.0F);
  for (std::size_t code = 1; code < 256; ++code) EXPECT_GT(kUnsigned[code], kUnsigned[code - 1]);
}

enum class Form { kWhole, kHalves };
enum class Bits { k32, k8 };

struct Case {
  std::int64_t size = 0;
  std::int64_t step = 1;
  Form form = Form::kWhole;
  Bits bits = Bits::k32;
};

struct Trial {
  AdamwState state;
  Tensor gradient;
};

Tensor uniform(std::int64_t size, std::uint64_t seed, float centre, float spread, tensor::Allocator& allocator) {
  RandomStream random(seed, RandomPurpose::kTest);
  Tensor values = Tensor::empty({size}, DType::kF32, allocator);
  fill_uniform(values, random, centre, spread);
  return values;
}

Trial make_trial(const Case& test, tensor::Allocator& allocator) {
  Trial run{.state = {}, .gradient = uniform(test.size, 1, 0, 1, allocator)};
  const Tensor weight = uniform(test.size, 2, 0, 1, allocator);
  run.state.weight = weight;
  if (test.form == Form::kHalves) {
    run.state.weight = Tensor::empty({test.size}, DType::kBF16, allocator);
    run.state.lower = Tensor::empty({test.size}, DType::kU16, allocator);
    for (std::int64_t i = 0; i < test.size; ++i) {
      const tensor::SplitFloat halves = tensor::split(weight.data<float>()[i]);
      run.state.weight.data<BFloat16>()[i] = halves.upper;
      run.state.lower.data<std::uint16_t>()[i] = halves.lower;
    }
  }
  if (test.bits == Bits::k32) {
    run.state.first = uniform(test.size, 3, 0, 1, allocator);
    run.state.second = uniform(test.size, 4, 0.5F, 0.4F, allocator);
    return run;
  }
  const std::int64_t blocks = (test.size + kMomentBlock - 1) / kMomentBlock;
  run.state.first = Tensor::empty({test.size}, DType::kU8, allocator);
  run.state.second = Tensor::empty({test.size}, DType::kU8, allocator);
  run.state.first_scale = uniform(blocks, 5, 0.5F, 0.4F, allocator);
  run.state.second_scale = uniform(blocks, 6, 0.5F, 0.4F, allocator);
  RandomStream random(7, RandomPurpose::kTest);
  for (std::int64_t i = 0; i < test.size; ++i) {
    run.state.first.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.next_below(256));
    run.state.second.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(100 + random.next_below(156));
  }
  return run;
}

std::vector<double> weights_of(const AdamwState& state) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < state.weight.elements(); ++i) {
    values.push_back(static_cast<double>(
        state.lower.defined() ? tensor::join({state.weight.data<BFloat16>()[i], state.lower.data<std::uint16_t>()[i]})
                              : state.weight.data<float>()[i]));
  }
  return values;
}

std::vector<double> moment_of(const Tensor& stored, const Tensor& scales, DynamicSign sign) {
  std::vector<double> values;
  const auto table = dynamic_values(sign);
  for (std::int64_t i = 0; i < stored.elements(); ++i) {
    values.push_back(static_cast<double>(scales.defined() ? table[stored.data<std::uint8_t>()[i]] *
                                                                scales.data<float>()[i / kMomentBlock]
                                                          : stored.data<float>()[i]));
  }
  return values;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double relative,
                 double absolute, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], relative * std::abs(expected[i]) + absolute) << what << " " << i;
}

// Moments are sums of two products. The weight loses at most rate * (|m| / c1) / (sqrt(v / c2) + eps): a few roundings
// of numbers below 1, except where v is small. Codes differ where a value lies between two of them: by one cell, whose
// width is at most 0.9 / 2 of the value for the few codes of the low decades.
void compare(const AdamwState& fast, const AdamwState& plain, Bits bits) {
  expect_near(weights_of(fast), weights_of(plain), 16 * kUnit, 16 * kUnit, "weight");
  const auto both = [&](auto field, auto scale, DynamicSign sign) {
    return std::pair(moment_of(fast.*field, fast.*scale, sign), moment_of(plain.*field, plain.*scale, sign));
  };
  const auto [m, m_plain] = both(&AdamwState::first, &AdamwState::first_scale, DynamicSign::kSigned);
  const auto [v, v_plain] = both(&AdamwState::second, &AdamwState::second_scale, DynamicSign::kUnsigned);
  if (bits == Bits::k32) {
    expect_near(m, m_plain, 4 * kUnit, 4 * kUnit, "m");
    expect_near(v, v_plain, 8 * kUnit, 0, "v");
    return;
  }
  std::size_t differing = 0;
  for (std::size_t i = 0; i < m.size(); ++i) {
    differing += std::abs(m[i] - m_plain[i]) > 1e-6 * std::abs(m_plain[i]) ? 1U : 0U;
    differing += std::abs(v[i] - v_plain[i]) > 1e-6 * v_plain[i] ? 1U : 0U;
  }
  EXPECT_LE(differing, 1 + m.size() / 1000);
  expect_near(m, m_plain, 0.5, 1e-6, "m");
  expect_near(v, v_plain, 0.02, 0, "v");
}

bool same_state(const AdamwState& a, const AdamwState& b) {
  const auto same = [](const Tensor& x, const Tensor& y) {
    return x.defined() == y.defined() && (!x.defined() || same_bytes(x, y));
  };
  return same(a.weight, b.weight) && same(a.lower, b.lower) && same(a.first, b.first) && same(a.second, b.second) &&
         same(a.first_scale, b.first_scale) && same(a.second_scale, b.second_scale);
}

void check(const Case& test) {
  SCOPED_TRACE(fmt::format("{} values, step {}, {}, {}", test.size, test.step,
                           test.form == Form::kHalves ? "halves" : "whole", test.bits == Bits::k8 ? "8 bits" : "f32"));
  const AdamwStep step{.learning_rate = 0.01F, .weight_decay = 0.1F, .step = test.step, .gradient_scale = 0.5F};
  auto machines = three_machines();
  Trial plain = make_trial(test, *machines[0]->allocator);
  reference::adamw(machines[0]->stream, step, plain.gradient, plain.state);
  AdamwState first;
  for (auto& machine : machines) {
    Trial fast = make_trial(test, *machine->allocator);
    cpu::adamw(machine->stream, step, fast.gradient, fast.state);
    compare(fast.state, plain.state, test.bits);
    EXPECT_TRUE(!first.weight.defined() || same_state(first, fast.state)) << "threads change the result";
    first = fast.state;
  }
}

void check_all(const std::vector<std::int64_t>& sizes) {
  for (const std::int64_t size : sizes) {
    for (const std::int64_t step : {1, 2, 1000}) {
      for (const Form form : {Form::kWhole, Form::kHalves}) {
        for (const Bits bits : {Bits::k32, Bits::k8}) check({.size = size, .step = step, .form = form, .bits = bits});
      }
    }
  }
}

TEST(Adamw, EqualsTheReference) {
  check_all({0, 1, 3, 255, 256, 257, 576, 40000});
}

TEST(Adamw, EqualsTheReferenceOnEveryTarget) {
  for_each_target([](const char* target) {
    SCOPED_TRACE(target);
    check_all({67, 600});
  });
}

// Halves change where the weight lies, not one bit of it.
TEST(Adamw, HalvesGiveTheBitsOfWholeWeights) {
  Machine machine(2);
  for (const Bits bits : {Bits::k32, Bits::k8}) {
    Trial whole = make_trial({.size = 5000, .form = Form::kWhole, .bits = bits}, *machine.allocator);
    Trial halves = make_trial({.size = 5000, .form = Form::kHalves, .bits = bits}, *machine.allocator);
    for (std::int64_t step = 1; step <= 5; ++step) {
      cpu::adamw(machine.stream, {.learning_rate = 0.01F, .step = step}, whole.gradient, whole.state);
      cpu::adamw(machine.stream, {.learning_rate = 0.01F, .step = step}, halves.gradient, halves.state);
    }
    EXPECT_EQ(weights_of(whole.state), weights_of(halves.state));
  }
}

// Every value lands on one of its nearest codes, zero stays zero, and a second moment above zero does not become it.
TEST(Adamw, EightBitsRoundToTheNearestCode) {
  Machine machine(1);
  const std::int64_t size = 256 * 64;
  Trial run = make_trial({.size = size, .bits = Bits::k8}, *machine.allocator);
  RandomStream random(9, RandomPurpose::kTest);
  for (std::int64_t i = 0; i < size; ++i) {
    const double magnitude = std::pow(10.0, -9 * random.next_uniform());
    run.gradient.data<float>()[i] = i % 256 == 0 ? 1.0F
                                                 : static_cast<float>(i % 5 == 0   ? 0
                                                                      : i % 2 == 0 ? magnitude
                                                                                   : -magnitude);
  }
  run.state.first_scale.fill_zero();
  run.state.second_scale.fill_zero();
  // beta 0: the new moments are g and g^2 themselves.
  cpu::adamw(machine.stream, {.learning_rate = 0, .beta1 = 0, .beta2 = 0}, run.gradient, run.state);
  const auto nearest_distance = [](DynamicSign sign, double value) {
    double best = 10;
    for (const float code : dynamic_values(sign)) best = std::min(best, std::abs(static_cast<double>(code) - value));
    return best;
  };
  const auto m = moment_of(run.state.first, run.state.first_scale, DynamicSign::kSigned);
  const auto v = moment_of(run.state.second, run.state.second_scale, DynamicSign::kUnsigned);
  for (std::size_t i = 0; i < m.size(); ++i) {
    const auto g = static_cast<double>(run.gradient.data<float>()[i]);
    ASSERT_LE(std::abs(m[i] - g), nearest_distance(DynamicSign::kSigned, g) + 1e-6 * std::abs(g)) << g;
    if (g == 0) {
      ASSERT_EQ(m[i], 0);
      ASSERT_EQ(v[i], 0);
    } else {
      ASSERT_GT(v[i], 0) << g;
      if (g * g > 3.25e-7) {
        ASSERT_LE(std::abs(v[i] - g * g), nearest_distance(DynamicSign::kUnsigned, g * g) + 1e-6 * g * g) << g;
      }
    }
  }
}

// A block of zeros, and one of numbers too small for f32 to divide by, stay finite.
TEST(Adamw, EightBitsOfNothing) {
  Machine machine(1);
  Trial run = make_trial({.size = 512, .bits = Bits::k8}, *machine.allocator);
  run.state.first_scale.fill_zero();
  run.state.second_scale.fill_zero();
  for (std::int64_t i = 0; i < 512; ++i) run.gradient.data<float>()[i] = i < 256 ? 0.0F : 1e-30F;
  cpu::adamw(machine.stream, {.learning_rate = 0.1F}, run.gradient, run.state);
  for (const double w : weights_of(run.state)) ASSERT_TRUE(std::isfinite(w));
  for (const double m : moment_of(run.state.first, run.state.first_scale, DynamicSign::kSigned))
    ASSERT_TRUE(std::isfinite(m));
}

}  // namespace
}  // namespace instruct::kernels
