// Options of routing rows to experts.
#pragma once

#include <cstdint>

namespace instruct::kernels {

// Whether the weights of a row's chosen experts are divided by their sum.
enum class Renormalise : std::uint8_t { kNo, kYes };

}  // namespace instruct::kernels
