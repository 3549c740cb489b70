#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace instruct {

std::string_view category_name(ErrorCategory category) {
  switch (category) {
    case ErrorCategory::kInvalidArgument:
      return "invalid argument";
    case ErrorCategory::kBadData:
      return "bad data";
    case ErrorCategory::kNotFound:
      return "not found";
    case ErrorCategory::kIo:
      return "input/output";
    case ErrorCategory::kUnsupported:
      return "unsupported";
    case ErrorCategory::kNumeric:
      return "numeric";
    case ErrorCategory::kCancelled:
      return "cancelled";
    case ErrorCategory::kInternal:
      return "internal";
  }
  return "unknown";
}

int exit_code(ErrorCategory category) {
  switch (category) {
    case ErrorCategory::kInvalidArgument:
      return 2;
    case ErrorCategory::kBadData:
      return 3;
    case ErrorCategory::kNotFound:
      return 4;
    case ErrorCategory::kIo:
      return 5;
    case ErrorCategory::kUnsupported:
      return 6;
    case ErrorCategory::kNumeric:
      return 7;
    case ErrorCategory::kCancelled:
      return 130;
    case ErrorCategory::kInternal:
      return 70;
  }
  return 70;
}

ErrorCategory category_of_exit_code(int code) {
  for (const ErrorCategory category :
       {ErrorCategory::kInvalidArgument, ErrorCategory::kBadData, ErrorCategory::kNotFound, ErrorCategory::kIo,
        ErrorCategory::kUnsupported, ErrorCategory::kNumeric, ErrorCategory::kCancelled}) {
    if (exit_code(category) == code) return category;
  }
  return ErrorCategory::kInternal;
}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "instruct: broken promise: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace instruct
