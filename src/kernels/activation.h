// What a feed-forward, or its gate, passes through.
#pragma once

#include <cstdint>

namespace instruct::kernels {

// kSilu: z sigmoid(z). kGelu: z P(Z < z) of a normal Z, z (1 + erf(z / sqrt(2))) / 2; kGeluTanh: its approximation
// z sigmoid(2 sqrt(2 / pi) (z + 0.044715 z^3)), since (1 + tanh(u)) / 2 = sigmoid(2 u) (Hendrycks & Gimpel, "Gaussian
// error linear units", 2016). kRelu: max(z, 0). kTanh: of what is pooled.
enum class Activation : std::uint8_t { kSilu, kGelu, kGeluTanh, kRelu, kTanh };
inline constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                              Activation::kRelu, Activation::kTanh};

inline constexpr float kGeluRate = 1.5957691216F;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715F;

}  // namespace instruct::kernels
