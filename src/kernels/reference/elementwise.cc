// Elementwise kernels, plain: each output element from its own inputs, in f32 or double.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {
namespace {

// Of an activation.
struct Point {
  double value = 0;
  double slope = 0;
};

double sigmoid(double z) {
  return 1.0 / (1.0 + std::exp(-z));
}

// z sigmoid(v) and its derivative s + z s (1 - s) dv/dz, s = sigmoid(v).
Point of_sigmoid(double z, double v, double slope) {
  const double s = sigmoid(v);
  return {z * s, s * (1.0 + z * slope * (1.0 - s))};
}

Point at(Activation activation, double z) {
  switch (activation) {
    case Activation::kSilu:
      return of_sigmoid(z, z, 1);
    case Activation::kGeluTanh: {
      const auto rate = static_cast<double>(kGeluRate);
      const auto cubic = static_cast<double>(kGeluCubic);
      return of_sigmoid(z, rate * (z + cubic * z * z * z), rate * (1 + 3 * cubic * z * z));
    }
    case Activation::kGelu: {  // P' is the density
      const double below = std::erfc(-z / std::numbers::sqrt2) / 2;
      const double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
      return {z * below, below + z * density};
    }
    case Activation::kRelu:
      return {std::max(z, 0.0), z > 0 ? 1.0 : 0.0};
    case Activation::kTanh:
      break;
  }
  const double y = std::tanh(z);
  return {y, 1 - y * y};
}

}  // namespace

void rotate(Stream& /*stream*/, Tensor& x, std::int64_t head_width, std::span<const std::int32_t> positions,
            const Tensor& cosine, const Tensor& sine, Direction direction) {
  const std::int64_t half = cosine.dim(1);
  const float sign = direction == Direction::kForward ? 1.0F : -1.0F;
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    const std::int64_t position = positions[static_cast<std::size_t>(t)];
    for (std::int64_t head = 0; head < x.dim(1) / head_width; ++head) {
      for (std::int64_t i = 0; i < half; ++i) {
        const std::int64_t first = head * head_width + i;
        const std::int64_t second = first + half;
        const float c = read(cosine, position, i);
        const float s = sign * read(sine, position, i);
        const float a = read(x, t, first);
        const float b = read(x, t, second);
        write(x, t, first, a * c - b * s);
        write(x, t, second, b * c + a * s);
      }
    }
  }
}

void scale(Stream& /*stream*/, float factor, Tensor& x) {
  for_each_element(x, [&](std::int64_t t, std::int64_t i) { write(x, t, i, factor * read(x, t, i)); });
}

void soft_cap(Stream& /*stream*/, float cap, Tensor& x) {
  for_each_element(x, [&](std::int64_t i, std::int64_t j) {
    const auto most = static_cast<double>(cap);
    write(x, i, j, static_cast<float>(most * std::tanh(static_cast<double>(read(x, i, j)) / most)));
  });
}

// d tanh(u) / du = 1 - tanh(u)^2.
void soft_cap_backward(Stream& /*stream*/, float cap, const Tensor& y, Tensor& dx) {
  for_each_element(dx, [&](std::int64_t i, std::int64_t j) {
    const double share = static_cast<double>(read(y, i, j)) / static_cast<double>(cap);
    write(dx, i, j, static_cast<float>(static_cast<double>(read(dx, i, j)) * (1 - std::min(1.0, share * share))));
  });
}

void gate(Stream& /*stream*/, Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  for_each_element(y, [&](std::int64_t t, std::int64_t i) {
    const double value = at(activation, static_cast<double>(read(gate, t, i))).value;
    write(y, t, i, static_cast<float>(value * static_cast<double>(read(up, t, i))));
  });
}

void gate_backward(Stream& /*stream*/, Activation activation, const Tensor& gate, const Tensor& up, const Tensor& dy,
                   Tensor& dgate, Tensor& dup) {
  for_each_element(dy, [&](std::int64_t t, std::int64_t i) {
    const auto z = static_cast<double>(read(gate, t, i));
    const auto u = static_cast<double>(read(up, t, i));
    const auto d = static_cast<double>(read(dy, t, i));
    const Point point = at(activation, z);
    write(dgate, t, i, static_cast<float>(d * u * point.slope));
    write(dup, t, i, static_cast<float>(d * point.value));
  });
}

void activate(Stream& /*stream*/, Activation activation, const Tensor& x, Tensor& y) {
  for_each_element(y, [&](std::int64_t t, std::int64_t i) {
    write(y, t, i, static_cast<float>(at(activation, static_cast<double>(read(x, t, i))).value));
  });
}

void activate_backward(Stream& /*stream*/, Activation activation, const Tensor& x, const Tensor& dy, Tensor& dx) {
  for_each_element(dy, [&](std::int64_t t, std::int64_t i) {
    const double slope = at(activation, static_cast<double>(read(x, t, i))).slope;
    write(dx, t, i, static_cast<float>(static_cast<double>(read(dy, t, i)) * slope));
  });
}

void convert(Stream& /*stream*/, const Tensor& x, Tensor& y) {
  for_each_element(y, [&](std::int64_t i, std::int64_t j) { write(y, i, j, read(x, i, j)); });
}

void add_into(Stream& /*stream*/, const Tensor& x, Tensor& y) {
  for_each_element(y, [&](std::int64_t i, std::int64_t j) { write(y, i, j, read(y, i, j) + read(x, i, j)); });
}

void add(Stream& /*stream*/, const Tensor& a, const Tensor& b, Tensor& y) {
  for_each_element(y, [&](std::int64_t i, std::int64_t j) { write(y, i, j, read(a, i, j) + read(b, i, j)); });
}

void add_bias(Stream& /*stream*/, const Tensor& bias, Tensor& y) {
  for_each_element(y, [&](std::int64_t t, std::int64_t j) { write(y, t, j, read(y, t, j) + bias.data<float>()[j]); });
}

void add_column_sums(Stream& /*stream*/, const Tensor& x, Tensor& sums) {
  for (std::int64_t j = 0; j < x.dim(1); ++j) {
    auto sum = static_cast<double>(sums.data<float>()[j]);
    for (std::int64_t t = 0; t < x.dim(0); ++t) sum += static_cast<double>(read(x, t, j));
    sums.data<float>()[j] = static_cast<float>(sum);
  }
}

void dropout(Stream& /*stream*/, const Tensor& x, const RandomStream& random, float rate, Tensor& y) {
  const float scale = 1.0F / (1.0F - rate);
  const std::int64_t width = row_width(x);
  for_each_element(y, [&](std::int64_t i, std::int64_t j) {
    const bool dropped = random.uniform(static_cast<std::uint64_t>(i * width + j)) < rate;
    write(y, i, j, dropped ? 0.0F : read(x, i, j) * scale);
  });
}

}  // namespace instruct::kernels::reference
