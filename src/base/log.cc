#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "base/text.h"

namespace instruct {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};

}  // namespace

void set_log_level(LogLevel level) {
  g_level = level;
}

LogLevel log_level_from_name(std::string_view name) {
  const std::vector<std::string> known{"debug", "info", "warning", "error", "off"};
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (known[i] == name) return static_cast<LogLevel>(i);
  }
  raise(ErrorCategory::kInvalidArgument, "unknown log level '{}'{}", name, did_you_mean(name, known));
}

bool log_enabled(LogLevel level) {
  return level >= g_level;
}

void log_message(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  const char* prefix = level == LogLevel::kWarning ? "warning: " : level == LogLevel::kError ? "error: " : "";
  const std::string line = fmt::format("{}{}\n", prefix, message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace instruct
