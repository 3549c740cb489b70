#include "base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <fmt/core.h>

#include "base/log.h"

namespace instruct {
namespace {

using Clock = std::chrono::steady_clock;

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// A bar is redrawn in place, which a dumb terminal (an editor's, a recorder's) does not know.
bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && (kind == nullptr || std::string_view(kind) != "dumb");
}

std::string bar(double share, int width) {
  const int filled = static_cast<int>(share * width + 0.5);
  std::string result = "[";
  for (int i = 0; i < width; ++i) result += i < filled ? "#" : "-";
  return result + "]";
}

}  // namespace

std::string format_duration(std::chrono::duration<double> duration) {
  const auto seconds = static_cast<std::int64_t>(std::max(0.0, std::round(duration.count())));
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string format_bytes(std::int64_t bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1000.0 && unit < 4) {
    value /= 1000.0;
    ++unit;
  }
  return unit == 0 || value >= 100 ? fmt::format("{:.0f} {}", value, units[unit])
                                   : fmt::format("{:.1f} {}", value, units[unit]);
}

Progress::Progress(std::string title, std::int64_t total, std::string unit)
    : title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      shown_(log_enabled(LogLevel::kInfo)),
      terminal_(is_terminal()),
      start_(Clock::now()),
      last_draw_(start_ - std::chrono::hours(1)) {
  draw(false);
}

Progress::~Progress() {
  if (std::uncaught_exceptions() > 0) drop();  // the error is what counts now
  finish();
}

void Progress::update(std::int64_t done, std::string_view note) {
  done_ = done;
  note_ = note;
  const auto interval = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  if (Clock::now() - last_draw_ >= interval) draw(false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  draw(true);
}

void Progress::drop() {
  if (!finished_) clear();
  finished_ = true;
}

void Progress::clear() {
  if (!terminal_ || !shown_) return;
  std::fputs("\r\x1b[K", stderr);
  last_draw_ = start_ - std::chrono::hours(1);
}

void Progress::draw(bool final) {
  if (!shown_) return;
  last_draw_ = Clock::now();
  const std::chrono::duration<double> elapsed = last_draw_ - start_;
  const double rate = elapsed.count() > 0.05 ? static_cast<double>(done_) / elapsed.count() : 0.0;
  std::string text = title_ + " ";
  if (total_ > 0) {
    const double share = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    if (terminal_) text += bar(share, std::clamp(terminal_width() - 80, 10, 30)) + " ";
    text += fmt::format("{}/{} {} {:.0f}%", done_, total_, unit_, 100 * share);
  } else {
    text += fmt::format("{} {}", done_, unit_);
  }
  if (rate > 0)
    text += rate >= 1 ? fmt::format(", {:.1f} {}/s", rate, unit_) : fmt::format(", {:.1f} s each", 1 / rate);
  text += ", " + format_duration(elapsed);
  if (!final && rate > 0 && total_ > done_) {
    text +=
        " (" + format_duration(std::chrono::duration<double>(static_cast<double>(total_ - done_) / rate)) + " left)";
  }
  if (!note_.empty()) text += ", " + note_;
  const std::string line = terminal_ ? "\r\x1b[K" + text + (final ? "\n" : "") : text + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace instruct
