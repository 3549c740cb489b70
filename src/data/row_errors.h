// Errors of single rows: with the file and row in front, and gathered into one.
#pragma once

#include <string>

#include "base/error.h"
#include "data/rows.h"

namespace instruct::data {

// Runs `body`; errors get the file and row in front.
template <typename Body>
decltype(auto) in_row(const Dataset& dataset, const Example& example, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw Error(error.category(), fmt::format("{}: {}", dataset.where(example), error.what()));
  }
}

// Errors of single rows, gathered into one.
class RowErrors {
 public:
  template <typename Body>
  void attempt(const Body& body) {
    try {
      body();
    } catch (const Error& error) {
      if (error.category() != ErrorCategory::kBadData && error.category() != ErrorCategory::kInvalidArgument) throw;
      if (count_++ < kShown) text_ += std::string("\n  ") + error.what();
    }
  }
  void raise_if_any(const Dataset& dataset, std::size_t rows) const {
    if (count_ == 0) return;
    raise(ErrorCategory::kBadData, "{}: {} of {} rows cannot be used:{}{}", dataset.origin, count_, rows, text_,
          count_ > kShown ? fmt::format("\n  ... and {} more", count_ - kShown) : "");
  }

 private:
  static constexpr std::int64_t kShown = 5;
  std::int64_t count_ = 0;
  std::string text_;
};

}  // namespace instruct::data
