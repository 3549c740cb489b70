// The backward passes of the reference against central differences of the forward formulas, restated here in double.
// The CPU kernels are then compared with the reference in the other tests of this folder.
#include <functional>
#include <numeric>

#include "kernels/test_support.h"

namespace instruct::kernels::testing {
namespace {

using Values = std::vector<double>;
using Loss = std::function<double(const Values&)>;

// Central differences: the error is step^2 / 6 times the third derivative, plus rounding of the loss over the step.
constexpr double kStep = 1e-5;

Values numeric_gradient(const Loss& loss, Values point) {
  Values gradient;
  for (double& x : point) {
    const double before = x;
    x = before + kStep;
    const double above = loss(point);
    x = before - kStep;
    const double below = loss(point);
    x = before;
    gradient.push_back((above - below) / (2 * kStep));
  }
  return gradient;
}

Values in_double(const Tensor& x) {
  const std::vector<float> values = x.to_floats();
  return {values.begin(), values.end()};
}

Tensor uniform(const Shape& shape, float spread, std::uint64_t seed, Machine& machine) {
  Tensor x = Tensor::empty(shape, DType::kF32, *machine.allocator);
  RandomStream random(seed, RandomPurpose::kTest);
  fill_uniform(x, random, 0, spread);
  return x;
}

Tensor empty_like(const Tensor& x, Machine& machine) {
  return Tensor::empty(x.shape(), DType::kF32, *machine.allocator);
}

// f32 outputs computed in double from f32 inputs, of which some (the kept inverse, output, log_sum) are themselves
// rounded: a few units of 2^-24 of numbers up to `size`; the differences add about 1e-9 of it.
void expect_equal(const Tensor& gradient, const Values& numeric, double size) {
  const Values values = in_double(gradient);
  ASSERT_EQ(values.size(), numeric.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], numeric[i], (8 * kUnit + 1e-9) * size) << "element " << i;
  }
}

double dot(const Values& a, const Values& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

Values rms_norm_formula(const Values& x, const Values& weight, double offset, double epsilon) {
  const std::size_t width = weight.size();
  Values y(x.size());
  for (std::size_t row = 0; row < x.size(); row += width) {
    double squares = 0;
    for (std::size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
    const double root = std::sqrt(squares / static_cast<double>(width) + epsilon);
    for (std::size_t i = 0; i < width; ++i) y[row + i] = x[row + i] / root * (weight[i] + offset);
  }
  return y;
}

class OfRmsNorm : public ::testing::TestWithParam<float> {};
INSTANTIATE_TEST_SUITE_P(ReferenceGradient, OfRmsNorm, ::testing::Values(0.0F, 1.0F));

TEST_P(OfRmsNorm, EqualsTheNumericOne) {
  Machine machine(1);
  const float offset = GetParam();
  constexpr float kEpsilon = 1e-3F;
  const Tensor x = uniform({4, 7}, 2, 1, machine);
  const Tensor weight = uniform({7}, 2, 2, machine);
  const Tensor dy = uniform({4, 7}, 1, 3, machine);
  Tensor y = empty_like(x, machine);
  Tensor inverse = Tensor::empty({4}, DType::kF32, *machine.allocator);
  reference::rms_norm(machine.stream, x, weight, offset, kEpsilon, y, inverse);
  const auto formula = [&](const Values& values, const Values& weights) {
    return rms_norm_formula(values, weights, static_cast<double>(offset), static_cast<double>(kEpsilon));
  };
  expect_equal(y, formula(in_double(x), in_double(weight)), 4);
  Tensor dx = Tensor::zeros(x.shape(), DType::kF32, *machine.allocator);
  Tensor dweight = Tensor::zeros({7}, DType::kF32, *machine.allocator);
  const Loss of_x = [&](const Values& v) { return dot(in_double(dy), formula(v, in_double(weight))); };
  const Loss of_weight = [&](const Values& v) { return dot(in_double(dy), formula(in_double(x), v)); };
  Values expected_x = numeric_gradient(of_x, in_double(x));
  Values expected_weight = numeric_gradient(of_weight, in_double(weight));
  reference::rms_norm_backward(machine.stream, x, weight, offset, inverse, dy, Accumulate::kNo, dx, dweight);
  expect_equal(dx, expected_x, 20);
  expect_equal(dweight, expected_weight, 20);
  // A second pass adds.
  for (double& v : expected_x) v *= 2;
  for (double& v : expected_weight) v *= 2;
  reference::rms_norm_backward(machine.stream, x, weight, offset, inverse, dy, Accumulate::kYes, dx, dweight);
  expect_equal(dx, expected_x, 40);
  expect_equal(dweight, expected_weight, 40);
}

TEST(ReferenceGradient, LayerNorm) {
  Machine machine(1);
  const Tensor x = uniform({3, 7}, 2, 1, machine);
  const Tensor weight = uniform({7}, 1, 2, machine);
  const Tensor bias = uniform({7}, 1, 9, machine);
  const Tensor dy = uniform({3, 7}, 1, 3, machine);
  constexpr float kEpsilon = 0.01F;
  const auto formula = [&](const Values& v, const Values& w) {
    Values y(v.size());
    for (std::size_t t = 0; t < 3; ++t) {
      double mean = 0;
      double squares = 0;
      for (std::size_t i = 0; i < 7; ++i) mean += v[t * 7 + i] / 7;
      for (std::size_t i = 0; i < 7; ++i) squares += (v[t * 7 + i] - mean) * (v[t * 7 + i] - mean) / 7;
      for (std::size_t i = 0; i < 7; ++i)
        y[t * 7 + i] =
            (v[t * 7 + i] - mean) / std::sqrt(squares + static_cast<double>(kEpsilon)) * w[i] + in_double(bias)[i];
    }
    return y;
  };
  Tensor y = empty_like(x, machine);
  Tensor mean = Tensor::empty({3}, DType::kF32, *machine.allocator);
  Tensor inverse = Tensor::empty({3}, DType::kF32, *machine.allocator);
  reference::layer_norm(machine.stream, x, weight, bias, kEpsilon, y, mean, inverse);
  expect_equal(y, formula(in_double(x), in_double(weight)), 12);
  Tensor dx = empty_like(x, machine);
  Tensor dweight = Tensor::zeros({7}, DType::kF32, *machine.allocator);
  reference::layer_norm_backward(machine.stream, x, weight, mean, inverse, dy, Accumulate::kNo, dx, dweight);
  const Loss of_x = [&](const Values& v) { return dot(in_double(dy), formula(v, in_double(weight))); };
  const Loss of_weight = [&](const Values& v) { return dot(in_double(dy), formula(in_double(x), v)); };
  expect_equal(dx, numeric_gradient(of_x, in_double(x)), 40);
  expect_equal(dweight, numeric_gradient(of_weight, in_double(weight)), 40);
}

class OfGate : public ::testing::TestWithParam<Activation> {};
INSTANTIATE_TEST_SUITE_P(ReferenceGradient, OfGate, ::testing::ValuesIn(kActivations));

TEST_P(OfGate, EqualsTheNumericOne) {
  Machine machine(1);
  const Activation activation = GetParam();
  const Tensor gate = uniform({3, 6}, 6, 4, machine);
  const Tensor up = uniform({3, 6}, 2, 5, machine);
  const Tensor dy = uniform({3, 6}, 1, 6, machine);
  const auto of = [activation](double z) {
    if (activation == Activation::kSilu) return z / (1 + std::exp(-z));
    if (activation == Activation::kGelu) return 0.5 * z * (1 + std::erf(z / std::sqrt(2)));
    if (activation == Activation::kRelu) return z < 0 ? 0 : z;
    if (activation == Activation::kTanh) return 1 - 2 / (std::exp(2 * z) + 1);
    return 0.5 * z * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (z + 0.044715 * z * z * z)));
  };
  const auto formula = [&of](const Values& z, const Values& u) {
    Values y;
    for (std::size_t i = 0; i < z.size(); ++i) y.push_back(of(z[i]) * u[i]);
    return y;
  };
  Tensor y = empty_like(gate, machine);
  Tensor dgate = empty_like(gate, machine);
  Tensor dup = empty_like(gate, machine);
  reference::gate(machine.stream, activation, gate, up, y);
  expect_equal(y, formula(in_double(gate), in_double(up)), 12);
  reference::gate_backward(machine.stream, activation, gate, up, dy, dgate, dup);
  const Loss of_gate = [&](const Values& v) { return dot(in_double(dy), formula(v, in_double(up))); };
  const Loss of_up = [&](const Values& v) { return dot(in_double(dy), formula(in_double(gate), v)); };
  expect_equal(dgate, numeric_gradient(of_gate, in_double(gate)), 12);
  expect_equal(dup, numeric_gradient(of_up, in_double(up)), 12);
}

// The rotation is linear and orthogonal when cosine and sine come from an angle: its gradient is the rotation back,
// and going forth and back changes nothing.
TEST(ReferenceGradient, Rotate) {
  Machine machine(1);
  const std::int64_t width = 6;
  const std::vector<std::int32_t> positions = {0, 3, 1};
  Tensor cosine = Tensor::empty({4, 3}, DType::kF32, *machine.allocator);
  Tensor sine = Tensor::empty({4, 3}, DType::kF32, *machine.allocator);
  for (std::int64_t i = 0; i < 12; ++i) {
    set_element(cosine, i, std::cos(0.7F * static_cast<float>(i)));
    set_element(sine, i, std::sin(0.7F * static_cast<float>(i)));
  }
  const Tensor x = uniform({3, 12}, 1, 7, machine);
  const Tensor dy = uniform({3, 12}, 1, 8, machine);
  const Values c = in_double(cosine);
  const Values s = in_double(sine);
  const Loss loss = [&](const Values& v) {
    const Values d = in_double(dy);
    double sum = 0;
    for (std::size_t t = 0; t < 3; ++t) {
      for (std::size_t head = 0; head < 12; head += 6) {
        for (std::size_t i = 0; i < 3; ++i) {
          const auto at = static_cast<std::size_t>(positions[t]) * 3 + i;
          const std::size_t first = t * 12 + head + i;
          sum += d[first] * (v[first] * c[at] - v[first + 3] * s[at]);
          sum += d[first + 3] * (v[first] * s[at] + v[first + 3] * c[at]);
        }
      }
    }
    return sum;
  };
  Operand gradient = copy_of({dy, dy}, *machine.allocator);
  reference::rotate(machine.stream, gradient.view, width, positions, cosine, sine, Direction::kBackward);
  expect_equal(gradient.view, numeric_gradient(loss, in_double(x)), 2);
  Operand round_trip = copy_of({x, x}, *machine.allocator);
  reference::rotate(machine.stream, round_trip.view, width, positions, cosine, sine, Direction::kForward);
  reference::rotate(machine.stream, round_trip.view, width, positions, cosine, sine, Direction::kBackward);
  expect_equal(round_trip.view, in_double(x), 2);
}

TEST(ReferenceGradient, CrossEntropy) {
  Machine machine(1);
  constexpr std::size_t kVocabulary = 5;
  constexpr std::size_t kColumns = 7;
  Tensor logits = uniform({3, 7}, 4, 9, machine);
  const std::vector<std::int32_t> targets = {4, 0, 2};
  const std::vector<float> weights = {1, 0.25F, 0};
  const auto log_probability = [&](const Values& v, std::size_t m) {
    double sum = 0;
    for (std::size_t i = 0; i < kVocabulary; ++i) sum += std::exp(v[m * kColumns + i]);
    return v[m * kColumns + static_cast<std::size_t>(targets[m])] - std::log(sum);
  };
  const Loss loss = [&](const Values& v) {
    double sum = 0;
    for (std::size_t m = 0; m < 3; ++m) sum -= static_cast<double>(weights[m]) * log_probability(v, m);
    return sum;
  };
  const Values point = in_double(logits);
  std::vector<float> scores(3);
  Tensor dlogits = empty_like(logits, machine);
  reference::cross_entropy(machine.stream, logits, kVocabulary, targets, weights, scores, &dlogits);
  for (std::size_t m = 0; m < 3; ++m) {
    EXPECT_NEAR(static_cast<double>(scores[m]), log_probability(point, m), 8 * kUnit * 10);
  }
  expect_equal(dlogits, numeric_gradient(loss, point), 2);
}

// Softmax over an explicit visibility table: which keys each query sees, written out by hand from the plan.
struct Visibility {
  std::size_t heads, key_heads, width;
  std::vector<std::vector<std::size_t>> keys;  // of each query
  double cap = 0;                              // of the scores
  // How far behind each query those keys are, and how far a bias of distances [heads, 2 reach + 1] reaches; 0: none.
  std::vector<std::vector<int>> distances = {};
  int reach = 0;
};

Values attention_formula(const Values& q, const Values& k, const Values& v, const Visibility& see, double scale,
                         const Values& bias = {}) {
  Values output(q.size(), 0.0);
  for (std::size_t t = 0; t < see.keys.size(); ++t) {
    for (std::size_t h = 0; h < see.heads; ++h) {
      const std::size_t from = (t * see.heads + h) * see.width;
      const std::size_t group = h / (see.heads / see.key_heads);
      double sum = 0;
      for (std::size_t n = 0; n < see.keys[t].size(); ++n) {
        const std::size_t s = see.keys[t][n];
        const std::size_t at = (s * see.key_heads + group) * see.width;
        double score = 0;
        for (std::size_t i = 0; i < see.width; ++i) score += scale * q[from + i] * k[at + i];
        if (see.cap > 0) score = see.cap * std::tanh(score / see.cap);
        if (see.reach > 0) {
          const int column = see.reach + std::clamp(see.distances[t][n], -see.reach, see.reach);
          score += bias[h * (2 * static_cast<std::size_t>(see.reach) + 1) + static_cast<std::size_t>(column)];
        }
        sum += std::exp(score);
        for (std::size_t i = 0; i < see.width; ++i) output[from + i] += std::exp(score) * v[at + i];
      }
      for (std::size_t i = 0; i < see.width; ++i) output[from + i] /= sum;
    }
  }
  return output;
}

void check_attention(const tensor::AttentionPlan& plan, std::int64_t keys, std::int64_t window, const Visibility& see) {
  Machine machine(1);
  const auto queries = static_cast<std::int64_t>(see.keys.size());
  const auto width = static_cast<std::int64_t>(see.width);
  const Tensor q = uniform({queries, static_cast<std::int64_t>(see.heads) * width}, 2, 10, machine);
  const Tensor k = uniform({keys, static_cast<std::int64_t>(see.key_heads) * width}, 2, 11, machine);
  const Tensor v = uniform({keys, static_cast<std::int64_t>(see.key_heads) * width}, 1, 12, machine);
  const Tensor dy = uniform(q.shape(), 1, 13, machine);
  Tensor relative;
  if (see.reach > 0) relative = uniform({static_cast<std::int64_t>(see.heads), 2 * see.reach + 1}, 1, 14, machine);
  const Values bias = see.reach > 0 ? in_double(relative) : Values();
  const AttentionArgs args{.query = q,
                           .key = k,
                           .value = v,
                           .head_width = width,
                           .scale = 0.75F,
                           .window = window,
                           .soft_cap = static_cast<float>(see.cap),
                           .relative = relative,
                           .plan = &plan};
  Tensor output = empty_like(q, machine);
  Tensor log_sum = Tensor::empty({queries, static_cast<std::int64_t>(see.heads)}, DType::kF32, *machine.allocator);
  reference::attention(machine.stream, args, output, log_sum);
  const auto formula = [&](const Values& a, const Values& b, const Values& c) {
    return attention_formula(a, b, c, see, 0.75, bias);
  };
  expect_equal(output, formula(in_double(q), in_double(k), in_double(v)), 2);
  Tensor dq = empty_like(q, machine);
  Tensor dk = empty_like(k, machine);
  Tensor dv = empty_like(v, machine);
  Tensor drelative = see.reach > 0 ? empty_like(relative, machine) : Tensor();
  reference::attention_backward(machine.stream, args, output, log_sum, dy, dq, dk, dv,
                                see.reach > 0 ? &drelative : nullptr);
  const Values d = in_double(dy);
  const Values a = in_double(q);
  const Values b = in_double(k);
  const Values c = in_double(v);
  expect_equal(dq, numeric_gradient([&](const Values& x) { return dot(d, formula(x, b, c)); }, a), 10);
  expect_equal(dk, numeric_gradient([&](const Values& x) { return dot(d, formula(a, x, c)); }, b), 30);
  expect_equal(dv, numeric_gradient([&](const Values& x) { return dot(d, formula(a, b, x)); }, c), 30);
  if (see.reach == 0) return;
  const auto of_bias = [&](const Values& x) { return dot(d, attention_formula(a, b, c, see, 0.75, x)); };
  expect_equal(drelative, numeric_gradient(of_bias, bias), 30);
}

TEST(ReferenceGradient, AttentionOfATree) {
  // Tokens 0, 1 are the root; 2 its child; 3, 4 another child; 5 a child of that one.
  const auto plan = tensor::plan_of({{0, 2, -1}, {2, 3, 0}, {3, 5, 0}, {5, 6, 2}});
  check_attention(plan, 6, 0, {4, 2, 3, {{0}, {0, 1}, {0, 1, 2}, {0, 1, 3}, {0, 1, 3, 4}, {0, 1, 3, 4, 5}}});
}

TEST(ReferenceGradient, AttentionWithAWindow) {
  const auto plan = tensor::plan_of({{0, 2, -1}, {2, 3, 0}, {3, 5, 0}, {5, 6, 2}});
  check_attention(plan, 6, 2, {2, 1, 4, {{0}, {0, 1}, {1, 2}, {1, 3}, {3, 4}, {4, 5}}});
}

TEST(ReferenceGradient, AttentionWithASoftCap) {
  const auto plan = tensor::plan_of({{0, 2, -1}, {2, 3, 0}});
  check_attention(plan, 3, 0, {.heads = 2, .key_heads = 1, .width = 4, .keys = {{0}, {0, 1}, {0, 1, 2}}, .cap = 2.0});
}

TEST(ReferenceGradient, AttentionWithABiasOfDistances) {
  check_attention(tensor::plan_of_whole_rows({{0, 3, -1}}), 3, 0,
                  {.heads = 2,
                   .key_heads = 1,
                   .width = 3,
                   .keys = {{0, 1, 2}, {0, 1, 2}, {0, 1, 2}},
                   .distances = {{0, 1, 2}, {-1, 0, 1}, {-2, -1, 0}},
                   .reach = 1});
  check_attention(tensor::plan_of({{0, 2, -1}, {2, 4, 0}}), 4, 0,
                  {.heads = 2,
                   .key_heads = 2,
                   .width = 3,
                   .keys = {{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}},
                   .distances = {{0}, {-1, 0}, {-2, -1, 0}, {-3, -2, -1, 0}},
                   .reach = 2});
}

TEST(ReferenceGradient, SoftCap) {
  Machine machine(1);
  const Tensor x = uniform({3, 5}, 8, 20, machine);
  const Tensor dy = uniform({3, 5}, 1, 21, machine);
  const auto formula = [](const Values& v) {
    Values y;
    for (const double value : v) y.push_back(3 * std::tanh(value / 3));
    return y;
  };
  Tensor y = Tensor::from_floats(x.to_floats(), x.shape(), *machine.allocator);
  Tensor dx = Tensor::from_floats(dy.to_floats(), dy.shape(), *machine.allocator);
  reference::soft_cap(machine.stream, 3, y);
  reference::soft_cap_backward(machine.stream, 3, y, dx);
  expect_equal(y, formula(in_double(x)), 4);
  expect_equal(dx, numeric_gradient([&](const Values& v) { return dot(in_double(dy), formula(v)); }, in_double(x)), 4);
}

TEST(ReferenceGradient, AttentionOverACache) {
  tensor::AttentionPlan plan;
  plan.queries.push_back({.begin = 0, .end = 2, .self_begin = 4, .visible = {{0, 1}, {2, 4}}});
  check_attention(plan, 7, 0, {2, 2, 3, {{0, 2, 3, 4}, {0, 2, 3, 4, 5}}});
}

}  // namespace
}  // namespace instruct::kernels::testing
