// CPU kernels on activations and flat tensors against their reference twins (kernel_cases.h).
#include <hwy/targets.h>
#include <functional>

#include "kernels/amx_emulation.h"
#include "kernels/kernel_cases.h"

namespace instruct::kernels::testing {

void for_each_target(const std::function<void(const char* name)>& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

namespace {

struct Setting {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  DType x = DType::kF32;
  DType y = DType::kF32;
  Layout layout = Layout::kDense;
};

std::string text(const KernelCase& test, const Setting& s) {
  return fmt::format("{} [{}, {}] {} {} {}", test.name, s.rows, s.width, info(s.x).name, info(s.y).name,
                     s.layout == Layout::kGaps ? "with gaps" : "dense");
}

std::vector<Operand> make_operands(const KernelCase& test, const Setting& s, tensor::Allocator& allocator) {
  RandomStream random(static_cast<std::uint64_t>(s.rows * 10007 + s.width), RandomPurpose::kTest);
  std::vector<Operand> operands;
  for (const OperandSpec& spec : test.operands) {
    const DType dtype = spec.kind == Kind::kF32 ? DType::kF32 : (spec.kind == Kind::kX ? s.x : s.y);
    // Only activations may have gaps; tables and row vectors are dense.
    const Layout layout = spec.kind == Kind::kF32 ? Layout::kDense : s.layout;
    operands.push_back(make_operand(spec.shape(s.rows, s.width), dtype, layout, allocator));
    if (spec.role != Role::kOut) fill_uniform(operands.back().view, random, spec.centre, spec.spread);
  }
  return operands;
}

// Runs a kernel on a copy of the operands and returns the copy.
std::vector<Operand> run(const std::function<void(Stream&, Tensors&)>& kernel, const std::vector<Operand>& operands,
                         Machine& machine) {
  std::vector<Operand> copies;
  Tensors views;
  for (const Operand& operand : operands) {
    copies.push_back(copy_of(operand, *machine.allocator));
    views.push_back(copies.back().view);
  }
  kernel(machine.stream, views);
  return copies;
}

void check(const KernelCase& test, const Setting& s, std::vector<std::unique_ptr<Machine>>& machines) {
  SCOPED_TRACE(text(test, s));
  const std::vector<Operand> operands = make_operands(test, s, *machines[0]->allocator);
  const std::vector<Operand> expected = run(test.reference, operands, *machines[0]);
  const std::vector<Operand> actual = run(test.fast, operands, *machines[0]);
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (test.operands[i].role == Role::kIn) {
      ASSERT_TRUE(same_bytes(actual[i].whole, operands[i].whole)) << "input " << i << " was changed";
      continue;
    }
    ASSERT_EQ(mismatch(actual[i].view, expected[i].view, test.operands[i].bound(s.rows, s.width)), "")
        << "operand " << i;
    ASSERT_TRUE(gaps_untouched(actual[i])) << "operand " << i << ": bytes between rows were written";
  }
  for (std::size_t m = 1; m < machines.size(); ++m) {
    const std::vector<Operand> again = run(test.fast, operands, *machines[m]);
    for (std::size_t i = 0; i < operands.size(); ++i) {
      ASSERT_TRUE(same_bytes(again[i].whole, actual[i].whole)) << "operand " << i << " depends on the threads";
    }
  }
}

bool uses(const KernelCase& test, Kind kind) {
  return std::any_of(test.operands.begin(), test.operands.end(), [=](const OperandSpec& o) { return o.kind == kind; });
}

void check_settings(const KernelCase& test, const std::vector<std::int64_t>& rows,
                    const std::vector<std::int64_t>& widths) {
  auto machines = three_machines();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType y : {DType::kF32, DType::kBF16}) {
      if (y != x && !uses(test, Kind::kY)) continue;
      for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
        for (const std::int64_t t : rows) {
          for (const std::int64_t d : widths) {
            check(test, {.rows = t, .width = d, .x = x, .y = y, .layout = layout}, machines);
            if (::testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(Activations, EqualTheReferenceOverSizesTypesAndLayouts) {
  for (const KernelCase& test : activation_cases()) {
    check_settings(test, {0, 1, 3, 17}, test.widths);
    if (HasFatalFailure()) return;
  }
}

// Enough elements for several tasks, and enough rows that sums over them use blocks of more than the least size.
TEST(Activations, EqualTheReferenceInManyTasks) {
  for (const KernelCase& test : activation_cases()) {
    check_settings(test, {37}, {test.widths.back()});
    check_settings(test, {1100}, {test.widths.front()});
    if (HasFatalFailure()) return;
  }
}

TEST(Optimizer, SumOfSquaresIsAccurateAndIndependentOfThreads) {
  auto machines = three_machines();
  RandomStream random(3, RandomPurpose::kTest);
  for (const Layout layout : {Layout::kDense, Layout::kGaps}) {
    for (const std::int64_t width : {0, 1, 3, 63, 64, 65, 1000, 50000}) {
      Operand x = make_operand({3, width}, DType::kF32, layout, *machines[0]->allocator);
      fill_uniform(x.view, random, 0, 100);
      const double expected = reference::sum_of_squares(machines[0]->stream, x.view);
      const double actual = cpu::sum_of_squares(machines[0]->stream, x.view);
      // Positive terms in double: relative error at most their number times 2^-53.
      EXPECT_NEAR(actual, expected, expected * static_cast<double>(3 * width) * 0x1p-53) << width;
      EXPECT_EQ(actual, cpu::sum_of_squares(machines[1]->stream, x.view)) << width;
      EXPECT_EQ(actual, cpu::sum_of_squares(machines[2]->stream, x.view)) << width;
    }
  }
}

// Values whose rounding is delicate: ties, the largest finite numbers, denormals, infinities and NaN. Every target must
// write the bits of tensor::to_bfloat16, at every place of a vector.
TEST(Convert, RoundsToBfloat16AsTheScalarFunction) {
  Machine machine(1);
  std::vector<float> values;
  for (const std::uint32_t bits :
       {0x3f808000U, 0x3f818000U, 0x3f807fffU, 0x3f808001U, 0x7f7fffffU, 0x7f7f7fffU, 0x00000001U, 0x00008000U,
        0x007fffffU, 0x7f800000U, 0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0U}) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) values.push_back(std::bit_cast<float>(bits | sign));
  }
  RandomStream random(17, RandomPurpose::kTest);
  for (int i = 0; i < 4000; ++i) values.push_back(std::bit_cast<float>(random.next()));
  const auto size = static_cast<std::int64_t>(values.size());
  const Tensor x = Tensor::from_floats(values, {size}, *machine.allocator);
  Tensor y = Tensor::empty({size}, DType::kBF16, *machine.allocator);
  for_each_target([&](const char* target) {
    y.fill_zero();
    cpu::convert(machine.stream, x, y);
    for (std::int64_t i = 0; i < size; ++i) {
      const std::uint16_t expected = tensor::to_bfloat16(x.data<float>()[i]).bits;
      ASSERT_EQ(y.data<BFloat16>()[i].bits, expected)
          << target << " " << std::bit_cast<std::uint32_t>(x.data<float>()[i]);
    }
  });
}

TEST(Targets, AllEqualTheReference) {
  int targets = 0;
  for_each_target([&](const char* target) {
    SCOPED_TRACE(target);
    ++targets;
    for (const KernelCase& test : activation_cases()) check_settings(test, {3}, {test.widths.back()});
  });
  EXPECT_GE(targets, 1);
}

TEST(Swiglu, SaturatesWithoutNan) {
  Machine machine(1);
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor gate =
      Tensor::from_floats(std::vector<float>{-1e30F, -200, -90, 0, 90, 200, 1e30F, NAN}, {1, 8}, *machine.allocator);
  const Tensor up = Tensor::from_floats(std::vector<float>(8, 2.0F), {1, 8}, *machine.allocator);
  Tensor y = Tensor::empty({1, 8}, DType::kF32, *machine.allocator);
  cpu::gate(machine.stream, Activation::kSilu, gate, up, y);
  const std::vector<float> values = y.to_floats();
  EXPECT_NEAR(values[0], 0, 1e-8);
  EXPECT_NEAR(values[1], 0, 1e-30);
  EXPECT_NEAR(values[2], 0, 1e-30);
  EXPECT_EQ(values[3], 0);
  EXPECT_EQ(values[4], 180);
  EXPECT_EQ(values[5], 400);
  EXPECT_LT(values[6], infinity);
  EXPECT_TRUE(std::isnan(values[7]));
}

TEST(Features, AreOrdered) {
  const CpuFeatures features = detect_cpu_features();
  EXPECT_TRUE(features.avx2 || !features.avx512);
  EXPECT_TRUE(features.avx512 || !features.avx512_bf16);
  EXPECT_TRUE(features.avx512_bf16 || !features.amx_bf16);
#if defined(__x86_64__)
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.avx512, __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0);
#endif
}

// Where AMX is tested in software, it is really what runs.
TEST(AmxEmulation, ExecutesProducts) {
  const CpuFeatures here = detect_cpu_features();
  CpuFeatures features = here;
  features.amx_bf16 = here.avx512_bf16 && emulate_amx();
  if (!features.amx_bf16) GTEST_SKIP() << "needs AVX-512 bf16 and Linux";
  Machine machine(2, features);
  Tensor a = Tensor::empty({40, 70}, DType::kBF16, *machine.allocator);
  Tensor b = Tensor::empty({70, 50}, DType::kBF16, *machine.allocator);
  RandomStream random(3, RandomPurpose::kTest);
  fill_uniform(a, random, 0, 1);
  fill_uniform(b, random, 0, 1);
  const std::int64_t before = emulated_amx_instructions();
  const Tensor c = Tensor::empty({40, 50}, DType::kF32, *machine.allocator);
  cpu::matmul(machine.stream, {.a = a, .b = b, .c = c});
  // 3 x 4 blocks of 16 x 16 results, each with a product for every 32 of k.
  EXPECT_EQ(emulated_amx_instructions() - before >= 3 * 4 * 3, !here.amx_bf16);
}

Tensor tensor_of(std::vector<float> values, Machine& machine) {
  const auto size = static_cast<std::int64_t>(values.size());
  return Tensor::from_floats(values, {size}, *machine.allocator);
}

TEST(Comparison, AcceptsWithinAndRefusesBeyond) {
  Machine machine(1);
  const Tensor one = tensor_of({1, 2}, machine);
  EXPECT_EQ(mismatch(one, one, {}), "");
  EXPECT_EQ(mismatch(tensor_of({1, 2.0000002F}, machine), one, {}), "");  // a neighbour in f32
  EXPECT_NE(mismatch(tensor_of({1, 2.000001F}, machine), one, {}), "");   // four neighbours away
  EXPECT_EQ(mismatch(tensor_of({1, 2.000001F}, machine), one, {.relative = 8}), "");
  EXPECT_NE(mismatch(tensor_of({1, 2.1F}, machine), one, {.absolute = 0.09}), "");
  EXPECT_EQ(mismatch(tensor_of({1, 2.1F}, machine), one, {.absolute = 0.11}), "");
  EXPECT_NE(mismatch(tensor_of({1, -2}, machine), one, {.absolute = 1}), "");
  EXPECT_NE(mismatch(tensor_of({1}, machine), one, {}), "");  // another shape
}

TEST(Comparison, TreatsNanAndInfinityStrictly) {
  Machine machine(1);
  const float infinity = std::numeric_limits<float>::infinity();
  const Bound wide{.relative = 1e9, .absolute = 1e30};
  EXPECT_EQ(mismatch(tensor_of({NAN}, machine), tensor_of({NAN}, machine), {}), "");
  EXPECT_NE(mismatch(tensor_of({NAN}, machine), tensor_of({1}, machine), wide), "");
  EXPECT_NE(mismatch(tensor_of({1}, machine), tensor_of({NAN}, machine), wide), "");
  EXPECT_EQ(mismatch(tensor_of({infinity}, machine), tensor_of({infinity}, machine), {}), "");
  EXPECT_NE(mismatch(tensor_of({-infinity}, machine), tensor_of({infinity}, machine), wide), "");
  EXPECT_NE(mismatch(tensor_of({3e38F}, machine), tensor_of({infinity}, machine), wide), "");
}

TEST(Comparison, SeesWritesBetweenRows) {
  Machine machine(1);
  Operand x = make_operand({2, 4}, DType::kBF16, Layout::kGaps, *machine.allocator);
  EXPECT_TRUE(gaps_untouched(x));
  set_element(x.view, 3, 1);
  EXPECT_TRUE(gaps_untouched(x));
  set_element(x.view, 4, 1);  // one past the first row
  EXPECT_FALSE(gaps_untouched(x));
}

}  // namespace
}  // namespace instruct::kernels::testing
