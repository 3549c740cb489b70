// What the gate of a feed-forward passes through.
#pragma once

#include <cstdint>

namespace instruct::kernels {

// z sigmoid(v): silu, v = z; the tanh form of gelu, v = 2 sqrt(2 / pi) (z + 0.044715 z^3), since (1 + tanh(u)) / 2 =
// sigmoid(2 u) (Hendrycks & Gimpel, "Gaussian error linear units", 2016).
enum class Activation : std::uint8_t { kSilu, kGeluTanh };

inline constexpr float kGeluRate = 1.5957691216F;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715F;

}  // namespace instruct::kernels
