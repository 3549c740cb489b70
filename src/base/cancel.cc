#include "base/cancel.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>

#include "base/error.h"

namespace instruct {
namespace {

// The one piece of process-wide state that cannot be passed in: a signal handler has no arguments of ours.
std::atomic<int> g_signal{0};                          // 0: none
static_assert(std::atomic<int>::is_always_lock_free);  // what makes it usable in a handler

void on_signal(int signal) {
  g_signal = signal;
}

// Where the running thread's handlers run, while it lives: its own stack is not free for them, see the header.
class HandlerStack {
 public:
  HandlerStack() {
    stack_t known{};
    if (::sigaltstack(nullptr, &known) == 0 && (known.ss_flags & SS_DISABLE) == 0) return;  // it has one: a sanitizer's
    const auto size = static_cast<std::size_t>(std::max(::sysconf(_SC_SIGSTKSZ), 64L << 10));
    memory_ = std::make_unique<std::byte[]>(size);
    stack_t stack{};
    stack.ss_sp = memory_.get();
    stack.ss_size = size;
    ::sigaltstack(&stack, nullptr);
  }
  ~HandlerStack() {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    if (memory_ != nullptr) ::sigaltstack(&none, nullptr);
  }
  HandlerStack(const HandlerStack&) = delete;
  HandlerStack& operator=(const HandlerStack&) = delete;

 private:
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace

void install_cancel_handlers() {
  thread_local const HandlerStack stack;
  struct sigaction action {};
  action.sa_handler = on_signal;
  // SA_RESETHAND: the second signal ends the process. No SA_RESTART: a read that waits for a terminal or pipe returns.
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_ONSTACK;
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
