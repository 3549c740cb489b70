#include "base/cancel.h"

#include <signal.h>

#include <atomic>

#include "base/error.h"

namespace instruct {
namespace {

// The one piece of process-wide state that cannot be passed in: a signal handler has no arguments of ours.
std::atomic<int> g_signal{0};                          // 0: none
static_assert(std::atomic<int>::is_always_lock_free);  // what makes it usable in a handler

void on_signal(int signal) {
  g_signal = signal;
}

}  // namespace

void install_cancel_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  // SA_RESETHAND: the second signal ends the process. No SA_RESTART: a read that waits for a terminal or pipe returns.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool cancel_requested() {
  return g_signal != 0;
}

int cancel_signal() {
  return g_signal;
}

void request_cancel() {
  g_signal = SIGINT;
}

void clear_cancel() {
  g_signal = 0;
}

void throw_if_cancelled(std::string_view work) {
  if (cancel_requested()) raise(ErrorCategory::kCancelled, "{} was stopped", work);
}

}  // namespace instruct
