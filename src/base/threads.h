// A pool of worker threads with one operation: run tasks 0..n-1 and wait.
//
// Why not OpenMP: the thread sanitizer does not understand Debian's OpenMP runtimes, and results must not depend on
// the number of threads. Callers cut work into tasks by size alone (never by the number of threads); which thread runs
// a task then changes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace instruct {

class ThreadPool {
 public:
  // `threads` counts the calling thread; 0 takes the processors this process may run on. Raises InvalidArgument when
  // the system refuses to start that many.
  explicit ThreadPool(int threads = 0);
  // A pool that runs no task: callers do all that they do beside the work itself, such as asking for memory.
  enum class Idle { kIdle };
  explicit ThreadPool(Idle idle);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Runs task(0) ... task(count-1), in any order, on all threads; returns when all are done. Neighbouring tasks tend to
  // run on one thread, the same from call to call. The first exception of a task is rethrown here. Calls from inside a
  // task run serially.
  void run(std::int64_t count, const std::function<void(std::int64_t task)>& task);
  // Cuts [0, size) into ranges of `grain` (the last may be shorter) and runs body(begin, end) for each.
  void run_ranges(std::int64_t size, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Number of processors this process may run on.
int available_processors();

}  // namespace instruct
