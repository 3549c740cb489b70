// Attention of the CPU backend against the reference, over plans: plain rows, packed rows, trees, caches, windows.
#include "kernels/attention_cases.h"

namespace instruct::kernels::testing {
namespace {

// A key collects from every query and head that sees it: the largest total weight of one key is counted for the bound.
double most_weight(const AttentionCase& c, const Inputs& inputs, const Tensor& log_sum) {
  std::vector<double> weight(static_cast<std::size_t>(c.keys * c.heads.key), 0.0);
  const std::vector<float> q = inputs.query.view.to_floats();
  const std::vector<float> k = inputs.key.view.to_floats();
  const std::vector<float> sums = log_sum.to_floats();
  const std::int64_t width = c.heads.width;
  const double scale = static_cast<double>(inputs.args(c).scale);
  for (const tensor::QuerySegment& segment : c.plan.queries) {
    for (std::int64_t t = segment.begin; t < segment.end; ++t) {
      std::vector<tensor::KeyRange> ranges = segment.visible;
      ranges.push_back({segment.self_begin, segment.self_begin + segment.own_keys_of(t - segment.begin + 1)});
      for (const tensor::KeyRange& range : ranges) {
        for (std::int64_t s = range.begin; s < range.end; ++s) {
          for (std::int64_t h = 0; h < c.heads.query; ++h) {
            const std::int64_t g = h / (c.heads.query / c.heads.key);
            double score = 0;
            for (std::int64_t i = 0; i < width; ++i) {
              score += static_cast<double>(q[static_cast<std::size_t>((t * c.heads.query + h) * width + i)]) *
                       static_cast<double>(k[static_cast<std::size_t>((s * c.heads.key + g) * width + i)]);
            }
            const double sum = static_cast<double>(sums[static_cast<std::size_t>(t * c.heads.query + h)]);
            const auto cap = static_cast<double>(c.soft_cap);
            const double bounded = cap > 0 ? cap * std::tanh(scale * score / cap) : scale * score;
            weight[static_cast<std::size_t>(s * c.heads.key + g)] += std::min(1.0, std::exp(bounded - sum));
          }
        }
      }
    }
  }
  return weight.empty() ? 0 : *std::max_element(weight.begin(), weight.end());
}

void check(const AttentionCase& c, std::vector<std::unique_ptr<Machine>>& machines) {
  SCOPED_TRACE(text(c));
  const Inputs inputs = make_inputs(c, *machines[0]->allocator);
  const Forward expected = forward(reference::attention, c, inputs, *machines[0]);
  const Forward actual = forward(cpu::attention, c, inputs, *machines[0]);
  ASSERT_EQ(mismatch(actual.output.view, expected.output.view, output_bound(c)), "") << "output";
  ASSERT_EQ(mismatch(actual.log_sum, expected.log_sum, log_sum_bound(c)), "") << "log_sum";
  ASSERT_TRUE(gaps_untouched(actual.output));

  // Both backward passes start from the same kept values.
  const Gradients wanted = backward(reference::attention_backward, c, inputs, expected, *machines[0]);
  const Gradients got = backward(cpu::attention_backward, c, inputs, expected, *machines[0]);
  const Bound query_bound = query_gradient_bound(c);
  // A bias of at most 1, which the weights are counted without, makes them e times as large.
  const double weight = 1 + (c.reach > 0 ? 3 : 1) * most_weight(c, inputs, expected.log_sum);
  const Bound key_bound{.relative = 4, .absolute = query_bound.absolute * weight};
  ASSERT_EQ(mismatch(got.query.view, wanted.query.view, query_bound), "") << "dquery";
  ASSERT_EQ(mismatch(got.key.view, wanted.key.view, key_bound), "") << "dkey";
  ASSERT_EQ(mismatch(got.value.view, wanted.value.view, key_bound), "") << "dvalue";
  if (c.reach > 0) {
    // Every query adds its errors to some distance, in the worst case all to one.
    const Bound bias_bound{.relative = 4,
                           .absolute = query_bound.absolute * static_cast<double>(query_count(c.plan) + 1)};
    ASSERT_EQ(mismatch(got.relative, wanted.relative, bias_bound), "") << "drelative";
  }
  ASSERT_TRUE(gaps_untouched(got.query) && gaps_untouched(got.key) && gaps_untouched(got.value));

  for (std::size_t i = 1; i < machines.size(); ++i) {
    const Forward again = forward(cpu::attention, c, inputs, *machines[i]);
    ASSERT_TRUE(same_bytes(again.output.whole, actual.output.whole)) << "output depends on the threads";
    ASSERT_TRUE(same_bytes(again.log_sum, actual.log_sum)) << "log_sum depends on the threads";
    const Gradients repeated = backward(cpu::attention_backward, c, inputs, expected, *machines[i]);
    ASSERT_TRUE(same_bytes(repeated.query.whole, got.query.whole)) << "dquery depends on the threads";
    ASSERT_TRUE(c.reach == 0 || same_bytes(repeated.relative, got.relative)) << "drelative depends on the threads";
    ASSERT_TRUE(same_bytes(repeated.key.whole, got.key.whole)) << "dkey depends on the threads";
    ASSERT_TRUE(same_bytes(repeated.value.whole, got.value.whole)) << "dvalue depends on the threads";
  }
}

class OnProducts : public ::testing::TestWithParam<CpuFeatures> {};
INSTANTIATE_TEST_SUITE_P(Attention, OnProducts, ::testing::ValuesIn(product_features()),
                         [](const auto& tested) { return testing::product_name(tested.param); });

TEST_P(OnProducts, PlansEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
      for (AttentionCase c : plans()) {
        c.dtype = dtype;
        c.layout = layout;
        check(c, machines);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(OnProducts, WindowsEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const std::int64_t window : {1, 2, 17, 64, 70, 1000}) {
    for (AttentionCase c :
         {tree_case("row of 130", rows_of({130})), tree_case("tree", depth_three_tree()), decode_case(200, 1, 256),
          decode_case(200, 40, 256), branched_decode_case(), whole_case("rows seen whole", {130, 3, 40})}) {
      c.window = window;
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        c.dtype = dtype;
        check(c, machines);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Biases of distances, which reach less far than the rows, as far, and farther.
TEST_P(OnProducts, BiasesOfDistancesEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const std::int64_t reach : {1, 16, 129, 700}) {
    for (AttentionCase c :
         {tree_case("row of 130", rows_of({130})), tree_case("tree", depth_three_tree()), decode_case(300, 3, 310),
          decode_case(200, 40, 256), branched_decode_case(), whole_case("rows seen whole", {130, 3, 40})}) {
      c.reach = reach;
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        c.dtype = dtype;
        check(c, machines);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(OnProducts, HeadShapesEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Heads& heads : kHeads) {
      for (AttentionCase c : {tree_case("packed rows", rows_of({3, 40, 17})),
                              tree_case("tree", tree_of({35, 9, 12, 3}, {-1, 0, 0, 2})), decode_case(70, 1, 80)}) {
        c.heads = heads;
        c.dtype = dtype;
        check(c, machines);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Heads as wide as tiles need them, and rows longer than what is computed in one step: 512 keys forward, 128 queries
// and keys backward, trees that are cut by heads.
TEST_P(OnProducts, WideHeadsEqualTheReference) {
  auto machines = three_machines(GetParam());
  std::vector<AttentionCase> cases = plans();
  for (const std::int64_t length : {31, 33, 96, 129, 257, 600}) {
    cases.push_back(tree_case(fmt::format("one row of {}", length), rows_of({length})));
  }
  cases.push_back(tree_case("rows on both sides of a cut", rows_of({540, 20, 300})));
  cases.push_back(tree_case("long prefix", tree_of({530, 40, 9, 70, 3}, {-1, 0, 0, 2, 0})));
  cases.push_back(decode_case(550, 70, 700));
  cases.push_back(whole_case("long rows seen whole", {540, 20, 300}));
  for (AttentionCase c : cases) {
    const bool is_long = c.keys > 256;
    c.heads = is_long ? Heads{2, 1, 32} : Heads{4, 2, 64};
    c.layout = is_long ? Layout::kDense : Layout::kGaps;
    c.dtype = DType::kBF16;
    check(c, machines);
    if (HasFatalFailure()) return;
  }
}

TEST_P(OnProducts, WindowsOfWideHeadsEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const std::int64_t window : {1, 17, 32, 33, 200, 513}) {
    for (AttentionCase c : {tree_case("row of 540", rows_of({540})), tree_case("tree", depth_three_tree()),
                            decode_case(200, 40, 256), branched_decode_case(), whole_case("whole rows", {300, 40})}) {
      c.window = window;
      c.heads = {.query = 2, .key = 1, .width = 32};
      c.dtype = DType::kBF16;
      check(c, machines);
      if (HasFatalFailure()) return;
    }
  }
}

// Scores reach 30: a cap of 3 bounds most of them, one of 50 few.
TEST_P(OnProducts, SoftCapsEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const float cap : {3.0F, 50.0F}) {
    for (AttentionCase c : {tree_case("row of 130", rows_of({130})), tree_case("tree", depth_three_tree()),
                            decode_case(600, 1, 640), decode_case(200, 40, 256), branched_decode_case()}) {
      c.soft_cap = cap;
      for (const std::int64_t window : {0, 70}) {
        c.window = window;
        for (const Heads& heads : {Heads{4, 2, 16}, Heads{2, 1, 64}}) {
          c.heads = heads;
          for (const DType dtype : {DType::kF32, DType::kBF16}) {
            c.dtype = dtype;
            check(c, machines);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(Attention, EveryTargetEqualsTheReference) {
  for_each_target([](const char* target) {
    SCOPED_TRACE(target);
    auto machines = three_machines();
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (AttentionCase c : {tree_case("tree", tree_of({35, 9, 12, 3}, {-1, 0, 0, 2})), decode_case(70, 1, 80)}) {
        c.dtype = dtype;
        for (const float cap : {0.0F, 5.0F}) {
          c.soft_cap = cap;
          check(c, machines);
        }
      }
    }
  });
}

// Keys that nobody sees get zero gradients, whatever was there.
TEST(Attention, UnseenKeysGetZeroGradients) {
  Machine machine(2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    AttentionCase c = decode_case(10, 6, 40);
    c.dtype = dtype;
    const Inputs inputs = make_inputs(c, *machine.allocator);
    const Forward kept = forward(reference::attention, c, inputs, machine);
    for (const BackwardKernel kernel : {reference::attention_backward, cpu::attention_backward}) {
      const Gradients got = backward(kernel, c, inputs, kept, machine);
      for (const Tensor& gradient : {got.key.view.rows(16, 40), got.value.view.rows(16, 40)}) {
        for (const float value : gradient.to_floats()) ASSERT_EQ(value, 0);
      }
    }
  }
}

// Few queries behind a cache, to the bit: together as one by one, and however their keys are cut into ranges. It is
// what batched generation, blocks of a cache and the verification of proposed tokens rely on.
TEST(Attention, FewQueriesGiveWhatEachGivesAlone) {
  Machine machine(2);
  for (const std::int64_t window : {0, 70, 300}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      AttentionCase together = decode_case(510, 4, 520);  // the stretches' border lies among the queries
      together.window = window;
      together.dtype = dtype;
      together.heads = {.query = 6, .key = 2, .width = 20};
      const Inputs inputs = make_inputs(together, *machine.allocator);
      const Forward expected = forward(cpu::attention, together, inputs, machine);
      AttentionCase alone = together;
      alone.plan.queries.clear();
      for (std::int64_t t = 0; t < 4; ++t) {
        tensor::QuerySegment query{.begin = t, .end = t + 1, .self_begin = 510 + t, .visible = {}};
        for (std::int64_t key = 0; key < 510 + t; key += 17 + t)
          query.visible.push_back({key, std::min(key + 17 + t, 510 + t)});
        alone.plan.queries.push_back(std::move(query));
      }
      const Forward got = forward(cpu::attention, alone, inputs, machine);
      EXPECT_TRUE(same_bytes(got.output.whole, expected.output.whole)) << text(together);
      EXPECT_TRUE(same_bytes(got.log_sum, expected.log_sum)) << text(together);
    }
  }
}

// Decoding steps of branches read the keys they share once; each gives what it gives alone, to the bit.
TEST(Attention, BranchesOfFewQueriesGiveWhatEachGivesAlone) {
  Machine machine(2);
  using Ranges = std::vector<tensor::KeyRange>;
  // Two prefixes of 600 and of 256 keys, and answers of several lengths behind them; one that shares nothing between.
  const std::vector<std::pair<Ranges, std::int64_t>> rows = {{{{0, 600}, {900, 905}}, 905},
                                                             {{{0, 600}, {910, 913}}, 913},
                                                             {{}, 1500},
                                                             {{{0, 600}, {920, 1200}}, 1200},
                                                             {{{0, 300}, {300, 600}}, 930},
                                                             {{{600, 856}}, 940},
                                                             {{{600, 856}, {950, 951}}, 951},
                                                             {{{600, 800}}, 960}};
  for (const std::int64_t window : {0, 300}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      AttentionCase together = decode_case(1500, static_cast<std::int64_t>(rows.size()), 1510);
      together.window = window;
      together.dtype = dtype;
      together.heads = {.query = 6, .key = 2, .width = 20};
      together.plan.queries.clear();
      for (const auto& [visible, slot] : rows) {
        const auto token = static_cast<std::int64_t>(together.plan.queries.size());
        together.plan.queries.push_back({.begin = token, .end = token + 1, .self_begin = slot, .visible = visible});
      }
      const Inputs inputs = make_inputs(together, *machine.allocator);
      const Forward got = forward(cpu::attention, together, inputs, machine);
      const Forward wanted = forward(reference::attention, together, inputs, machine);
      EXPECT_EQ(mismatch(got.output.view, wanted.output.view, output_bound(together)), "");
      for (std::size_t i = 0; i < rows.size(); ++i) {
        AttentionCase alone = together;
        alone.plan.queries = {together.plan.queries[i]};
        const Forward one = forward(cpu::attention, alone, inputs, machine);
        const auto t = static_cast<std::int64_t>(i);
        EXPECT_TRUE(same_bytes(one.output.whole.rows(t, t + 1), got.output.whole.rows(t, t + 1))) << text(alone);
        EXPECT_TRUE(same_bytes(one.log_sum.rows(t, t + 1), got.log_sum.rows(t, t + 1))) << text(alone);
      }
    }
  }
}

// A branched row equals the same row written out in full.
TEST(Attention, ABranchEqualsItsRowWrittenOut) {
  Machine machine(1);
  const AttentionCase tree = tree_case("tree", tree_of({30, 8, 12}, {-1, 0, 0}));
  const AttentionCase plain = tree_case("row", rows_of({42}));
  const Inputs branched = make_inputs(tree, *machine.allocator);
  Inputs written = make_inputs(plain, *machine.allocator);
  // The row is the root and the second child: tokens 0..29 and 38..49 of the tree.
  for (auto [from, to] : {std::pair{&branched.query, &written.query}, std::pair{&branched.key, &written.key},
                          std::pair{&branched.value, &written.value}}) {
    const std::vector<float> values = from->view.to_floats();
    const std::int64_t width = from->view.dim(1);
    for (std::int64_t t = 0; t < 42; ++t) {
      for (std::int64_t i = 0; i < width; ++i) {
        set_element(to->view, t * width + i, values[static_cast<std::size_t>((t < 30 ? t : t + 8) * width + i)]);
      }
    }
  }
  const Forward a = forward(cpu::attention, tree, branched, machine);
  const Forward b = forward(cpu::attention, plain, written, machine);
  EXPECT_EQ(mismatch(a.output.view.rows(38, 50), b.output.view.rows(30, 42), output_bound(tree)), "");
}

// The same on tiles, to the bit: what a query sees is summed in order of position, whatever is computed beside it.
TEST_P(OnProducts, OnTilesABranchIsItsRowWrittenOut) {
  if (!GetParam().avx512_bf16) GTEST_SKIP() << "no tiles";
  Machine machine(2, GetParam());
  AttentionCase tree = tree_case("tree", tree_of({533, 8, 70, 21}, {-1, 0, 0, -1}));
  AttentionCase plain = tree_case("row", rows_of({603}));
  for (AttentionCase* c : {&tree, &plain}) {
    c->heads = {.query = 4, .key = 2, .width = 64};
    c->dtype = DType::kBF16;
  }
  const Inputs branched = make_inputs(tree, *machine.allocator);
  Inputs written = make_inputs(plain, *machine.allocator);
  for (auto [from, to] : {std::pair{&branched.query, &written.query}, std::pair{&branched.key, &written.key},
                          std::pair{&branched.value, &written.value}}) {
    const auto row_bytes = static_cast<std::size_t>(from->view.dim(1) * 2);
    std::memcpy(to->view.raw(), from->view.raw(), 533 * row_bytes);
    std::memcpy(to->view.rows(533, 603).raw(), from->view.rows(541, 611).raw(), 70 * row_bytes);
  }
  const Forward a = forward(cpu::attention, tree, branched, machine);
  const Forward b = forward(cpu::attention, plain, written, machine);
  EXPECT_TRUE(same_bytes(a.output.view.rows(0, 533), b.output.view.rows(0, 533)));
  EXPECT_TRUE(same_bytes(a.output.view.rows(541, 611), b.output.view.rows(533, 603)));
  EXPECT_TRUE(same_bytes(a.log_sum.rows(541, 611), b.log_sum.rows(533, 603)));
}

// Probabilities far apart: scores of hundreds must neither overflow nor vanish.
void check_large_scores(const AttentionCase& c, Machine& machine) {
  SCOPED_TRACE(text(c));
  Inputs inputs = make_inputs(c, *machine.allocator);
  RandomStream random(31, RandomPurpose::kTest);
  fill_uniform(inputs.query.view, random, 0, 60);
  fill_uniform(inputs.key.view, random, 0, 60);
  const Forward expected = forward(reference::attention, c, inputs, machine);
  const Forward actual = forward(cpu::attention, c, inputs, machine);
  // Scores are 900 times those of the other cases, and so is their error.
  const double error = 1800 * score_error(c);
  EXPECT_EQ(mismatch(actual.output.view, expected.output.view, {4, error + probability_error(c)}), "");
  EXPECT_EQ(mismatch(actual.log_sum, expected.log_sum, {.relative = 4, .absolute = error}), "");
}

TEST(Attention, LargeScoresStayFinite) {
  Machine machine(1);
  check_large_scores(tree_case("row of 40", rows_of({40})), machine);
  for (const std::int64_t window : {0, 100}) {  // with a window some queries see nothing of the first 512 keys
    AttentionCase wide = tree_case("row of 700", rows_of({700}));
    wide.heads = {.query = 2, .key = 1, .width = 64};
    wide.window = window;
    wide.dtype = DType::kBF16;
    check_large_scores(wide, machine);
  }
}

// Not-a-number is passed on, not hidden: training must be able to notice it.
TEST(Attention, NanInAKeyReachesTheOutput) {
  Machine machine(1);
  const AttentionCase direct = tree_case("row of 3", rows_of({3}));
  const AttentionCase blocks = tree_case("row of 40", rows_of({40}));
  AttentionCase wide = tree_case("row of 600", rows_of({600}));
  wide.heads = {.query = 2, .key = 1, .width = 64};
  wide.dtype = DType::kBF16;
  for (const AttentionCase& c : {direct, blocks, wide}) {
    SCOPED_TRACE(text(c));
    Inputs inputs = make_inputs(c, *machine.allocator);
    set_element(inputs.key.view, 0, NAN);
    for (const auto kernel : {reference::attention, cpu::attention}) {
      const Forward got = forward(kernel, c, inputs, machine);
      const std::vector<float> sums = got.log_sum.to_floats();
      for (std::int64_t t = 0; t < c.keys; ++t) {
        EXPECT_TRUE(std::isnan(sums[static_cast<std::size_t>(t * c.heads.query)])) << t;
      }
    }
  }
}

}  // namespace
}  // namespace instruct::kernels::testing
