// Optimizer arithmetic, plain, in double.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/dynamic_code.h"
#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

double sum_of_squares(Stream& /*stream*/, const Tensor& x) {
  double sum = 0;
  for_each_element(x, [&](std::int64_t i, std::int64_t j) { sum += std::pow(static_cast<double>(read(x, i, j)), 2); });
  return sum;
}

namespace {

// A moment as numbers: f32 as it is, codes decoded and, by store(), encoded again a block at a time.
class Moment {
 public:
  Moment(Tensor& stored, Tensor& scales, DynamicSign sign)
      : stored_(stored), scales_(scales), sign_(sign), values_(dynamic_values(sign)) {}

  double read(std::int64_t i) const {
    if (stored_.dtype() == DType::kF32) return static_cast<double>(stored_.data<float>()[i]);
    return static_cast<double>(values_[stored_.data<std::uint8_t>()[i]] * scales_.data<float>()[i / kMomentBlock]);
  }

  void store(const std::vector<double>& moments) {
    const auto size = static_cast<std::int64_t>(moments.size());
    for (std::int64_t begin = 0; begin < size; begin += kMomentBlock) {
      const std::int64_t end = std::min(size, begin + kMomentBlock);
      float most = 0;
      if (stored_.dtype() != DType::kF32) {
        for (std::int64_t i = begin; i < end; ++i) most = std::max(most, std::abs(value(moments, i)));
        // Not 0, so that the values can be divided by it.
        most = std::max(most, std::numeric_limits<float>::min());
        scales_.data<float>()[begin / kMomentBlock] = most;
      }
      for (std::int64_t i = begin; i < end; ++i) {
        if (stored_.dtype() == DType::kF32) {
          stored_.data<float>()[i] = value(moments, i);
        } else {
          stored_.data<std::uint8_t>()[i] = nearest(value(moments, i) / most);
        }
      }
    }
  }

 private:
  static float value(const std::vector<double>& moments, std::int64_t i) {
    return static_cast<float>(moments[static_cast<std::size_t>(i)]);
  }

  // By looking at all codes.
  std::uint8_t nearest(float value) const {
    std::size_t best = sign_ == DynamicSign::kUnsigned && value > 0 ? 1 : 0;
    for (std::size_t code = best; code < values_.size(); ++code) {
      if (std::abs(values_[code] - value) < std::abs(values_[best] - value)) best = code;
    }
    return static_cast<std::uint8_t>(best);
  }

  Tensor& stored_;
  Tensor& scales_;
  DynamicSign sign_;
  std::array<float, 256> values_;
};

float weight_at(const AdamwState& state, std::int64_t i) {
  if (!state.lower.defined()) return state.weight.data<float>()[i];
  return tensor::join({state.weight.data<BFloat16>()[i], state.lower.data<std::uint16_t>()[i]});
}

void put_weight(AdamwState& state, std::int64_t i, float value) {
  if (!state.lower.defined()) {
    state.weight.data<float>()[i] = value;
    return;
  }
  const tensor::SplitFloat halves = tensor::split(value);
  state.weight.data<BFloat16>()[i] = halves.upper;
  state.lower.data<std::uint16_t>()[i] = halves.lower;
}

}  // namespace

// With bias corrections c1 = 1 - beta1^step and c2 = 1 - beta2^step:
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//   w = w (1 - rate * decay) - rate * (m / c1) / (sqrt(v / c2) + epsilon).
void adamw(Stream& /*stream*/, const AdamwStep& step, const Tensor& gradient, AdamwState& state) {
  const auto rate = static_cast<double>(step.learning_rate);
  const auto beta1 = static_cast<double>(step.beta1);
  const auto beta2 = static_cast<double>(step.beta2);
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(step.step));
  const double keep = 1 - rate * static_cast<double>(step.weight_decay);
  Moment first(state.first, state.first_scale, DynamicSign::kSigned);
  Moment second(state.second, state.second_scale, DynamicSign::kUnsigned);
  std::vector<double> m, v;
  for (std::int64_t i = 0; i < state.weight.elements(); ++i) {
    const double g = static_cast<double>(gradient.data<float>()[i]) * static_cast<double>(step.gradient_scale);
    m.push_back(beta1 * first.read(i) + (1 - beta1) * g);
    v.push_back(beta2 * second.read(i) + (1 - beta2) * g * g);
    const double update =
        (m.back() / correction1) / (std::sqrt(v.back() / correction2) + static_cast<double>(step.epsilon));
    const auto w = static_cast<double>(weight_at(state, i));
    put_weight(state, i, static_cast<float>(w * keep - rate * update));
  }
  first.store(m);
  second.store(v);
}

}  // namespace instruct::kernels::reference
