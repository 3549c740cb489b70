// Optimizer arithmetic, plain, in double.
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

double sum_of_squares(Stream& /*stream*/, const Tensor& x) {
  double sum = 0;
  for_each_element(x, [&](std::int64_t i, std::int64_t j) { sum += std::pow(static_cast<double>(read(x, i, j)), 2); });
  return sum;
}

// With bias corrections c1 = 1 - beta1^step and c2 = 1 - beta2^step:
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//   w = w (1 - rate * decay) - rate * (m / c1) / (sqrt(v / c2) + epsilon).
void adamw(Stream& /*stream*/, const AdamwStep& step, const Tensor& gradient, Tensor& weight, Tensor& first_moment,
           Tensor& second_moment, Tensor& copy) {
  const auto rate = static_cast<double>(step.learning_rate);
  const auto beta1 = static_cast<double>(step.beta1);
  const auto beta2 = static_cast<double>(step.beta2);
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(step.step));
  const double keep = 1 - rate * static_cast<double>(step.weight_decay);
  for (std::int64_t i = 0; i < weight.elements(); ++i) {
    const double g = static_cast<double>(gradient.data<float>()[i]) * static_cast<double>(step.gradient_scale);
    float& w = weight.data<float>()[i];
    float& m = first_moment.data<float>()[i];
    float& v = second_moment.data<float>()[i];
    const double new_m = beta1 * static_cast<double>(m) + (1 - beta1) * g;
    const double new_v = beta2 * static_cast<double>(v) + (1 - beta2) * g * g;
    const double update = (new_m / correction1) / (std::sqrt(new_v / correction2) + static_cast<double>(step.epsilon));
    m = static_cast<float>(new_m);
    v = static_cast<float>(new_v);
    w = static_cast<float>(static_cast<double>(w) * keep - rate * update);
    if (copy.defined()) copy.data<BFloat16>()[i] = tensor::to_bfloat16(w);
  }
}

}  // namespace instruct::kernels::reference
