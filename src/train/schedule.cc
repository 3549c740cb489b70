#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace instruct::train {

ScheduleKind schedule_from_name(std::string_view name) {
  if (name == "constant") return ScheduleKind::kConstant;
  if (name == "constant_with_warmup") return ScheduleKind::kConstantWithWarmup;
  if (name == "linear") return ScheduleKind::kLinear;
  if (name == "cosine") return ScheduleKind::kCosine;
  const std::vector<std::string> known{"constant", "constant_with_warmup", "linear", "cosine"};
  raise(ErrorCategory::kInvalidArgument, "unknown lr_scheduler_type '{}'{}", name, did_you_mean(name, known));
}

double Schedule::rate(std::int64_t done) const {
  if (kind == ScheduleKind::kConstant) return peak;
  if (done < warmup_steps)
    return peak * static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, warmup_steps));
  if (kind == ScheduleKind::kConstantWithWarmup) return peak;
  const double progress = static_cast<double>(done - warmup_steps) /
                          static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
  if (kind == ScheduleKind::kLinear) return peak * std::max(0.0, 1.0 - progress);
  return peak * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace instruct::train
