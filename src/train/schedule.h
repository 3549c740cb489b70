// Learning-rate schedules, counted in optimizer steps, equal to those of transformers' `get_scheduler`.
#pragma once

#include <cstdint>
#include <string_view>

namespace instruct::train {

enum class ScheduleKind { kConstant, kConstantWithWarmup, kLinear, kCosine };

// "constant", "constant_with_warmup", "linear" or "cosine". Raises InvalidArgument naming the nearest.
ScheduleKind schedule_from_name(std::string_view name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 0;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 1;

  // Rate used by optimizer step number `done` + 1, where `done` steps came before. Warm-up rises linearly from 0
  // (`constant` has none); then the rate stays, falls linearly to 0, or follows half a cosine to 0.
  double rate(std::int64_t done) const;
};

}  // namespace instruct::train
