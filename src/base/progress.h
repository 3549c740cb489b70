// A progress bar with rate and time left on a terminal, and plain lines every few seconds elsewhere. Writes to stderr,
// and nothing at all where the log level leaves out information.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace instruct {

class Progress {
 public:
  // `unit` names what is counted ("rows", "steps"); total 0 means unknown.
  Progress(std::string title, std::int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // Moves to `done` and shows `note` behind the bar ("loss 2.31").
  void update(std::int64_t done, std::string_view note = {});
  // Draws the final state and ends the line. Called by the destructor when not called before.
  void finish();
  // Wipes the bar and ends, for work whose result says all.
  void drop();
  // Wipes the bar so that a message can be printed; the next update draws it again.
  void clear();

 private:
  void draw(bool final);
  std::string title_;
  std::int64_t total_;
  std::string unit_;
  std::string note_;
  std::int64_t done_ = 0;
  bool shown_;
  bool terminal_;
  bool finished_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

// "1:02:03", "4:05" or "12s".
std::string format_duration(std::chrono::duration<double> duration);
// "1.5 GB", "320 MB" (powers of 1,000).
std::string format_bytes(std::int64_t bytes);

}  // namespace instruct
