#include "tensor/block_writers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace instruct::tensor {
namespace {

// The value of largest magnitude, with its sign: what ggml scales the symmetric formats by.
float extreme(const float* x) {
  float most = 0;
  float result = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    if (std::abs(x[i]) > most) {
      most = std::abs(x[i]);
      result = x[i];
    }
  }
  return result;
}

// Truncation after adding half (and the offset) is how ggml rounds here.
int quantised(float value, float offset, int most) {
  return std::min(most, static_cast<int>(value + offset));
}

struct Range {
  float least;
  float step;
  float inverse;
};
Range range_of(const float* x, float levels) {
  const auto [least, most] = std::minmax_element(x, x + 32);
  const float step = (*most - *least) / levels;
  return {*least, step, step != 0 ? 1.0F / step : 0.0F};
}

}  // namespace

void write_q8_0(const float* x, std::uint8_t* block) {
  const float d = std::abs(extreme(x)) / 127.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  for (std::size_t i = 0; i < 32; ++i) {
    block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x[i] * inverse)));
  }
}

void write_q4_0(const float* x, std::uint8_t* block) {
  const float d = extreme(x) / -8.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  for (std::size_t i = 0; i < 16; ++i) {
    block[2 + i] =
        static_cast<std::uint8_t>(quantised(x[i] * inverse, 8.5F, 15) | quantised(x[i + 16] * inverse, 8.5F, 15) << 4);
  }
}

void write_q5_0(const float* x, std::uint8_t* block) {
  const float d = extreme(x) / -16.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    const int first = quantised(x[i] * inverse, 16.5F, 31);
    const int second = quantised(x[i + 16] * inverse, 16.5F, 31);
    block[6 + i] = static_cast<std::uint8_t>((first & 0xF) | (second & 0xF) << 4);
    bits |= static_cast<std::uint32_t>(first >> 4) << i | static_cast<std::uint32_t>(second >> 4) << (i + 16);
  }
  std::memcpy(block + 2, &bits, 4);
}

void write_q4_1(const float* x, std::uint8_t* block) {
  const Range range = range_of(x, 15.0F);
  put_half(block, 0, range.step);
  put_half(block, 2, range.least);
  for (std::size_t i = 0; i < 16; ++i) {
    block[4 + i] = static_cast<std::uint8_t>(quantised((x[i] - range.least) * range.inverse, 0.5F, 15) |
                                             quantised((x[i + 16] - range.least) * range.inverse, 0.5F, 15) << 4);
  }
}

void write_q5_1(const float* x, std::uint8_t* block) {
  const Range range = range_of(x, 31.0F);
  put_half(block, 0, range.step);
  put_half(block, 2, range.least);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    const int first = quantised((x[i] - range.least) * range.inverse, 0.5F, 31);
    const int second = quantised((x[i + 16] - range.least) * range.inverse, 0.5F, 31);
    block[8 + i] = static_cast<std::uint8_t>((first & 0xF) | (second & 0xF) << 4);
    bits |= static_cast<std::uint32_t>(first >> 4) << i | static_cast<std::uint32_t>(second >> 4) << (i + 16);
  }
  std::memcpy(block + 4, &bits, 4);
}

}  // namespace instruct::tensor
