// Every operation's gradient against central differences, on both backends, including two passes that accumulate.
#include <gtest/gtest.h>

#include <deque>

#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/dispatch.h"
#include "ops/elementwise.h"
#include "ops/engine.h"
#include "ops/experts.h"
#include "ops/gradient_check.h"
#include "ops/heads.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/rows.h"
#include "ops/weights.h"

namespace instruct::ops {
namespace {

class Gradient : public ::testing::TestWithParam<Backend> {
 protected:
  Engine engine_{2, GetParam()};
  RandomStream random_{7, RandomPurpose::kTest};

  Variable input(const tensor::Shape& shape, double scale = 1.0) { return Variable(random_tensor(shape, scale), true); }
  Variable parameter(const tensor::Shape& shape, double scale = 1.0) {
    return Variable::parameter(random_tensor(shape, scale));
  }
  Tensor random_tensor(const tensor::Shape& shape, double scale) {
    Tensor tensor = Tensor::empty(shape, DType::kF32, engine_.allocator());
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      tensor.data<float>()[i] = static_cast<float>(random_.next_normal() * scale);
    }
    return tensor;
  }

  // sum of weights * y in f64; with a tape, seeds y's gradient with the weights.
  double weighted_sum(const Variable& y, const Tensor& weights, Tape* tape) {
    double sum = 0;
    for (std::int64_t i = 0; i < y.value().elements(); ++i) {
      sum += static_cast<double>(y.value().data<float>()[i]) * static_cast<double>(weights.data<float>()[i]);
    }
    if (tape != nullptr) {
      y.mutable_gradient() = Tensor::empty(weights.shape(), DType::kF32, engine_.allocator());
      std::copy_n(weights.data<float>(), weights.elements(), y.mutable_gradient().data<float>());
    }
    return sum;
  }

  // `besides`: what the last forward pass adds to the loss in another way.
  void expect_gradients(const std::function<Variable(const Context&)>& forward, const std::vector<Variable>& inputs,
                        double absolute = 2e-3, double relative = 2e-3, const std::function<double()>& besides = {}) {
    const Variable probe = forward(engine_.context());
    const Tensor weights = random_tensor(probe.value().shape(), 1.0);
    const auto loss = [&](Tape* tape) {
      const double sum = weighted_sum(forward(engine_.context(tape)), weights, tape);
      return besides ? sum + besides() : sum;
    };
    for (const Variable& variable : inputs) variable.mutable_gradient() = Tensor();
    const GradientCheck check = check_gradients(loss, inputs, absolute, relative);
    EXPECT_LE(check.worst, 1.0) << check.description;
    // A second pass adds to the gradients of parameters: they double.
    for (const Variable& variable : inputs) {
      if (!variable.is_parameter()) continue;
      const std::vector<float> once = variable.gradient().to_floats();
      Tape tape;
      loss(&tape);
      tape.backward();
      const std::vector<float> twice = variable.gradient().to_floats();
      for (std::size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-4 + 1e-4 * std::abs(once[i]));
      break;
    }
  }
};

TEST_P(Gradient, RmsNorm) {
  for (const std::int64_t width : {1, 5, 64, 77}) {
    const Variable x = input({3, width});
    const Variable w = parameter({width});
    for (const float offset : {0.0F, 1.0F}) {
      expect_gradients([&](const Context& c) { return rms_norm(c, x, w, {.epsilon = 1e-5F, .offset = offset}); },
                       {x, w});
    }
  }
}

TEST_P(Gradient, LayerNorm) {
  for (const std::int64_t width : {5, 64, 77}) {
    const Variable x = input({3, width});
    const Variable w = parameter({width});
    const Variable b = parameter({width});
    expect_gradients([&](const Context& c) { return layer_norm(c, x, w, b, 1e-5F); }, {x, w, b});
    expect_gradients([&](const Context& c) { return layer_norm(c, x, w, Variable(), 1e-5F); }, {x, w});
    const Variable frozen(w.value());
    expect_gradients([&](const Context& c) { return layer_norm(c, x, frozen, Variable(), 1e-5F); }, {x});
    expect_gradients([&](const Context& c) { return layer_norm(c, Variable(x.value()), frozen, b, 1e-5F); }, {b});
  }
}

TEST_P(Gradient, HeadsAsRows) {
  const Variable x = input({5, 12});
  const Context context = engine_.context();
  const Variable rows = heads_to_rows(context, x, 4);
  EXPECT_EQ(rows.value().shape(), (tensor::Shape{15, 4}));
  EXPECT_EQ(rows.value().data<float>()[5 * 4 + 1], x.value().data<float>()[5]);  // the second head of the first token
  EXPECT_EQ(heads_from_rows(context, rows, 3).value().to_floats(), x.value().to_floats());
  expect_gradients([&](const Context& c) { return heads_to_rows(c, x, 4); }, {x});
  const Variable y = input({15, 4});
  expect_gradients([&](const Context& c) { return heads_from_rows(c, y, 3); }, {y});
  // A second use adds to the first's gradient.
  expect_gradients([&](const Context& c) { return add(c, heads_to_rows(c, x, 4), heads_to_rows(c, x, 4)); }, {x});
}

TEST_P(Gradient, LinearPlainBiasAndLowRank) {
  const Variable x = input({5, 33});
  const Variable w = parameter({17, 33}, 0.2);
  const Variable b = parameter({17});
  expect_gradients([&](const Context& c) { return linear(c, x, w, b, nullptr); }, {x, w, b}, 5e-3);
  for (const float dropout : {0.0F, 0.5F}) {
    const LowRank branch{.a = parameter({4, 33}, 0.3),
                         .b = parameter({17, 4}, 0.3),
                         .scale = 2.0F,
                         .dropout = dropout,
                         .random = RandomStream(3, RandomPurpose::kDropout, 1)};
    const Variable frozen(w.value());
    // Dropout acts only while recording: the numeric passes must record too.
    const auto forward = [&](const Context& c) {
      Tape own;
      Context recording = c;
      if (recording.tape == nullptr) recording.tape = &own;
      return linear(recording, x, frozen, Variable(), &branch);
    };
    expect_gradients(forward, {x, branch.a, branch.b}, 5e-3);
  }
}

// The balance of two layers adds its gradient to that of the mixed rows, and counts each layer once however often it is
// computed again.
TEST_P(Gradient, ExpertsAndTheirBalance) {
  const std::vector<Variable> logits{input({6, 4}, 2.0), input({6, 4}, 2.0)};
  const Variable x = input({12, 7});
  std::deque<std::vector<std::int32_t>> kept_rows;
  std::vector<std::shared_ptr<Balance>> balances;
  for (const Renormalise renormalise : {Renormalise::kNo, Renormalise::kYes}) {
    const auto forward = [&](const Context& c) {
      auto balance = std::make_shared<Balance>(3.0F);
      Variable sum;
      for (const Variable& layer : logits) {
        const auto routing = route(c, layer, {.count = 2, .renormalise = renormalise}, balance.get());
        std::vector<Variable> parts(4);
        for (std::size_t e = 0; e < 4; ++e) {
          if (routing->begins[e] == routing->begins[e + 1]) continue;
          std::vector<std::int32_t> rows;
          for (std::int64_t i = routing->begins[e]; i < routing->begins[e + 1]; ++i)
            rows.push_back(static_cast<std::int32_t>(i));
          kept_rows.push_back(rows);
          parts[e] = select_rows(c, x, kept_rows.back());
        }
        const Variable mixed = mix_experts(c, routing, parts);
        sum = sum.defined() ? add(c, sum, mixed) : mixed;
      }
      balance->close();
      balances.push_back(balance);
      return sum;
    };
    expect_gradients(forward, {x, logits[0], logits[1]}, 4e-3, 4e-3, [&] { return 3.0 * balances.back()->loss(); });
  }
}

TEST_P(Gradient, RotateGateScaleAdd) {
  const std::vector<std::int32_t> positions{0, 1, 2, 7, 3};
  RotaryTables tables{random_tensor({8, 8}, 1.0), random_tensor({8, 8}, 1.0)};
  for (std::int64_t i = 0; i < 64; ++i) {
    const float angle = tables.cosine.data<float>()[i];
    tables.cosine.data<float>()[i] = std::cos(angle);
    tables.sine.data<float>()[i] = std::sin(angle);
  }
  const Variable zero(Tensor::zeros({5, 32}, DType::kF32, engine_.allocator()));
  const Variable x = input({5, 32});
  expect_gradients([&](const Context& c) { return rotate(c, add(c, x, zero), 16, positions, tables); }, {x});
  // The first 16 numbers of heads of 32.
  expect_gradients([&](const Context& c) { return rotate(c, add(c, x, zero), 32, positions, tables); }, {x});
  const Variable gate = input({5, 32});
  const Variable up = input({5, 32});
  for (const Activation activation : kernels::kActivations) {
    expect_gradients([&](const Context& c) { return activate(c, activation, x); }, {x}, 4e-3, 4e-3);
    const auto of_copies = [&](const Context& c) {
      return ops::gate(c, activation, add(c, gate, zero), add(c, up, zero));
    };
    expect_gradients(of_copies, {gate, up}, 4e-3, 4e-3);
  }
  expect_gradients([&](const Context& c) { return scale(c, add(c, x, zero), 3.5F); }, {x});
  expect_gradients([&](const Context& c) { return add(c, x, add(c, x, gate)); }, {x, gate});
}

TEST_P(Gradient, AttentionOverATree) {
  // A prefix of 6, two branches of 5 and 9 on it, and a packed row of 70 (two blocks).
  const std::vector<tensor::Segment> segments{{0, 6, -1}, {6, 11, 0}, {11, 20, 0}, {20, 90, -1}};
  const tensor::AttentionPlan plan = tensor::plan_of(segments);
  const Variable q = input({90, 32});
  const Variable k = input({90, 16});
  const Variable v = input({90, 16});
  const AttentionOptions options{.head_width = 8, .scale = 0.35F};
  expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, options); }, {q, k, v}, 4e-3, 4e-3);
  const AttentionOptions window{.head_width = 8, .scale = 0.35F, .window = 4};
  expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, window); }, {q, k, v}, 4e-3, 4e-3);
  const AttentionOptions cap{.head_width = 8, .scale = 0.35F, .soft_cap = 1.5F};
  expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, cap); }, {q, k, v}, 4e-3, 4e-3);
}

// Biases by distance, of rows that are seen whole and of trees.
TEST_P(Gradient, AttentionWithABiasOfDistances) {
  const Variable q = input({40, 32});
  const Variable k = input({40, 16});
  const Variable v = input({40, 16});
  DistanceBias bias{.weights = parameter({3, 4}), .buckets = {}};
  for (std::int32_t d = -6; d <= 6; ++d) bias.buckets.push_back(d < -2 ? 0 : d < 3 ? 1 : 2);
  const AttentionOptions options{.head_width = 8, .scale = 0.35F};
  for (const tensor::AttentionPlan& plan : {tensor::plan_of_whole_rows({{0, 6, -1}, {6, 7, -1}, {7, 40, -1}}),
                                            tensor::plan_of({{0, 6, -1}, {6, 11, 0}, {11, 20, 0}, {20, 40, -1}})}) {
    expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, options, &bias); },
                     {q, k, v, bias.weights}, 4e-3, 4e-3);
  }
}

// Rows that are seen whole (encoders), and keys of another text (cross-attention, blocks of an encoder).
TEST_P(Gradient, AttentionOverWholeRows) {
  const std::vector<tensor::Segment> rows{{0, 6, -1}, {6, 7, -1}, {7, 90, -1}};
  tensor::AttentionPlan plan = tensor::plan_of_whole_rows(rows);
  const Variable q = input({90, 32});
  const Variable k = input({90, 16});
  const Variable v = input({90, 16});
  for (const std::int64_t window : {0, 5}) {
    const AttentionOptions options{.head_width = 8, .scale = 0.35F, .window = window};
    expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, options); }, {q, k, v}, 4e-3, 4e-3);
  }
  plan.queries = {
      {.begin = 0, .end = 70, .self_begin = 0, .visible = {{3, 9}, {40, 44}}, .own = tensor::OwnKeys::kNone},
      {.begin = 70, .end = 90, .self_begin = 0, .visible = {{8, 30}}, .own = tensor::OwnKeys::kNone}};
  const AttentionOptions options{.head_width = 8, .scale = 0.35F};
  expect_gradients([&](const Context& c) { return attention(c, q, k, v, plan, options); }, {q, k, v}, 4e-3, 4e-3);
  const AttentionOptions window{.head_width = 8, .scale = 0.35F, .window = 5};
  EXPECT_THROW(attention(engine_.context(), q, k, v, plan, window), Error);
  plan.queries[0].visible.clear();
  EXPECT_THROW(attention(engine_.context(), q, k, v, plan, options), Error);
}

TEST_P(Gradient, EmbeddingAndSelectedRows) {
  const Variable table = parameter({7, 6});
  const std::vector<std::int32_t> ids{3, 0, 3, 6};
  const std::vector<std::int32_t> rows{2, 2, 0};
  expect_gradients([&](const Context& c) { return embedding(c, table, ids, DType::kF32); }, {table});
  const Variable x = input({4, 6});
  expect_gradients([&](const Context& c) { return select_rows(c, x, rows); }, {x});
  {  // as torch.nn.Embedding(padding_idx=3): the row has no gradient, the others theirs
    Tape tape;
    table.mutable_gradient() = Tensor();
    const Variable y = embedding(engine_.context(&tape), table, ids, DType::kF32, 3);
    y.mutable_gradient() = Tensor::from_floats(std::vector<float>(24, 1.0F), {4, 6}, engine_.allocator());
    tape.backward();
    const float* gradient = table.gradient().data<float>();
    EXPECT_EQ(gradient[3 * 6], 0.0F);
    EXPECT_EQ(gradient[0], 1.0F);
    EXPECT_EQ(gradient[6 * 6], 1.0F);
  }
  const std::vector<std::int32_t> outside{7};
  EXPECT_THROW(embedding(engine_.context(), table, outside, DType::kF32), Error);
}

TEST_P(Gradient, LinearCrossEntropyIsTheWeightedNegativeLogLikelihood) {
  const Variable x = input({9, 12});
  const Variable w = parameter({21, 12}, 0.4);
  const std::vector<std::int32_t> targets{0, 3, 19, 3, 7, 11, 2, 2, 18};
  const std::vector<float> weights{0.1F, 0.2F, 0.05F, 0.0F, 0.3F, 0.1F, 0.1F, 0.1F, 0.05F};
  float soft_cap = 0;
  Variable bias;
  const auto loss = [&](Tape* tape) {
    const std::vector<float> logp =
        linear_cross_entropy(engine_.context(tape), x, w, {targets, weights}, 20, {}, {soft_cap, bias});
    double sum = 0;
    for (std::size_t i = 0; i < logp.size(); ++i) sum -= static_cast<double>(weights[i]) * static_cast<double>(logp[i]);
    return sum;
  };
  const GradientCheck check = check_gradients(loss, {x, w}, 1e-3, 2e-3);
  EXPECT_LE(check.worst, 1.0) << check.description;
  // Column 20 lies outside the vocabulary of 20: it takes no part.
  for (std::int64_t i = 0; i < 12; ++i) EXPECT_EQ(w.gradient().data<float>()[20 * 12 + i], 0.0F);
  soft_cap = 1.5F;
  for (const Variable& variable : {x, w}) variable.mutable_gradient() = Tensor();
  const GradientCheck capped = check_gradients(loss, {x, w}, 1e-3, 2e-3);
  EXPECT_LE(capped.worst, 1.0) << capped.description;
  soft_cap = 0;
  bias = parameter({21}, 0.4);
  for (const Variable& variable : {x, w}) variable.mutable_gradient() = Tensor();
  const GradientCheck biased = check_gradients(loss, {x, w, bias}, 1e-3, 2e-3);
  EXPECT_LE(biased.worst, 1.0) << biased.description;
}

TEST_P(Gradient, LossesOfHeads) {
  const Variable x = input({5, 4});
  const std::vector<std::int32_t> targets{0, 3, 1, 1, 2};
  const std::vector<float> weights{0.1F, 0.2F, 0.3F, 0.0F, 0.4F};
  const Tensor truth = Tensor::from_floats(
      std::vector<float>{0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0}, {5, 4}, engine_.allocator());
  for (const bool several : {false, true}) {
    x.mutable_gradient() = Tensor();
    const auto loss = [&](Tape* tape) {
      const Context context = engine_.context(tape);
      const std::vector<float> log_probabilities = several ? sigmoid_cross_entropy(context, x, truth, weights)
                                                           : softmax_cross_entropy(context, x, targets, weights);
      double sum = 0;
      for (std::size_t i = 0; i < weights.size(); ++i)
        sum -= static_cast<double>(weights[i]) * static_cast<double>(log_probabilities[i]);
      return sum;
    };
    const GradientCheck check = check_gradients(loss, {x}, 1e-3, 2e-3);
    EXPECT_LE(check.worst, 1.0) << check.description;
  }
  const std::vector<std::int32_t> outside{0, 3, 4, 1, 2};
  EXPECT_THROW(softmax_cross_entropy(engine_.context(), x, outside, weights), Error);
}

TEST_P(Gradient, LossesOfColumnsOverRanges) {
  const Variable x = input({9, 2});
  const std::vector<tensor::KeyRange> ranges{{0, 4}, {5, 9}};
  const std::vector<std::int32_t> targets{1, 3, 5, 5};
  const auto loss = [&](Tape* tape) {
    double sum = 0;
    for (const float value : column_cross_entropy(engine_.context(tape), x, ranges, targets, 0.3F))
      sum -= 0.3 * static_cast<double>(value);
    return sum;
  };
  const GradientCheck check = check_gradients(loss, {x}, 1e-3, 2e-3);
  EXPECT_LE(check.worst, 1.0) << check.description;
  EXPECT_EQ(x.gradient().data<float>()[4 * 2], 0.0F);  // of no range
  const std::vector<std::int32_t> outside{4, 3, 5, 5};
  EXPECT_THROW(column_cross_entropy(engine_.context(), x, ranges, outside, 1), Error);
}

TEST_P(Gradient, MeansOfRowsAndPartsOfColumns) {
  const Variable x = input({9, 6});
  const std::vector<tensor::KeyRange> ranges{{0, 1}, {2, 6}, {6, 9}};
  expect_gradients([&](const Context& c) { return mean_rows(c, x, ranges); }, {x});
  const std::vector<tensor::KeyRange> outside{{2, 10}};
  EXPECT_THROW(mean_rows(engine_.context(), x, outside), Error);
  const Variable zero(Tensor::zeros({9, 6}, DType::kF32, engine_.allocator()));
  const auto of_parts = [&](const Context& c) {
    const std::vector<Variable> parts = split_columns(c, add(c, x, zero), std::array<std::int64_t, 3>{2, 2, 2});
    return add(c, parts[0], scale(c, parts[2], 3.0F));  // nobody reads the second
  };
  expect_gradients(of_parts, {x});
  const auto dropped = [&](const Context& c) {
    Tape own;  // acts only while recording
    Context recording = c;
    if (recording.tape == nullptr) recording.tape = &own;
    return dropout(recording, add(recording, x, zero), 0.4F, RandomStream(3, RandomPurpose::kDropout, 1));
  };
  expect_gradients(dropped, {x});
}

// A vocabulary of several tiles, rows with several predictions, the same one twice among them, and rows with none.
TEST_P(Gradient, CrossEntropyOfAFrozenWeightIsThatOfATrainedOne) {
  constexpr std::int64_t kRows = 20, kVocabulary = 2500;
  const Variable x = input({kRows, 12});
  const Tensor w = random_tensor({kVocabulary + 30, 12}, 1.0);
  std::vector<std::int32_t> rows, targets;
  std::vector<float> weights;
  for (std::int32_t i = 0; i < 30; ++i) {
    rows.push_back(i * 7 % 19);
    targets.push_back(i % 19 == 0 ? 2499 : i * 331 % 2500);
    weights.push_back(static_cast<float>(1 + i % 3));
  }
  const Tensor bias = random_tensor({kVocabulary + 30}, 1.0);
  const Tensor plain = logits(engine_.context(), x.value(), w);
  for (const LogitOptions& options :
       {LogitOptions{}, LogitOptions{.soft_cap = 3}, LogitOptions{.bias = Variable(bias)}}) {
    const auto run = [&](const Variable& head) {
      Tape tape;
      x.mutable_gradient() = Tensor();
      const auto logp =
          linear_cross_entropy(engine_.context(&tape), x, head, {targets, weights, rows}, kVocabulary, {}, options);
      tape.backward();
      return std::pair(logp, x.gradient().to_floats());
    };
    const auto [expected, dexpected] = run(Variable::parameter(w));
    const auto [actual, dactual] = run(Variable(w));
    // Sums of 2500 terms by tiles and at once, of logits up to 10: some hundreds of roundings of 6e-8.
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5F) << i;
    for (std::size_t i = 0; i < dexpected.size(); ++i) EXPECT_NEAR(dactual[i], dexpected[i], 5e-5F) << i;
    const auto unrecorded =
        linear_cross_entropy(engine_.context(), x, Variable(w), {targets, weights, rows}, kVocabulary, {}, options);
    EXPECT_EQ(unrecorded, actual);
    const Tensor changed = logits(engine_.context(), x.value(), w, {}, options);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      // What log P is taken of: the logits themselves, changed as asked for.
      float expected_logit = plain.data<float>()[rows[i] * plain.row_stride() + targets[i]];
      if (options.bias.defined()) expected_logit += bias.data<float>()[targets[i]];
      if (options.soft_cap > 0) expected_logit = 3 * std::tanh(expected_logit / 3);
      std::vector<float> row = changed.rows(rows[i], rows[i] + 1).to_floats();
      EXPECT_NEAR(row[static_cast<std::size_t>(targets[i])], expected_logit, 1e-5F);
      row.resize(kVocabulary);
      EXPECT_NEAR(log_probability(row, targets[i]), actual[i], 2e-5);
    }
  }
}

// Where a prediction is nearly certain, its gradient is what is left of 1: in bf16 it would drown in the rounding of p.
TEST_P(Gradient, ACertainPredictionHasASmallGradient) {
  const Tensor wide = Tensor::from_floats(std::vector<float>{8, 0, -8}, {3, 1}, engine_.allocator());
  const Variable x(converted_copy(Tensor::from_floats(std::vector<float>{1}, {1, 1}, engine_.allocator()), DType::kBF16,
                                  engine_.allocator()),
                   true);
  const Variable w(converted_copy(wide, DType::kBF16, engine_.allocator()));
  Tape tape;
  const std::vector<std::int32_t> targets{0};
  const std::vector<float> weights{1};
  linear_cross_entropy(engine_.context(&tape), x, w, {targets, weights}, 3);
  tape.backward();
  const double rest = std::exp(-8.0) + std::exp(-16.0);
  const double expected = (8 + 0 * std::exp(-8.0) - 8 * std::exp(-16.0)) / (1 + rest) - 8;
  EXPECT_NEAR(static_cast<double>(x.gradient().to_floats()[0]), expected, 0x1p-7 * std::abs(expected));
}

TEST(GradientCheck, SeesAWrongGradient) {
  Engine engine(1);
  const Variable x(Tensor::from_floats(std::vector<float>{1, 2}, {1, 2}, engine.allocator()), true);
  const auto loss = [&](Tape* tape) {
    const float* v = x.value().data<float>();
    if (tape != nullptr)
      x.mutable_gradient() = Tensor::from_floats(std::vector<float>{2, 5}, {1, 2}, engine.allocator());
    return static_cast<double>(v[0] * v[0] + v[1] * v[1]);
  };
  EXPECT_GT(check_gradients(loss, {x}, 1e-3, 1e-3).worst, 100.0);
}

INSTANTIATE_TEST_SUITE_P(Backends, Gradient, ::testing::Values(Backend::kCpu, Backend::kReference),
                         [](const auto& name) { return name.param == Backend::kCpu ? "cpu" : "reference"; });

}  // namespace
}  // namespace instruct::ops
