// Normalisation by rows, plain: by root mean square (Zhang & Sennrich, "Root mean square layer normalization", 2019)
// and by mean and deviation (Ba et al., "Layer normalization", 2016).
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

void rms_norm(Stream& /*stream*/, const Tensor& x, const Tensor& weight, float offset, float epsilon, Tensor& y,
              Tensor& inverse_rms) {
  const std::int64_t width = x.dim(1);
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    double squares = 0;
    for (std::int64_t i = 0; i < width; ++i) squares += std::pow(static_cast<double>(read(x, t, i)), 2);
    const double mean = squares / static_cast<double>(width);
    const auto inverse = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(epsilon)));
    inverse_rms.data<float>()[t] = inverse;
    for (std::int64_t i = 0; i < width; ++i)
      write(y, t, i, read(x, t, i) * inverse * (weight.data<float>()[i] + offset));
  }
}

// With n_i = x_i * r and r = (mean(x^2) + epsilon)^(-1/2):  dr/dx_j = -r^3 x_j / D, so
//   dx_j = r * w_j * dy_j - (r^3 x_j / D) * sum_i w_i dy_i x_i  =  r * (w_j dy_j - n_j * mean_i(w_i dy_i n_i)).
void rms_norm_backward(Stream& /*stream*/, const Tensor& x, const Tensor& weight, float offset,
                       const Tensor& inverse_rms, const Tensor& dy, Accumulate accumulate_dx, Tensor& dx,
                       Tensor& dweight) {
  const std::int64_t width = x.dim(1);
  const float* w = weight.data<float>();
  std::vector<double> weight_gradient(static_cast<std::size_t>(width), 0.0);
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    const auto r = static_cast<double>(inverse_rms.data<float>()[t]);
    const auto n = [&](std::int64_t i) { return static_cast<double>(read(x, t, i)) * r; };
    const auto dn = [&](std::int64_t i) {
      return static_cast<double>(w[i] + offset) * static_cast<double>(read(dy, t, i));
    };
    double mean = 0;
    for (std::int64_t i = 0; i < width; ++i) mean += dn(i) * n(i) / static_cast<double>(width);
    for (std::int64_t i = 0; i < width; ++i) {
      weight_gradient[static_cast<std::size_t>(i)] += static_cast<double>(read(dy, t, i)) * n(i);
      double gradient = r * (dn(i) - n(i) * mean);
      if (accumulate_dx == Accumulate::kYes) gradient += static_cast<double>(read(dx, t, i));
      write(dx, t, i, static_cast<float>(gradient));
    }
  }
  if (!dweight.defined()) return;
  for (std::int64_t i = 0; i < width; ++i) {
    float& sum = dweight.data<float>()[i];
    sum = static_cast<float>(static_cast<double>(sum) + weight_gradient[static_cast<std::size_t>(i)]);
  }
}

void layer_norm(Stream& /*stream*/, const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon, Tensor& y,
                Tensor& mean, Tensor& inverse_deviation) {
  const std::int64_t width = x.dim(1);
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += static_cast<double>(read(x, t, i));
    const double centre = sum / static_cast<double>(width);
    double squares = 0;
    for (std::int64_t i = 0; i < width; ++i) squares += std::pow(static_cast<double>(read(x, t, i)) - centre, 2);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon));
    mean.data<float>()[t] = static_cast<float>(centre);
    inverse_deviation.data<float>()[t] = static_cast<float>(inverse);
    for (std::int64_t i = 0; i < width; ++i) {
      const double n = (static_cast<double>(read(x, t, i)) - centre) * inverse;
      const double shift = bias.defined() ? static_cast<double>(bias.data<float>()[i]) : 0.0;
      write(y, t, i, static_cast<float>(n * static_cast<double>(weight.data<float>()[i]) + shift));
    }
  }
}

// With m the mean, n_i = (x_i - m) r and r = (mean((x - m)^2) + epsilon)^(-1/2):  dm/dx_j = 1/D and dr/dx_j = -r^2 n_j
// / D, so  dx_j = r * (w_j dy_j - mean_i(w_i dy_i) - n_j * mean_i(w_i dy_i n_i)).
void layer_norm_backward(Stream& /*stream*/, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, const Tensor& dy, Accumulate accumulate_dx, Tensor& dx,
                         Tensor& dweight) {
  const std::int64_t width = x.dim(1);
  const float* w = weight.data<float>();
  std::vector<double> weight_gradient(static_cast<std::size_t>(width), 0.0);
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    const auto r = static_cast<double>(inverse_deviation.data<float>()[t]);
    const auto centre = static_cast<double>(mean.data<float>()[t]);
    const auto n = [&](std::int64_t i) { return (static_cast<double>(read(x, t, i)) - centre) * r; };
    const auto dn = [&](std::int64_t i) { return static_cast<double>(w[i]) * static_cast<double>(read(dy, t, i)); };
    double plain = 0;
    double along = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      plain += dn(i) / static_cast<double>(width);
      along += dn(i) * n(i) / static_cast<double>(width);
    }
    for (std::int64_t i = 0; i < width; ++i) {
      weight_gradient[static_cast<std::size_t>(i)] += static_cast<double>(read(dy, t, i)) * n(i);
      double gradient = r * (dn(i) - plain - n(i) * along);
      if (accumulate_dx == Accumulate::kYes) gradient += static_cast<double>(read(dx, t, i));
      write(dx, t, i, static_cast<float>(gradient));
    }
  }
  if (!dweight.defined()) return;
  for (std::int64_t i = 0; i < width; ++i) {
    float& sum = dweight.data<float>()[i];
    sum = static_cast<float>(static_cast<double>(sum) + weight_gradient[static_cast<std::size_t>(i)]);
  }
}

}  // namespace instruct::kernels::reference
