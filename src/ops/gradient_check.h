// Checks any gradient against central differences. For tests.
#pragma once

#include <fmt/core.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "ops/context.h"

namespace instruct::ops {

struct GradientCheck {
  double worst = 0;         // largest |numeric - analytic| / (tolerance scale)
  std::string description;  // of the worst element
};

// `loss` computes a scalar from the current values of `inputs` (with no tape when `context.tape` is null; otherwise it
// must also leave gradients in the inputs). Values are f32, so the step is 2^-9 of the input's scale and the numeric
// derivative carries an error of about eps * |loss| / step: `absolute` must cover it.
// Compares every element of small inputs and 64 elements of large ones. Returns the worst error relative to
// absolute + relative * |numeric|; at most 1 passes.
inline GradientCheck check_gradients(const std::function<double(Tape*)>& loss, std::vector<Variable> inputs,
                                     double absolute, double relative) {
  Tape tape;
  loss(&tape);
  tape.backward();
  GradientCheck result;
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    Variable& input = inputs[index];
    const std::vector<float> analytic = input.gradient().to_floats();
    const std::int64_t count = input.value().elements();
    const std::int64_t stride = std::max<std::int64_t>(1, count / 64);
    for (std::int64_t i = 0; i < count; i += stride) {
      float& element = input.mutable_value().data<float>()[i];
      const float before = element;
      const float step = std::max(std::abs(before), 1.0F) * 0x1p-9F;
      element = before + step;
      const float high = element;
      const double above = loss(nullptr);
      element = before - step;
      const float low = element;
      const double below = loss(nullptr);
      element = before;
      const double numeric = (above - below) / (static_cast<double>(high) - static_cast<double>(low));
      const double got = static_cast<double>(analytic[static_cast<std::size_t>(i)]);
      const double error = std::abs(numeric - got) / (absolute + relative * std::abs(numeric));
      if (!(error <= result.worst)) {
        result.worst = error;
        result.description = fmt::format("input {} element {}: numeric {}, analytic {}", index, i, numeric, got);
      }
    }
  }
  return result;
}

}  // namespace instruct::ops
