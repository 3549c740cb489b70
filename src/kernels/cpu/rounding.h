// Whole numbers of tiles and blocks. Internal to kernels/cpu.
#pragma once

#include <cstdint>

namespace instruct::kernels::cpu {

inline std::int64_t ceil_div(std::int64_t value, std::int64_t by) {
  return (value + by - 1) / by;
}

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

}  // namespace instruct::kernels::cpu
