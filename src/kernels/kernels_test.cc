// CPU kernels on activations and flat tensors against their reference twins. A case is data: operands with their
// shapes and fills, the call, and the error that each output may have.
#include <hwy/targets.h>
#include <functional>

#include "kernels/amx_emulation.h"
#include "kernels/test_support.h"

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

enum class Role { kIn, kOut, kInOut };

// X: activation dtype of the run. Y: a second activation dtype, varied on its own. F32: always f32.
enum class Kind { kX, kY, kF32 };

struct OperandSpec {
  Kind kind = Kind::kX;
  Role role = Role::kIn;
  std::function<Shape(std::int64_t t, std::int64_t d)> shape;
  float centre = 0;
  float spread = 1;
  std::function<Bound(std::int64_t t, std::int64_t d)> bound = {};  // of an output
};

using Tensors = std::vector<Tensor>;

struct KernelCase {
  std::string name;
  std::vector<OperandSpec> operands;
  std::function<void(Stream&, Tensors&)> reference;
  std::function<void(Stream&, Tensors&)> fast;
  std::vector<std::int64_t> widths = {1, 3, 63, 64, 65, 576, 1000};
};

Shape matrix(std::int64_t t, std::int64_t d) {
  return {t, d};
}
Shape row(std::int64_t /*t*/, std::int64_t d) {
  return {d};
}
Shape column(std::int64_t t, std::int64_t /*d*/) {
  return {t};
}

// A fixed number of operations, relative to the value or to terms of size `magnitude`.
std::function<Bound(std::int64_t, std::int64_t)> operations(double relative, double terms = 0, double magnitude = 0) {
  return [=](std::int64_t, std::int64_t) { return Bound{relative, terms * kUnit * magnitude}; };
}

std::vector<std::int32_t> some_positions(std::int64_t count) {
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < count; ++i) positions.push_back(static_cast<std::int32_t>((i * 7 + 3) % 32));
  return positions;
}

KernelCase rms_norm_case(float offset) {
  // The sum of squares has positive terms, so its error is relative; the root halves it.
  const auto bound = [](std::int64_t, std::int64_t d) { return Bound{sum_units(d), 0}; };
  return {
      .name = fmt::format("rms_norm from {}", offset),
      .operands = {{Kind::kX, Role::kIn, matrix},
                   {Kind::kF32, Role::kIn, row},
                   {Kind::kX, Role::kOut, matrix, 0, 1, bound},
                   {Kind::kF32, Role::kOut, column, 0, 1, bound}},
      .reference = [offset](Stream& s, Tensors& o) { reference::rms_norm(s, o[0], o[1], offset, 1e-5F, o[2], o[3]); },
      .fast = [offset](Stream& s, Tensors& o) { cpu::rms_norm(s, o[0], o[1], offset, 1e-5F, o[2], o[3]); }};
}

// |x|, |w|, |dy| <= 1 and r <= 1.5, so |n| <= 1.5, each term of the mean <= 1.5 and |dx| terms <= 1.5 (1 + 1.5 * 1.5);
// all that with w twice as large with an offset of 1.
KernelCase rms_norm_backward_case(Accumulate accumulate, bool with_weight, float offset) {
  const double most = 1 + static_cast<double>(offset);
  const auto dx_bound = [most](std::int64_t, std::int64_t d) {
    return Bound{4, (8 + sum_units(d)) * kUnit * 4.9 * most};
  };
  // Partial sums over t grow like a random walk of steps below 1.5.
  const auto dw_bound = [](std::int64_t t, std::int64_t) {
    return Bound{4, sum_units(t) * kUnit * 1.5 * (4 + std::sqrt(static_cast<double>(t)))};
  };
  const auto call = [=](auto kernel) {
    return [=](Stream& s, Tensors& o) {
      Tensor none;
      kernel(s, o[0], o[1], offset, o[2], o[3], accumulate, o[4], with_weight ? o[5] : none);
    };
  };
  return {.name = fmt::format("rms_norm_backward from {}{}{}", offset,
                              accumulate == Accumulate::kYes ? " accumulating" : "", with_weight ? " with weight" : ""),
          .operands = {{Kind::kX, Role::kIn, matrix},
                       {Kind::kF32, Role::kIn, row},
                       {Kind::kF32, Role::kIn, column, 1.0F, 0.5F},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kInOut, matrix, 0, 1, dx_bound},
                       {Kind::kF32, Role::kInOut, row, 0, 1, dw_bound}},
          .reference = call(reference::rms_norm_backward),
          .fast = call(cpu::rms_norm_backward)};
}

// |x - mean| <= 2 and a deviation of half at least, so |n| <= 4; mean and deviation carry the error of a sum. One
// column has no deviation: what is divided by sqrt(epsilon) is rounding alone, so widths begin at 3.
KernelCase layer_norm_case(bool with_bias) {
  const auto bound = [](std::int64_t, std::int64_t d) { return Bound{4, (8 + sum_units(d)) * kUnit * 8}; };
  const auto call = [=](auto kernel) {
    return [=](Stream& s, Tensors& o) { kernel(s, o[0], o[1], with_bias ? o[2] : Tensor(), 1e-5F, o[3], o[4], o[5]); };
  };
  return {.name = with_bias ? "layer_norm" : "layer_norm without bias",
          .operands = {{Kind::kX, Role::kIn, matrix, 0.5F, 1},
                       {Kind::kF32, Role::kIn, row},
                       {Kind::kF32, Role::kIn, row},
                       {Kind::kX, Role::kOut, matrix, 0, 1, bound},
                       {Kind::kF32, Role::kOut, column, 0, 1, bound},
                       {Kind::kF32, Role::kOut, column, 0, 1, bound}},
          .reference = call(reference::layer_norm),
          .fast = call(cpu::layer_norm),
          .widths = {8, 63, 64, 65, 384, 1000}};
}

// |x - mean| <= 2, |w|, |dy| <= 1, r <= 1.5: |n| <= 3, so terms of dx stay below 1.5 (1 + 1 + 3 * 3).
KernelCase layer_norm_backward_case(Accumulate accumulate, bool with_weight) {
  const auto dx_bound = [](std::int64_t, std::int64_t d) { return Bound{4, (8 + sum_units(d)) * kUnit * 16.5}; };
  const auto dw_bound = [](std::int64_t t, std::int64_t) {
    return Bound{4, sum_units(t) * kUnit * 3 * (4 + std::sqrt(static_cast<double>(t)))};
  };
  const auto call = [=](auto kernel) {
    return [=](Stream& s, Tensors& o) {
      Tensor none;
      kernel(s, o[0], o[1], o[2], o[3], o[4], accumulate, o[5], with_weight ? o[6] : none);
    };
  };
  return {.name = fmt::format("layer_norm_backward{}{}", accumulate == Accumulate::kYes ? " accumulating" : "",
                              with_weight ? " with weight" : ""),
          .operands = {{Kind::kX, Role::kIn, matrix},
                       {Kind::kF32, Role::kIn, row},
                       {Kind::kF32, Role::kIn, column},
                       {Kind::kF32, Role::kIn, column, 1.0F, 0.5F},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kInOut, matrix, 0, 1, dx_bound},
                       {Kind::kF32, Role::kInOut, row, 0, 1, dw_bound}},
          .reference = call(reference::layer_norm_backward),
          .fast = call(cpu::layer_norm_backward)};
}

// Of each head the first 2 * pairs numbers are rotated.
KernelCase rotate_case(std::int64_t head_width, std::int64_t pairs, Direction direction,
                       std::vector<std::int64_t> widths) {
  const auto table = [=](std::int64_t, std::int64_t) { return Shape{32, pairs}; };
  const auto call = [=](auto kernel) {
    return
        [=](Stream& s, Tensors& o) { kernel(s, o[0], head_width, some_positions(o[0].dim(0)), o[1], o[2], direction); };
  };
  return {.name = fmt::format("rotate {} pairs in heads of {}{}", pairs, head_width,
                              direction == Direction::kBackward ? " back" : ""),
          .operands = {{Kind::kX, Role::kInOut, matrix, 0, 1, operations(0, 4, 1)},
                       {Kind::kF32, Role::kIn, table},
                       {Kind::kF32, Role::kIn, table}},
          .reference = call(reference::rotate),
          .fast = call(cpu::rotate),
          .widths = std::move(widths)};
}

std::string text(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    case Activation::kRelu:
      return "relu";
    case Activation::kTanh:
      break;
  }
  return "tanh";
}

// silu by a handful of operations, among them exp at two units and 1 + e, each relative to the value. The exponent of
// gelu's tanh form is off by four of its own units, up to 37 of them where what it gives is not yet zero (z = -4.5).
// The exact form takes a probability that is off by 7.5e-8, 1.3 units, times |z| where that is not yet zero
// (below 5.5).
std::function<Bound(std::int64_t, std::int64_t)> activation_bound(Activation activation) {
  if (activation == Activation::kGeluTanh) return operations(16 + 4 * 37, 1, 1);
  if (activation == Activation::kGelu) return operations(16, 8, 5.5);
  return operations(16);
}

KernelCase activate_case(Activation activation) {
  return {.name = "activate " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 30},
                       {Kind::kX, Role::kOut, matrix, 0, 1, activation_bound(activation)}},
          .reference = [activation](Stream& s, Tensors& o) { reference::activate(s, activation, o[0], o[1]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::activate(s, activation, o[0], o[1]); }};
}

KernelCase activate_backward_case(Activation activation) {
  return {.name = "activate_backward " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 8},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kOut, matrix, 0, 1, operations(16, 16, 8)}},
          .reference = [activation](Stream& s,
                                    Tensors& o) { reference::activate_backward(s, activation, o[0], o[1], o[2]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::activate_backward(s, activation, o[0], o[1], o[2]); }};
}

KernelCase gate_case(Activation activation) {
  return {.name = "gate " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 30},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kOut, matrix, 0, 1, activation_bound(activation)}},
          .reference = [activation](Stream& s, Tensors& o) { reference::gate(s, activation, o[0], o[1], o[2]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::gate(s, activation, o[0], o[1], o[2]); }};
}

// 1 + z (1 - s) can cancel for negative z: |z| (1 - s) s stays below |z|, and |z| s below 0.3 there, so the error is
// bounded in absolute terms by that of numbers below 8 (z up to 8).
KernelCase gate_backward_case(Activation activation, bool in_place) {
  const auto call = [=](auto kernel) {
    return [=](Stream& s, Tensors& o) {
      kernel(s, activation, o[0], o[1], o[2], in_place ? o[0] : o[3], in_place ? o[1] : o[4]);
    };
  };
  return {.name = "gate_backward " + text(activation) + (in_place ? " in place" : ""),
          .operands = {{Kind::kX, Role::kInOut, matrix, 0, 8, operations(16, 16, 8)},
                       {Kind::kX, Role::kInOut, matrix, 0, 1, operations(16, 16, 8)},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kOut, matrix, 0, 1, operations(16, 16, 8)},
                       {Kind::kX, Role::kOut, matrix, 0, 1, operations(16, 16, 8)}},
          .reference = call(reference::gate_backward),
          .fast = call(cpu::gate_backward)};
}

std::vector<KernelCase> plain_cases() {
  const auto exact = operations(0);
  return {
      {.name = "convert",
       .operands = {{Kind::kX, Role::kIn, matrix}, {Kind::kY, Role::kOut, matrix, 0, 1, exact}},
       .reference = [](Stream& s, Tensors& o) { reference::convert(s, o[0], o[1]); },
       .fast = [](Stream& s, Tensors& o) { cpu::convert(s, o[0], o[1]); }},
      {.name = "add_into",
       .operands = {{Kind::kX, Role::kIn, matrix}, {Kind::kY, Role::kInOut, matrix, 0, 1, exact}},
       .reference = [](Stream& s, Tensors& o) { reference::add_into(s, o[0], o[1]); },
       .fast = [](Stream& s, Tensors& o) { cpu::add_into(s, o[0], o[1]); }},
      {.name = "scale",
       .operands = {{Kind::kX, Role::kInOut, matrix, 0, 1, exact}},
       .reference = [](Stream& s, Tensors& o) { reference::scale(s, 5.6F, o[0]); },
       .fast = [](Stream& s, Tensors& o) { cpu::scale(s, 5.6F, o[0]); }},
      // The hyperbolic tangent is off by four units of its size, which is that of the cap at most.
      {.name = "soft_cap",
       .operands = {{Kind::kF32, Role::kInOut, matrix, 0, 20, operations(8)}},
       .reference = [](Stream& s, Tensors& o) { reference::soft_cap(s, 5, o[0]); },
       .fast = [](Stream& s, Tensors& o) { cpu::soft_cap(s, 5, o[0]); }},
      {.name = "soft_cap_backward",
       .operands = {{Kind::kF32, Role::kIn, matrix, 0, 5}, {Kind::kX, Role::kInOut, matrix, 0, 1, operations(4, 8, 1)}},
       .reference = [](Stream& s, Tensors& o) { reference::soft_cap_backward(s, 5, o[0], o[1]); },
       .fast = [](Stream& s, Tensors& o) { cpu::soft_cap_backward(s, 5, o[0], o[1]); }},
      {.name = "add",
       .operands = {{Kind::kX, Role::kIn, matrix},
                    {Kind::kX, Role::kIn, matrix},
                    {Kind::kX, Role::kOut, matrix, 0, 1, exact}},
       .reference = [](Stream& s, Tensors& o) { reference::add(s, o[0], o[1], o[2]); },
       .fast = [](Stream& s, Tensors& o) { cpu::add(s, o[0], o[1], o[2]); }},
      {.name = "add_bias",
       .operands = {{Kind::kF32, Role::kIn, row}, {Kind::kX, Role::kInOut, matrix, 0, 1, exact}},
       .reference = [](Stream& s, Tensors& o) { reference::add_bias(s, o[0], o[1]); },
       .fast = [](Stream& s, Tensors& o) { cpu::add_bias(s, o[0], o[1]); }},
      {.name = "add_column_sums",
       .operands = {{Kind::kX, Role::kIn, matrix},
                    {Kind::kF32, Role::kInOut, row, 0, 1,
                     [](std::int64_t t, std::int64_t) {
                       return Bound{4, sum_units(t) * kUnit * (4 + std::sqrt(static_cast<double>(t)))};
                     }}},
       .reference = [](Stream& s, Tensors& o) { reference::add_column_sums(s, o[0], o[1]); },
       .fast = [](Stream& s, Tensors& o) { cpu::add_column_sums(s, o[0], o[1]); }},
  };
}

KernelCase dropout_case(bool in_place, float rate) {
  const auto call = [=](auto kernel) {
    return [=](Stream& s, Tensors& o) {
      kernel(s, o[0], RandomStream(11, RandomPurpose::kDropout, 5), rate, in_place ? o[0] : o[1]);
    };
  };
  return {.name = fmt::format("dropout {}{}", rate, in_place ? " in place" : ""),
          .operands = {{Kind::kX, Role::kInOut, matrix, 0, 1, operations(2)},
                       {Kind::kX, Role::kOut, matrix, 0, 1, operations(2)}},
          .reference = call(reference::dropout),
          .fast = call(cpu::dropout)};
}

std::vector<KernelCase> activation_cases() {
  std::vector<KernelCase> cases = plain_cases();
  for (const float offset : {0.0F, 1.0F}) {
    cases.push_back(rms_norm_case(offset));
    for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
      for (const bool with_weight : {false, true})
        cases.push_back(rms_norm_backward_case(accumulate, with_weight, offset));
    }
  }
  for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
    cases.push_back(rotate_case(64, 32, direction, {64, 192, 576}));
    cases.push_back(rotate_case(16, 8, direction, {16, 64}));
    cases.push_back(rotate_case(2, 1, direction, {2, 10}));
    cases.push_back(rotate_case(80, 40, direction, {80, 320}));
    cases.push_back(rotate_case(80, 21, direction, {80, 320}));
  }
  for (const bool with_bias : {false, true}) cases.push_back(layer_norm_case(with_bias));
  for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
    for (const bool with_weight : {false, true}) cases.push_back(layer_norm_backward_case(accumulate, with_weight));
  }
  for (const Activation activation : kActivations) {
    cases.push_back(activate_case(activation));
    cases.push_back(activate_backward_case(activation));
    cases.push_back(gate_case(activation));
    for (const bool in_place : {false, true}) cases.push_back(gate_backward_case(activation, in_place));
  }
  for (const bool in_place : {false, true}) cases.push_back(dropout_case(in_place, 0.1F));
  cases.push_back(dropout_case(false, 0.0F));
  return cases;
}

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
