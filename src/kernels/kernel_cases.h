// Kernels on activations and flat tensors as cases for their tests: operands with their shapes and fills, the call, and
// the error that each output may have.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/test_support.h"

namespace instruct::kernels::testing {

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

inline Shape matrix(std::int64_t t, std::int64_t d) {
  return {t, d};
}
inline Shape row(std::int64_t /*t*/, std::int64_t d) {
  return {d};
}
inline Shape column(std::int64_t t, std::int64_t /*d*/) {
  return {t};
}

// A fixed number of operations, relative to the value or to terms of size `magnitude`.
inline std::function<Bound(std::int64_t, std::int64_t)> operations(double relative, double terms = 0,
                                                                   double magnitude = 0) {
  return [=](std::int64_t, std::int64_t) { return Bound{relative, terms * kUnit * magnitude}; };
}

inline std::vector<std::int32_t> some_positions(std::int64_t count) {
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < count; ++i) positions.push_back(static_cast<std::int32_t>((i * 7 + 3) % 32));
  return positions;
}

inline KernelCase rms_norm_case(float offset) {
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
inline KernelCase rms_norm_backward_case(Accumulate accumulate, bool with_weight, float offset) {
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
inline KernelCase layer_norm_case(bool with_bias) {
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
inline KernelCase layer_norm_backward_case(Accumulate accumulate, bool with_weight) {
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
inline KernelCase rotate_case(std::int64_t head_width, std::int64_t pairs, Direction direction,
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

inline std::string text(Activation activation) {
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
inline std::function<Bound(std::int64_t, std::int64_t)> activation_bound(Activation activation) {
  if (activation == Activation::kGeluTanh) return operations(16 + 4 * 37, 1, 1);
  if (activation == Activation::kGelu) return operations(16, 8, 5.5);
  return operations(16);
}

inline KernelCase activate_case(Activation activation) {
  return {.name = "activate " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 30},
                       {Kind::kX, Role::kOut, matrix, 0, 1, activation_bound(activation)}},
          .reference = [activation](Stream& s, Tensors& o) { reference::activate(s, activation, o[0], o[1]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::activate(s, activation, o[0], o[1]); }};
}

inline KernelCase activate_backward_case(Activation activation) {
  return {.name = "activate_backward " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 8},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kOut, matrix, 0, 1, operations(16, 16, 8)}},
          .reference = [activation](Stream& s,
                                    Tensors& o) { reference::activate_backward(s, activation, o[0], o[1], o[2]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::activate_backward(s, activation, o[0], o[1], o[2]); }};
}

inline KernelCase gate_case(Activation activation) {
  return {.name = "gate " + text(activation),
          .operands = {{Kind::kX, Role::kIn, matrix, 0, 30},
                       {Kind::kX, Role::kIn, matrix},
                       {Kind::kX, Role::kOut, matrix, 0, 1, activation_bound(activation)}},
          .reference = [activation](Stream& s, Tensors& o) { reference::gate(s, activation, o[0], o[1], o[2]); },
          .fast = [activation](Stream& s, Tensors& o) { cpu::gate(s, activation, o[0], o[1], o[2]); }};
}

// 1 + z (1 - s) can cancel for negative z: |z| (1 - s) s stays below |z|, and |z| s below 0.3 there, so the error is
// bounded in absolute terms by that of numbers below 8 (z up to 8).
inline KernelCase gate_backward_case(Activation activation, bool in_place) {
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

inline std::vector<KernelCase> plain_cases() {
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

inline KernelCase dropout_case(bool in_place, float rate) {
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

inline std::vector<KernelCase> activation_cases() {
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

}  // namespace instruct::kernels::testing
