// Seconds between the steps of one piece of work.
#pragma once

#include <chrono>

namespace instruct {

class Stopwatch {
 public:
  // Seconds since the last lap, or since construction.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> seconds = now - last_;
    last_ = now;
    return seconds.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace instruct
