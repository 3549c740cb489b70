// The one exception type of the project, and helpers to raise it.
//
// A message says what was being done, what was expected, what was received, where, and a hint when one is known.
// Errors are checked at the borders (command line, readers, operation fronts); behind them INSTRUCT_CHECK guards
// promises of our own, and no input may ever reach one.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace instruct {

enum class ErrorCategory {
  kInvalidArgument,  // the caller asked for something that makes no sense (flag, key, shape)
  kBadData,          // a file or request body is not what its format promises
  kNotFound,         // a file, tensor, verb or name is missing
  kIo,               // the operating system refused (disk full, permission)
  kUnsupported,      // well-formed, but not implemented here
  kNumeric,          // a value became NaN or infinite
  kCancelled,        // the user asked to stop
  kInternal,         // our own fault
};

// Name of a category as shown to users, e.g. "bad data".
std::string_view category_name(ErrorCategory category);

// Process exit code of a category: 2 invalid argument, 3 bad data, 4 not found, 5 io, 6 unsupported, 7 numeric,
// 130 cancelled (as a shell reports Ctrl-C), 70 internal.
int exit_code(ErrorCategory category);
// The category a process of this program ended with; internal for a code that is none of these.
ErrorCategory category_of_exit_code(int code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCategory category, const std::string& message) : std::runtime_error(message), category_(category) {}
  ErrorCategory category() const { return category_; }

 private:
  ErrorCategory category_;
};

// Throws Error(category, formatted message).
template <typename... Args>
[[noreturn]] void raise(ErrorCategory category, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(category, fmt::format(format, std::forward<Args>(args)...));
}

// What `read` returns; an Error it throws is thrown again with "origin: " in front, unless it names its origin already.
// For readers of values that do not know which file they came from.
template <typename Read>
auto with_origin(const std::string& origin, Read&& read) {
  try {
    return read();
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with(origin)) throw;
    throw Error(error.category(), origin + ": " + error.what());
  }
}

// Prints the failed promise and aborts; used through INSTRUCT_CHECK only.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace instruct

// Aborts when our own promise `condition` is broken. Never for input.
#define INSTRUCT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::instruct::check_failed(#condition, __FILE__, __LINE__))
