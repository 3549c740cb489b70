#include "base/cancel.h"

#include <csignal>

#include "base/error.h"

namespace instruct {
namespace {

// The one piece of process-wide state that cannot be passed in: a signal handler has no arguments of ours.
volatile std::sig_atomic_t g_cancelled = 0;

void on_signal(int signal) {
  g_cancelled = 1;
  std::signal(signal, SIG_DFL);  // the second one ends the process
}

}  // namespace

void install_cancel_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool cancel_requested() {
  return g_cancelled != 0;
}
void request_cancel() {
  g_cancelled = 1;
}
void clear_cancel() {
  g_cancelled = 0;
}

void throw_if_cancelled(std::string_view work) {
  if (cancel_requested()) raise(ErrorCategory::kCancelled, "{} was stopped", work);
}

}  // namespace instruct
