// Matrix products of the CPU backend against the reference: shapes, transposes, strides, types, scaling, accumulation.
#include <signal.h>

#include <ctime>

#include "base/cancel.h"
#include "kernels/cpu/short_products.h"
#include "kernels/test_support.h"

namespace instruct::kernels::testing {
namespace {

struct MatmulCase {
  std::int64_t m = 0, n = 0, k = 0;
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  Accumulate accumulate = Accumulate::kNo;
  float alpha = 1.0F;
  DType input = DType::kF32;
  DType output = DType::kF32;
  Layout layout = Layout::kDense;
  std::int64_t rank = 0;  // of a second product of low rank, 0: none
};

std::string text(const MatmulCase& c) {
  return fmt::format(
      "[{}, {}]{} x [{}, {}]{} {} -> {}, alpha {}, rank {}{}{}", c.m, c.k, c.transpose_a == Transpose::kYes ? "^T" : "",
      c.k, c.n, c.transpose_b == Transpose::kYes ? "^T" : "", info(c.input).name, info(c.output).name, c.alpha, c.rank,
      c.accumulate == Accumulate::kYes ? ", accumulating" : "", c.layout == Layout::kGaps ? ", with gaps" : "");
}

// Operands in [-1, 1]: the sum of K products of standard deviation 1/3 reaches a few sqrt(K) / 3, and each addition
// rounds a partial sum of that size: the error grows like sqrt(K) * sqrt(K) / 3 at most, times |alpha|.
Bound bound_of(const MatmulCase& c) {
  const std::int64_t terms = c.k + c.rank;
  const double size = 1 + std::sqrt(static_cast<double>(terms));
  const double scale = 1 + std::abs(static_cast<double>(c.alpha));
  // Without tiles the two products are rounded to the result's type one after the other.
  const double apart = c.rank > 0 && c.output == DType::kBF16 ? scale * 0x1p-8 * size : 0;
  return {.relative = 4, .absolute = apart + scale * sum_units(terms) * kUnit * size};
}

struct Operands {
  Operand a, b, before;
  Operand low_a, low_b;
};

Tensor product(void (*kernel)(Stream&, const Matmul&), const MatmulCase& c, const Operands& in, Machine& machine,
               Operand& result) {
  result = copy_of(in.before, *machine.allocator);
  kernel(machine.stream, {.a = in.a.view,
                          .b = in.b.view,
                          .c = result.view,
                          .low_a = in.low_a.view,
                          .low_b = in.low_b.view,
                          .transpose_a = c.transpose_a,
                          .transpose_b = c.transpose_b,
                          .accumulate = c.accumulate,
                          .alpha = c.alpha});
  return result.view;
}

Operands operands_of(const MatmulCase& c, tensor::Allocator& allocator) {
  RandomStream random(static_cast<std::uint64_t>(c.m * 1000003 + c.n * 1009 + c.k), RandomPurpose::kTest);
  const bool ta = c.transpose_a == Transpose::kYes;
  const bool tb = c.transpose_b == Transpose::kYes;
  Operands in;
  in.a = make_operand(ta ? Shape{c.k, c.m} : Shape{c.m, c.k}, c.input, c.layout, allocator);
  in.b = make_operand(tb ? Shape{c.n, c.k} : Shape{c.k, c.n}, c.input, c.layout, allocator);
  in.before = make_operand({c.m, c.n}, c.output, c.layout, allocator);
  fill_uniform(in.a.view, random, 0, 1);
  fill_uniform(in.b.view, random, 0, 1);
  if (c.rank > 0) {
    in.low_a = make_operand({c.m, c.rank}, c.input, c.layout, allocator);
    in.low_b = make_operand(tb ? Shape{c.n, c.rank} : Shape{c.rank, c.n}, c.input, c.layout, allocator);
    fill_uniform(in.low_a.view, random, 0, 1);
    fill_uniform(in.low_b.view, random, 0, 1);
  }
  // Without accumulation the old content must not matter, not even NaN.
  if (c.accumulate == Accumulate::kYes) {
    fill_uniform(in.before.view, random, 0, 1);
  } else {
    fill_uniform(in.before.view, random, NAN, 0);
  }
  return in;
}

void check(const MatmulCase& c, std::vector<std::unique_ptr<Machine>>& machines) {
  SCOPED_TRACE(text(c));
  const Operands in = operands_of(c, *machines[0]->allocator);
  Operand expected;
  Operand actual;
  product(reference::matmul, c, in, *machines[0], expected);
  product(cpu::matmul, c, in, *machines[0], actual);
  ASSERT_EQ(mismatch(actual.view, expected.view, bound_of(c)), "");
  ASSERT_TRUE(gaps_untouched(actual));
  for (std::size_t i = 1; i < machines.size(); ++i) {
    Operand again;
    product(cpu::matmul, c, in, *machines[i], again);
    ASSERT_TRUE(same_bytes(again.whole, actual.whole)) << "depends on the threads";
  }
}

struct Types {
  DType input;
  DType output;
};
constexpr std::array kTypes = {Types{DType::kF32, DType::kF32}, Types{DType::kBF16, DType::kF32},
                               Types{DType::kBF16, DType::kBF16}};

void check_all(const std::vector<MatmulCase>& cases) {
  for (const CpuFeatures& features : product_features()) {
    SCOPED_TRACE(testing::product_name(features));
    auto machines = three_machines(features);
    for (MatmulCase c : cases) {
      for (const Types& types : kTypes) {
        c.input = types.input;
        c.output = types.output;
        check(c, machines);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(Matmul, SizesEqualTheReference) {
  std::vector<MatmulCase> cases;
  for (const std::int64_t m : {0, 1, 2, 3, 4, 5, 31}) {
    for (const std::int64_t k : {1, 15, 16, 576}) {
      for (const std::int64_t n : {1, 16, 192}) cases.push_back({.m = m, .n = n, .k = k});
    }
  }
  cases.push_back({.m = 5, .n = 1000, .k = 16});
  cases.push_back({.m = 257, .n = 16, .k = 15});
  check_all(cases);
}

// Large enough for several tiles in both directions.
TEST(Matmul, TilesEqualTheReference) {
  check_all({{.m = 257, .n = 192, .k = 64, .transpose_b = Transpose::kYes},
             {.m = 257, .n = 1000, .k = 16, .transpose_a = Transpose::kYes},
             {.m = 1000, .n = 65, .k = 33},
             {.m = 1, .n = 1000, .k = 576, .transpose_b = Transpose::kYes},
             {.m = 100, .n = 1000, .k = 40, .transpose_a = Transpose::kYes, .transpose_b = Transpose::kYes}});
}

// Where AMX cuts differently: several blocks of rows, of k, of both; narrow results of a transposed left side.
TEST(Matmul, BlocksEqualTheReference) {
  check_all({{.m = 300, .n = 100, .k = 700},
             {.m = 301, .n = 33, .k = 1061, .transpose_b = Transpose::kYes, .alpha = 0.5F},
             {.m = 40, .n = 601, .k = 1300, .accumulate = Accumulate::kYes},
             {.m = 49, .n = 72, .k = 701, .transpose_a = Transpose::kYes},
             {.m = 70, .n = 16, .k = 301, .transpose_a = Transpose::kYes, .accumulate = Accumulate::kYes, .alpha = 2},
             {.m = 90, .n = 5, .k = 65, .transpose_a = Transpose::kYes, .transpose_b = Transpose::kYes}});
}

// With a second product of low rank: k in one block and in several, panels packed once and by each task.
TEST(Matmul, LowRankProductsEqualTheReference) {
  std::vector<MatmulCase> cases;
  for (const Transpose b : {Transpose::kNo, Transpose::kYes}) {
    for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
      for (const std::int64_t rank : {1, 16, 33}) {
        for (const std::int64_t k : {5, 64, 700}) {
          for (const std::int64_t m : {1, 40, 270}) {
            cases.push_back({.m = m, .n = 65, .k = k, .transpose_b = b, .layout = layout, .rank = rank});
          }
        }
      }
    }
  }
  cases.push_back({.m = 270, .n = 64, .k = 96, .accumulate = Accumulate::kYes, .alpha = 0.5F, .rank = 16});
  check_all(cases);
}

// A matrix stored by outputs times few rows: every number of rows in a group, several groups, and what is left of
// outputs and of k.
TEST(Matmul, FewRowsEqualTheReference) {
  std::vector<MatmulCase> cases;
  for (std::int64_t m = 1; m <= 33; ++m) {
    for (const std::int64_t k : {1, 32, 65}) cases.push_back({.m = m, .n = 17, .k = k, .transpose_b = Transpose::kYes});
    cases.push_back({.m = m,
                     .n = 200,
                     .k = 600,
                     .transpose_b = Transpose::kYes,
                     .accumulate = m % 2 == 0 ? Accumulate::kYes : Accumulate::kNo,
                     .alpha = 0.5F,
                     .layout = m % 3 == 0 ? Layout::kGaps : Layout::kDense,
                     .rank = m % 4 * 12});
  }
  check_all(cases);
}

// So an answer does not depend on those written beside it.
TEST(Matmul, ARowDoesNotDependOnTheRowsBesideItWhereTheseAreFew) {
  constexpr std::int64_t kRows = 32;
  for (const CpuFeatures& features : product_features()) {
    if (!features.avx512_bf16) continue;  // nothing like it is promised elsewhere
    const std::int64_t most = features.amx_bf16 ? 15 : kRows;
    SCOPED_TRACE(testing::product_name(features));
    auto machines = three_machines(features);
    Machine& machine = *machines[0];
    RandomStream random(7, RandomPurpose::kTest);
    const auto matrix = [&](std::int64_t rows, std::int64_t columns) {
      Tensor values = Tensor::empty({rows, columns}, DType::kBF16, *machine.allocator);
      fill_uniform(values, random, 0, 1);
      return values;
    };
    const Tensor a = matrix(kRows, 577);
    const Tensor low_a = matrix(kRows, 20);
    const Tensor b = matrix(70, 577);
    const Tensor low_b = matrix(70, 20);
    const auto product = [&](std::int64_t begin, std::int64_t end) {
      Tensor c = Tensor::empty({end - begin, 70}, DType::kF32, *machine.allocator);
      cpu::matmul(machine.stream, {.a = a.rows(begin, end),
                                   .b = b,
                                   .c = c,
                                   .low_a = low_a.rows(begin, end),
                                   .low_b = low_b,
                                   .transpose_b = Transpose::kYes});
      return c;
    };
    const Tensor together = product(0, most);
    for (std::int64_t row = 0; row < most; ++row) {
      ASSERT_TRUE(same_bytes(product(row, row + 1), together.rows(row, row + 1))) << row;
      const std::int64_t end = std::min(most, row + 5);
      ASSERT_TRUE(same_bytes(product(row, end), together.rows(row, end))) << row;
    }
  }
}

// Results of 4 MB and more are stored past the caches where their rows allow it; a long k with few results is cut into
// pieces; rows a multiple of 2 KB apart are packed.
TEST(Matmul, LargeAndLongProductsEqualTheReference) {
  check_all({{.m = 33, .n = 65536, .k = 5, .transpose_b = Transpose::kYes},
             {.m = 33, .n = 65520, .k = 5},
             {.m = 70, .n = 50, .k = 5000},
             {.m = 16, .n = 100, .k = 1024, .transpose_a = Transpose::kYes, .accumulate = Accumulate::kYes},
             {.m = 100, .n = 16, .k = 1100, .transpose_a = Transpose::kYes, .accumulate = Accumulate::kYes, .alpha = 3},
             {.m = 64, .n = 64, .k = 1024, .transpose_b = Transpose::kYes}});
}

TEST(Matmul, TransposesStridesScalingAndAccumulationEqualTheReference) {
  std::vector<MatmulCase> cases;
  for (const Transpose a : {Transpose::kNo, Transpose::kYes}) {
    for (const Transpose b : {Transpose::kNo, Transpose::kYes}) {
      for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
        for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
          for (const float alpha : {1.0F, -0.375F}) {
            for (const std::int64_t m : {1, 3, 31, 130}) {
              cases.push_back({.m = m,
                               .n = 65,
                               .k = 31,
                               .transpose_a = a,
                               .transpose_b = b,
                               .accumulate = accumulate,
                               .alpha = alpha,
                               .layout = layout});
            }
          }
        }
      }
    }
  }
  check_all(cases);
}

TEST(Matmul, AnEmptySumIsZeroOrLeavesTheResult) {
  for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
    check_all({{.m = 3, .n = 4, .k = 0, .accumulate = accumulate},
               {.m = 3, .n = 0, .k = 4, .accumulate = accumulate},
               {.m = 0, .n = 4, .k = 4, .accumulate = accumulate}});
  }
}

TEST(Matmul, ShortProductsEqualTheReferenceOnEveryTarget) {
  std::vector<MatmulCase> cases;
  for (const std::int64_t m : {1, 4, 7, 16}) {
    for (const std::int64_t n : {1, 8, 16, 33, 64}) {
      for (const std::int64_t k : {1, 8, 64}) {
        for (const Transpose a : {Transpose::kNo, Transpose::kYes}) {
          for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
            cases.push_back({.m = m,
                             .n = n,
                             .k = k,
                             .transpose_a = a,
                             .accumulate = accumulate,
                             .alpha = -0.375F,
                             .layout = Layout::kGaps});
          }
        }
      }
    }
  }
  Machine machine(1);
  for_each_target([&](const char* target) {
    for (const MatmulCase& c : cases) {
      SCOPED_TRACE(fmt::format("{}: {}", target, text(c)));
      const Operands in = operands_of(c, *machine.allocator);
      Operand expected;
      product(reference::matmul, c, in, machine, expected);
      Operand actual = copy_of(in.before, *machine.allocator);
      const bool transposed = c.transpose_a == Transpose::kYes;
      cpu::short_product({.a = in.a.view.data<float>(),
                          .a_row = transposed ? 1 : in.a.view.row_stride(),
                          .a_column = transposed ? in.a.view.row_stride() : 1,
                          .b = in.b.view.data<float>(),
                          .b_row = in.b.view.row_stride(),
                          .c = actual.view.data<float>(),
                          .c_row = actual.view.row_stride(),
                          .m = c.m,
                          .n = c.n,
                          .k = c.k,
                          .alpha = c.alpha,
                          .accumulate = c.accumulate == Accumulate::kYes});
      ASSERT_EQ(mismatch(actual.view, expected.view, bound_of(c)), "");
      ASSERT_TRUE(gaps_untouched(actual));
    }
  });
}

// The handlers of a program run while its threads multiply: oneDNN's products leave no stack for them (see cancel.h).
TEST(Matmul, SignalsChangeNothing) {
  const MatmulCase c{.m = 32, .n = 8, .k = 128, .layout = Layout::kGaps};
  Machine machine(1);
  const Operands in = operands_of(c, *machine.allocator);
  Operand expected;
  product(cpu::matmul, c, in, machine, expected);
  // What oneDNN takes for itself lies between these.
  const std::string pattern(40 << 10, 'x');
  std::vector<std::string> guards(64, pattern);
  for (std::size_t i = 0; i < guards.size(); i += 2) std::string().swap(guards[i]);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGINT;
  timer_t timer{};
  ASSERT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  for (int turn = 0; turn < 300; ++turn) {
    install_cancel_handlers();
    const itimerspec after{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 10000 + turn * 500}};
    ASSERT_EQ(timer_settime(timer, 0, &after, nullptr), 0);
    while (!cancel_requested()) {
      Operand again;
      product(cpu::matmul, c, in, machine, again);
      ASSERT_TRUE(same_bytes(again.whole, expected.whole));
    }
    clear_cancel();
    for (std::size_t i = 1; i < guards.size(); i += 2) ASSERT_EQ(guards[i], pattern);
  }
  timer_delete(timer);
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
}

// The specification itself, by hand.
TEST(Matmul, ReferenceMultiplies) {
  Machine machine(1);
  const Tensor a = Tensor::from_floats(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3}, *machine.allocator);
  const Tensor b = Tensor::from_floats(std::vector<float>{1, 0, 2, -1, 0, 3}, {3, 2}, *machine.allocator);
  Tensor c = Tensor::from_floats(std::vector<float>{100, 100, 100, 100}, {2, 2}, *machine.allocator);
  reference::matmul(machine.stream, {.a = a, .b = b, .c = c});
  EXPECT_EQ(c.to_floats(), (std::vector<float>{5, 7, 14, 13}));
  reference::matmul(machine.stream, {.a = a, .b = b, .c = c, .accumulate = Accumulate::kYes, .alpha = 2});
  EXPECT_EQ(c.to_floats(), (std::vector<float>{15, 21, 42, 39}));
  Tensor transposed = Tensor::empty({3, 3}, DType::kF32, *machine.allocator);  // a^T a
  reference::matmul(machine.stream, {.a = a, .b = a, .c = transposed, .transpose_a = Transpose::kYes});
  EXPECT_EQ(transposed.to_floats(), (std::vector<float>{17, 22, 27, 22, 29, 36, 27, 36, 45}));
  Tensor gram = Tensor::empty({2, 2}, DType::kF32, *machine.allocator);  // a a^T
  reference::matmul(machine.stream, {.a = a, .b = a, .c = gram, .transpose_b = Transpose::kYes});
  EXPECT_EQ(gram.to_floats(), (std::vector<float>{14, 32, 32, 77}));
  const Tensor low = Tensor::from_floats(std::vector<float>{1, 2}, {2, 1}, *machine.allocator);
  reference::matmul(
      machine.stream,
      {.a = a, .b = a, .c = gram, .low_a = low, .low_b = low, .transpose_b = Transpose::kYes, .alpha = 2});
  EXPECT_EQ(gram.to_floats(), (std::vector<float>{30, 68, 68, 162}));
}

}  // namespace
}  // namespace instruct::kernels::testing
