// Bounds of the numbers of a configuration, which is hostile input.
#pragma once

#include <string>

#include "base/error.h"

namespace instruct::models {

// Raises BadData naming `origin`, the field and its value when `condition` is false.
inline void require(bool condition, const std::string& origin, const char* what, double value) {
  if (!condition)
    raise(ErrorCategory::kBadData, "{}: {} is {}, which no model of this family has", origin, what, value);
}

}  // namespace instruct::models
