// Ctrl-C and SIGTERM as a flag that long work polls.
#pragma once

#include <string_view>

namespace instruct {

// Installs handlers for SIGINT and SIGTERM: the first sets the flag and interrupts a waiting read, the second of its
// kind ends the process at once.
//
// Handlers run on a stack of their own (SA_ONSTACK), and so must those of every program that computes with this code:
// oneDNN before 3.11.2 uses the stack pointer as a pointer into the heap in its products of f32 (its issue 4845), and
// what the system pushes there for a handler overwrites other memory. Threads of a ThreadPool take no such signals.
void install_cancel_handlers();
bool cancel_requested();
// The signal that asked (SIGINT, SIGTERM), 0 when none did.
int cancel_signal();
// Sets the flag as a signal would (tests, servers).
void request_cancel();
void clear_cancel();  // a handler that was used up must be installed again
// Raises Cancelled naming the work when a stop was asked for.
void throw_if_cancelled(std::string_view work);

}  // namespace instruct
