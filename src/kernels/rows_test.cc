// Kernels on whole rows: gathering, scattering, decoding and cross-entropy, CPU against reference.
#include "kernels/test_support.h"
#include "tensor/block_codec.h"

namespace instruct::kernels::testing {
namespace {

struct LossCase {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t vocabulary = 0;
  Layout layout = Layout::kDense;
  float spread = 10;
};

enum class Gradient { kNone, kF32, kBF16, kInPlace };

struct LossResult {
  std::vector<float> log_probability;
  Operand gradient;
};

using LossKernel = void (*)(Stream&, Tensor&, std::int64_t, std::span<const std::int32_t>, std::span<const float>,
                            std::span<float>, Tensor*);

LossResult run_loss(LossKernel kernel, const LossCase& c, Gradient kind, Machine& machine) {
  RandomStream random(static_cast<std::uint64_t>(c.columns), RandomPurpose::kTest);
  Operand logits = make_operand({c.rows, c.columns}, DType::kF32, c.layout, *machine.allocator);
  fill_uniform(logits.view, random, 3, c.spread);
  // Columns beyond the vocabulary hold padding that must not matter.
  for (std::int64_t m = 0; m < c.rows; ++m) {
    for (std::int64_t i = c.vocabulary; i < c.columns; ++i)
      set_element(logits.view, m * logits.view.row_stride() + i, NAN);
  }
  std::vector<std::int32_t> targets;
  std::vector<float> weights;
  for (std::int64_t m = 0; m < c.rows; ++m) {
    targets.push_back(static_cast<std::int32_t>(random.next_below(static_cast<std::uint64_t>(c.vocabulary))));
    weights.push_back(static_cast<float>(random.next_uniform()));
  }
  if (c.rows > 1) weights[1] = 0;
  LossResult result{.log_probability = std::vector<float>(static_cast<std::size_t>(c.rows)), .gradient = {}};
  if (kind == Gradient::kInPlace) {
    result.gradient = logits;
  } else if (kind != Gradient::kNone) {
    const DType dtype = kind == Gradient::kF32 ? DType::kF32 : DType::kBF16;
    result.gradient = make_operand({c.rows, c.columns}, dtype, c.layout, *machine.allocator);
  }
  kernel(machine.stream, logits.view, c.vocabulary, targets, weights, result.log_probability,
         kind == Gradient::kNone ? nullptr : &result.gradient.view);
  return result;
}

// exp(x - max) with |x - max| up to 2 spread: the rounding of the difference is a relative error of spread units, exp
// itself and short sums add a few; the log turns that into an absolute one. Gradients are at most 1.
Bound loss_bound(const LossCase& c) {
  const double units = 24 + 2 * static_cast<double>(c.spread);
  return {.relative = units, .absolute = units * kUnit};
}

void check(const LossCase& c, std::vector<std::unique_ptr<Machine>>& machines) {
  for (const Gradient kind : {Gradient::kNone, Gradient::kF32, Gradient::kBF16, Gradient::kInPlace}) {
    SCOPED_TRACE(
        fmt::format("[{}, {}] vocabulary {} gradient {}", c.rows, c.columns, c.vocabulary, static_cast<int>(kind)));
    const LossResult expected = run_loss(reference::cross_entropy, c, kind, *machines[0]);
    const LossResult actual = run_loss(cpu::cross_entropy, c, kind, *machines[0]);
    tensor::Allocator& allocator = *machines[0]->allocator;
    ASSERT_EQ(mismatch(Tensor::from_floats(actual.log_probability, {c.rows}, allocator),
                       Tensor::from_floats(expected.log_probability, {c.rows}, allocator), loss_bound(c)),
              "");
    if (kind != Gradient::kNone) {
      ASSERT_EQ(mismatch(actual.gradient.view, expected.gradient.view, loss_bound(c)), "");
      ASSERT_TRUE(gaps_untouched(actual.gradient));
    }
    for (std::size_t i = 1; i < machines.size(); ++i) {
      const LossResult again = run_loss(cpu::cross_entropy, c, kind, *machines[i]);
      ASSERT_EQ(again.log_probability, actual.log_probability);
      ASSERT_TRUE(kind == Gradient::kNone || same_bytes(again.gradient.whole, actual.gradient.whole));
    }
  }
}

TEST(CrossEntropy, EqualsTheReference) {
  auto machines = three_machines();
  for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
    for (const std::int64_t vocabulary : {1, 3, 63, 64, 65, 576, 1000}) {
      for (const std::int64_t rows : {0, 1, 5}) {
        check({.rows = rows, .columns = vocabulary, .vocabulary = vocabulary, .layout = layout}, machines);
        check({.rows = rows, .columns = vocabulary + 7, .vocabulary = vocabulary, .layout = layout}, machines);
        if (HasFatalFailure()) return;
      }
    }
  }
  check({.rows = 2, .columns = 49152, .vocabulary = 49152}, machines);
  check({.rows = 2, .columns = 1000, .vocabulary = 1000, .layout = Layout::kDense, .spread = 200}, machines);
}

TEST(CrossEntropy, EveryTargetEqualsTheReference) {
  for_each_target([](const char* target) {
    SCOPED_TRACE(target);
    auto machines = three_machines();
    check({.rows = 3, .columns = 1003, .vocabulary = 1000}, machines);
  });
}

TEST(CrossEntropy, PassesNanOn) {
  Machine machine(1);
  for (const LossKernel kernel : {reference::cross_entropy, cpu::cross_entropy}) {
    for (const std::int64_t place : {0, 40, 99}) {
      std::vector<float> values(100, 1.0F);
      values[static_cast<std::size_t>(place)] = NAN;
      Tensor logits = Tensor::from_floats(values, {1, 100}, *machine.allocator);
      float log_probability = 0;
      kernel(machine.stream, logits, 100, std::vector<std::int32_t>{7}, std::vector<float>{1},
             std::span<float>(&log_probability, 1), nullptr);
      EXPECT_TRUE(std::isnan(log_probability)) << place;
    }
  }
}

// Masked logits of minus infinity have probability zero.
TEST(CrossEntropy, TakesMinusInfinity) {
  Machine machine(1);
  for (const LossKernel kernel : {reference::cross_entropy, cpu::cross_entropy}) {
    Tensor logits = Tensor::from_floats(std::vector<float>{-INFINITY, 0, 0, -INFINITY}, {1, 4}, *machine.allocator);
    float log_probability = 0;
    kernel(machine.stream, logits, 4, std::vector<std::int32_t>{1}, std::vector<float>{1},
           std::span<float>(&log_probability, 1), &logits);
    EXPECT_FLOAT_EQ(log_probability, std::log(0.5F));
    EXPECT_EQ(logits.to_floats(), (std::vector<float>{0, -0.5F, 0.5F, 0}));
  }
}

// z up to 20: its exponential is off by as many units, and each column adds a few.
TEST(SigmoidCrossEntropy, EqualsTheReference) {
  Machine machine(3);
  for (const std::int64_t columns : {1, 3, 16, 77}) {
    for (const std::int64_t rows : {0, 1, 5, 70}) {
      RandomStream random(static_cast<std::uint64_t>(rows * 100 + columns), RandomPurpose::kTest);
      Tensor logits = Tensor::empty({rows, columns}, DType::kF32, *machine.allocator);
      fill_uniform(logits, random, 0, 20);
      Tensor truth = Tensor::empty({rows, columns}, DType::kF32, *machine.allocator);
      for (std::int64_t i = 0; i < truth.elements(); ++i)
        set_element(truth, i, random.next_uniform() < 0.3 ? 1.0F : 0.0F);
      std::vector<float> weights;
      for (std::int64_t m = 0; m < rows; ++m) weights.push_back(static_cast<float>(random.next_uniform()));
      std::vector<float> wanted(weights.size()), got(weights.size());
      Tensor expected = Tensor::empty(logits.shape(), DType::kF32, *machine.allocator);
      Tensor actual = Tensor::empty(logits.shape(), DType::kF32, *machine.allocator);
      reference::sigmoid_cross_entropy(machine.stream, logits, truth, weights, wanted, expected);
      cpu::sigmoid_cross_entropy(machine.stream, logits, truth, weights, got, actual);
      EXPECT_EQ(mismatch(actual, expected, {24, 8 * kUnit}), "");
      for (std::size_t m = 0; m < got.size(); ++m)
        EXPECT_NEAR(got[m], wanted[m], 4 * kUnit * std::abs(static_cast<double>(wanted[m])));
      // The gradient is the slope of the loss.
      if (rows == 0) continue;
      constexpr float kStep = 1e-2F;
      const float before = logits.data<float>()[0];
      std::vector<float> high(weights.size()), low(weights.size());
      Tensor none;
      set_element(logits, 0, before + kStep);
      reference::sigmoid_cross_entropy(machine.stream, logits, truth, weights, high, none);
      set_element(logits, 0, before - kStep);
      reference::sigmoid_cross_entropy(machine.stream, logits, truth, weights, low, none);
      EXPECT_NEAR(expected.data<float>()[0], -weights[0] * (high[0] - low[0]) / (2 * kStep), 1e-2);
    }
  }
}

TEST(MeanRows, EqualsTheReferenceAndItsGradientIsTheTransposed) {
  Machine machine(3);
  const std::vector<tensor::KeyRange> ranges{{1, 2}, {4, 9}, {9, 30}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t width : {1, 31, 64, 100}) {
      RandomStream random(static_cast<std::uint64_t>(width), RandomPurpose::kTest);
      Operand x = make_operand({32, width}, dtype, Layout::kGaps, *machine.allocator);
      fill_uniform(x.view, random, 0, 1);
      Tensor expected = Tensor::empty({3, width}, dtype, *machine.allocator);
      Tensor actual = Tensor::empty({3, width}, dtype, *machine.allocator);
      reference::mean_rows(machine.stream, x.view, ranges, expected);
      cpu::mean_rows(machine.stream, x.view, ranges, actual);
      EXPECT_EQ(mismatch(actual, expected, {4, 21 * kUnit}), "");
      Tensor wanted = Tensor::zeros({32, width}, dtype, *machine.allocator);
      Tensor got = Tensor::zeros({32, width}, dtype, *machine.allocator);
      reference::mean_rows_backward(machine.stream, expected, ranges, wanted);
      cpu::mean_rows_backward(machine.stream, expected, ranges, got);
      EXPECT_EQ(mismatch(got, wanted, {4, 4 * kUnit}), "");
      const std::vector<float> gradient = wanted.to_floats();
      EXPECT_EQ(gradient[0], 0.0F);
      EXPECT_EQ(gradient[static_cast<std::size_t>(width)], expected.to_floats()[0]);
      EXPECT_NEAR(gradient[static_cast<std::size_t>(5 * width)],
                  expected.to_floats()[static_cast<std::size_t>(width)] / 5, dtype == DType::kF32 ? 1e-6 : 2e-3);
    }
  }
}

TEST(KeepChosen, EqualsTheReference) {
  const std::vector<std::int64_t> ends{3, 3, 19, 20};  // the second part is empty
  for (auto& machine : three_machines()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
        for (const std::int64_t rows : {0, 1, 6, 600}) {
          const auto run = [&](auto kernel) {
            RandomStream random(3, RandomPurpose::kTest);
            Operand x = make_operand({rows, 20}, dtype, layout, *machine->allocator);
            fill_uniform(x.view, random, 1.0F, 0.5F);
            std::vector<std::int32_t> chosen;
            for (std::int64_t t = 0; t < rows; ++t) chosen.push_back(static_cast<std::int32_t>(t % 6) - 1);
            kernel(machine->stream, chosen, ends, x.view);
            return x;
          };
          const Operand fast = run(cpu::keep_chosen);
          EXPECT_TRUE(same_bytes(fast.view, run(reference::keep_chosen).view));
          EXPECT_TRUE(gaps_untouched(fast));
          if (rows < 6) continue;
          const std::vector<float> values = fast.view.to_floats();
          const auto kept = [&](std::size_t row) {
            return std::count_if(values.begin() + static_cast<std::ptrdiff_t>(row * 20),
                                 values.begin() + static_cast<std::ptrdiff_t>(row * 20 + 20),
                                 [](float value) { return value != 0; });
          };
          for (std::size_t row = 0; row < 6; ++row) EXPECT_EQ(kept(row), (std::array{0, 3, 0, 16, 1, 0})[row]);
        }
      }
    }
  }
}

// A softmax over tiles of the columns, with totals of the exponentials times one.
struct TiledSoftmax {
  std::vector<float> most;
  std::vector<double> sum;
  Tensor totals;
  Operand exponentials;  // of the last tile
};

TiledSoftmax run_tiles(decltype(&cpu::softmax_tile) kernel, const Tensor& scores, std::int64_t vocabulary,
                       std::int64_t step, DType dtype, Machine& machine) {
  const auto rows = static_cast<std::size_t>(scores.dim(0));
  TiledSoftmax result{.most = std::vector<float>(rows, -INFINITY),
                      .sum = std::vector<double>(rows, 0.0),
                      .totals = Tensor::zeros({scores.dim(0), 3}, DType::kF32, *machine.allocator),
                      .exponentials = {}};
  for (std::int64_t column = 0; column < scores.dim(1); column += step) {
    const std::int64_t end = std::min(column + step, scores.dim(1));
    result.exponentials = make_operand({scores.dim(0), end - column}, dtype, Layout::kGaps, *machine.allocator);
    kernel(machine.stream, {.scores = scores.columns(column, end),
                            .columns = std::clamp<std::int64_t>(vocabulary - column, 0, end - column),
                            .most = result.most,
                            .sum = result.sum,
                            .exponentials = result.exponentials.view,
                            .totals = result.totals});
    const std::vector<float> values = result.exponentials.view.to_floats();
    for (std::size_t m = 0; m < rows; ++m) {
      const auto width = static_cast<std::size_t>(end - column);
      for (std::size_t i = 0; i < width; ++i) result.totals.data<float>()[3 * m + i % 3] += values[m * width + i];
    }
  }
  return result;
}

TEST(SoftmaxTile, TilesGiveTheSoftmaxOfTheWholeRow) {
  auto machines = three_machines();
  constexpr std::int64_t kRows = 70, kColumns = 530, kVocabulary = 517;
  RandomStream random(53, RandomPurpose::kTest);
  Operand scores = make_operand({kRows, kColumns}, DType::kF32, Layout::kGaps, *machines[0]->allocator);
  fill_uniform(scores.view, random, 0, 20);
  for (std::int64_t m = 0; m < kRows; ++m) {
    float* row = scores.view.data<float>() + m * scores.view.row_stride();
    for (std::int64_t i = kVocabulary; i < kColumns; ++i) row[i] = NAN;  // takes no part
    if (m < 2) std::fill_n(row, m == 0 ? 200 : kVocabulary, -INFINITY);
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t step : {100, 517, 530}) {
      SCOPED_TRACE(fmt::format("{} tiles of {}", info(dtype).name, step));
      const TiledSoftmax expected =
          run_tiles(reference::softmax_tile, scores.view, kVocabulary, step, dtype, *machines[0]);
      const TiledSoftmax actual = run_tiles(cpu::softmax_tile, scores.view, kVocabulary, step, dtype, *machines[0]);
      const Bound bound = loss_bound({.spread = 20});
      EXPECT_EQ(actual.most, expected.most);
      for (std::size_t m = 0; m < actual.sum.size(); ++m) {
        EXPECT_NEAR(actual.sum[m], expected.sum[m], bound.relative * kUnit * expected.sum[m]) << m;
        const float* totals = actual.totals.data<float>() + 3 * m;
        // Each exponential is rounded to its type, half a unit of 2^-8 for bf16.
        const double rounded = dtype == DType::kBF16 ? 0x1p-8 : 600 * kUnit;
        EXPECT_NEAR(static_cast<double>(totals[0] + totals[1] + totals[2]), actual.sum[m], rounded * actual.sum[m])
            << m;
      }
      EXPECT_TRUE(gaps_untouched(actual.exponentials));
      for (auto& machine : machines) {
        const TiledSoftmax again = run_tiles(cpu::softmax_tile, scores.view, kVocabulary, step, dtype, *machine);
        ASSERT_EQ(again.sum, actual.sum);
        ASSERT_TRUE(same_bytes(again.totals, actual.totals));
      }
    }
  }
}

TEST(SoftmaxTile, PassesNanOn) {
  Machine machine(1);
  for (const auto kernel : {reference::softmax_tile, cpu::softmax_tile}) {
    for (const std::size_t place : {0U, 40U, 99U}) {
      std::vector<float> values(100, 1.0F);
      values[place] = NAN;
      const Tensor scores = Tensor::from_floats(values, {1, 100}, *machine.allocator);
      EXPECT_TRUE(std::isnan(run_tiles(kernel, scores, 100, 30, DType::kF32, machine).sum[0])) << place;
    }
  }
}

TEST(CombineRows, EqualsTheReference) {
  auto machines = three_machines();
  RandomStream random(59, RandomPurpose::kTest);
  const std::vector<std::int32_t> ids{0, 3, 3, 3, 49};
  const std::vector<float> weights{1, -0.5F, 2, 0, -3};
  for (const std::int64_t width : {1, 17, 640}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Operand x = make_operand({50, width}, DType::kF32, Layout::kGaps, *machines[0]->allocator);
      Operand rows = make_operand({5, width}, DType::kF32, Layout::kDense, *machines[0]->allocator);
      fill_uniform(x.view, random, 0, 1);
      fill_uniform(rows.view, random, 0, 1);
      std::vector<float> factors(50);
      for (float& factor : factors) factor = static_cast<float>(random.next_uniform());
      Operand expected = make_operand({50, width}, dtype, Layout::kGaps, *machines[0]->allocator);
      reference::combine_rows(machines[0]->stream, x.view, factors, rows.view, ids, weights, expected.view);
      for (auto& machine : machines) {
        Operand actual = make_operand({50, width}, dtype, Layout::kGaps, *machine->allocator);
        cpu::combine_rows(machine->stream, x.view, factors, rows.view, ids, weights, actual.view);
        // Sums of up to four terms of at most 2; rounding to bf16 may fall to either side.
        const double spacing = dtype == DType::kBF16 ? 0x1p-7 : 8 * kUnit;
        ASSERT_EQ(mismatch(actual.view, expected.view, {.relative = spacing / kUnit, .absolute = 16 * kUnit}), "");
        ASSERT_TRUE(gaps_untouched(actual));
      }
    }
  }
}

std::vector<std::int32_t> some_ids(std::int64_t count, std::int64_t rows) {
  RandomStream random(41, RandomPurpose::kTest);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>(random.next_below(static_cast<std::uint64_t>(rows))));
  }
  return ids;
}

// Converting one value is exact or rounds once, in the same way everywhere: equal to the bit.
TEST(GatherRows, EqualsTheReference) {
  auto machines = three_machines();
  RandomStream random(43, RandomPurpose::kTest);
  for (const DType from : {DType::kF32, DType::kBF16}) {
    for (const DType to : {DType::kF32, DType::kBF16}) {
      for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
        for (const std::int64_t width : {1, 3, 63, 64, 65, 576, 1000}) {
          Operand table = make_operand({37, width}, from, layout, *machines[0]->allocator);
          fill_uniform(table.view, random, 0, 1);
          for (const std::int64_t count : {0, 1, 50}) {
            const std::vector<std::int32_t> ids = some_ids(count, 37);
            Operand expected = make_operand({count, width}, to, layout, *machines[0]->allocator);
            reference::gather_rows(machines[0]->stream, table.view, ids, expected.view);
            for (auto& machine : machines) {
              Operand actual = make_operand({count, width}, to, layout, *machine->allocator);
              cpu::gather_rows(machine->stream, table.view, ids, actual.view);
              ASSERT_TRUE(same_bytes(actual.whole, expected.whole)) << width << " " << count;
            }
          }
        }
      }
    }
  }
}

// Additions in order of t, each rounded to the table's type: equal to the bit, however often an id repeats.
TEST(ScatterAddRows, EqualsTheReference) {
  auto machines = three_machines();
  RandomStream random(47, RandomPurpose::kTest);
  for (const DType from : {DType::kF32, DType::kBF16}) {
    for (const DType to : {DType::kF32, DType::kBF16}) {
      for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
        for (const std::int64_t width : {1, 3, 63, 64, 65, 576, 1000}) {
          for (const std::int64_t count : {0, 1, 50}) {
            Operand x = make_operand({count, width}, from, layout, *machines[0]->allocator);
            Operand table = make_operand({5, width}, to, layout, *machines[0]->allocator);
            fill_uniform(x.view, random, 0, 1);
            fill_uniform(table.view, random, 0, 1);
            const std::vector<std::int32_t> ids = some_ids(count, 5);
            Operand expected = copy_of(table, *machines[0]->allocator);
            reference::scatter_add_rows(machines[0]->stream, x.view, ids, expected.view);
            for (auto& machine : machines) {
              Operand actual = copy_of(table, *machine->allocator);
              cpu::scatter_add_rows(machine->stream, x.view, ids, actual.view);
              ASSERT_TRUE(same_bytes(actual.whole, expected.whole)) << width << " " << count;
            }
          }
        }
      }
    }
  }
}

TEST(DequantiseRows, EqualsTheReferenceForPlainTypes) {
  auto machines = three_machines();
  RandomStream random(53, RandomPurpose::kTest);
  Tensor halves = Tensor::empty({6, 65}, DType::kF16, *machines[0]->allocator);
  for (std::int64_t i = 0; i < halves.elements(); ++i) {
    halves.data<tensor::Half>()[i] = tensor::to_half(static_cast<float>(random.next_normal()));
  }
  Tensor floats = Tensor::empty({6, 65}, DType::kF32, *machines[0]->allocator);
  fill_uniform(floats, random, 0, 1);
  for (const Tensor& source : {halves, floats}) {
    for (const DType to : {DType::kF32, DType::kBF16}) {
      Tensor expected = Tensor::empty({4, 65}, to, *machines[0]->allocator);
      reference::dequantise_rows(machines[0]->stream, source, 2, expected);
      EXPECT_EQ(expected.to_floats()[0], to == DType::kF32 ? source.to_floats()[130] : expected.to_floats()[0]);
      for (auto& machine : machines) {
        Tensor actual = Tensor::empty({4, 65}, to, *machine->allocator);
        cpu::dequantise_rows(machine->stream, source, 2, actual);
        EXPECT_TRUE(same_bytes(actual, expected));
      }
    }
  }
}

// A quantised matrix [rows, width] of values in [-1, 1]. Types that cannot be encoded get random blocks instead, with
// the two half-precision scales, wherever they lie in the block, kept finite by clearing every high exponent bit.
Tensor quantised(DType dtype, std::int64_t rows, std::int64_t width, RandomStream& random) {
  auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(bytes_of(dtype, rows * width)));
  std::vector<float> values;
  for (std::int64_t i = 0; i < rows * width; ++i) values.push_back(static_cast<float>(2 * random.next_uniform() - 1));
  constexpr std::array kEncoded = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1};
  if (std::find(kEncoded.begin(), kEncoded.end(), dtype) == kEncoded.end()) {
    for (std::byte& byte : *bytes) byte = static_cast<std::byte>(random.next() & 0xBFU);
  } else {
    tensor::encode_elements(dtype, values, bytes->data());
  }
  return Tensor::borrow(bytes->data(), {rows, width}, dtype, bytes);
}

TEST(DequantiseRows, EqualsTheReferenceForBlockTypes) {
  auto machines = three_machines();
  RandomStream random(59, RandomPurpose::kTest);
  for (const DType dtype :
       {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
        DType::kQ2_K, DType::kQ3_K, DType::kIQ4NL, DType::kIQ4XS, DType::kMXFP4}) {
    for (const std::int64_t blocks : {1, 3, 18}) {
      const std::int64_t width = blocks * info(dtype).block_elements;
      const Tensor source = quantised(dtype, 40, width, random);
      for (const DType to : {DType::kF32, DType::kBF16}) {
        for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
          SCOPED_TRACE(fmt::format("{} to {}, width {}", info(dtype).name, info(to).name, width));
          const std::vector<std::int32_t> ids = some_ids(50, 40);
          Operand decoded = make_operand({37, width}, to, layout, *machines[0]->allocator);
          Operand gathered = make_operand({50, width}, to, layout, *machines[0]->allocator);
          reference::dequantise_rows(machines[0]->stream, source, 3, decoded.view);
          reference::gather_rows(machines[0]->stream, source, ids, gathered.view);
          for (auto& machine : machines) {
            Operand actual = make_operand({37, width}, to, layout, *machine->allocator);
            cpu::dequantise_rows(machine->stream, source, 3, actual.view);
            ASSERT_TRUE(same_bytes(actual.whole, decoded.whole));
            Operand rows = make_operand({50, width}, to, layout, *machine->allocator);
            cpu::gather_rows(machine->stream, source, ids, rows.view);
            ASSERT_TRUE(same_bytes(rows.whole, gathered.whole));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace instruct::kernels::testing
