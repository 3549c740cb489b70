// Messages to standard error. Results go to standard output and never pass through here.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace instruct {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Lowest level that is shown; set once by the command line.
void set_log_level(LogLevel level);
// Raises InvalidArgument for an unknown name.
LogLevel log_level_from_name(std::string_view name);
bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace instruct
