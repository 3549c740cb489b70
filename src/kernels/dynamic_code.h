// The 256 values an 8-bit moment of Adam is rounded to, in units of the largest of its block: the dynamic code of
// Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2021 (section 2.1).
//
// Seven decades, each cut into cells of one width, twice as many as the decade below; a code stands for the middle of
// its cell. Large values are exact to half a per cent, small ones keep their order down to a millionth. Two more codes
// are 0 and 1.
//   signed (first moment):    0, then magnitudes 1 to 127 of 1, 2, 4, ... 64 cells; 128 is 1; 128 + c is minus code c
//   unsigned (second moment): 0, then 1 to 254 of 2, 4, ... 128 cells; 255 is 1
// As bitsandbytes has them, but for one rule: a second moment above 0 never becomes 0, because the step divides by its
// root.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace instruct::kernels {

enum class DynamicSign : std::uint8_t { kSigned, kUnsigned };

inline constexpr std::size_t kDecades = 7;
inline constexpr std::array<double, kDecades> kDecadeTops{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};

// Cells of the lowest decade.
constexpr int first_cells(DynamicSign sign) {
  return sign == DynamicSign::kSigned ? 1 : 2;
}
// The code that stands for 1; those below it are the cells, and 0.
constexpr int top_code(DynamicSign sign) {
  return sign == DynamicSign::kSigned ? 128 : 255;
}

// The value of every code.
constexpr std::array<float, 256> dynamic_values(DynamicSign sign) {
  std::array<float, 256> values{};
  const auto top = static_cast<std::size_t>(top_code(sign));
  std::size_t code = 1;
  int cells = first_cells(sign);
  for (const double decade : kDecadeTops) {
    for (int cell = 0; cell < cells; ++cell, ++code) {
      const double value = decade * (0.1 + 0.9 * (cell + 0.5) / cells);
      values[code] = static_cast<float>(value);
      if (sign == DynamicSign::kSigned) values[top + code] = static_cast<float>(-value);
    }
    cells *= 2;
  }
  values[top] = 1.0F;
  return values;
}

}  // namespace instruct::kernels
