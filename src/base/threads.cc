#include "base/threads.h"

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace instruct {
namespace {

thread_local bool t_inside_task = false;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// While it lives, the running thread, and those it starts for good, take no signal but those of their own faults: a
// handler would run on their stacks (see cancel.h).
class WithoutSignals {
 public:
  WithoutSignals() {
    sigset_t set;
    sigfillset(&set);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&set, fault);
    pthread_sigmask(SIG_SETMASK, &set, &before_);
  }
  ~WithoutSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  WithoutSignals(const WithoutSignals&) = delete;
  WithoutSignals& operator=(const WithoutSignals&) = delete;

 private:
  sigset_t before_{};
};

constexpr int kSpins = 4000;  // about 40 microseconds: longer than the gaps between kernels, short for a user

}  // namespace

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex run_mutex;  // one run() at a time

  // A generation is one run(). Guarded by mutex; `generation` and `stopping` are also polled while spinning.
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;
  std::atomic<std::uint64_t> generation{0};
  std::atomic<bool> stopping{false};
  std::atomic<int> active{0};
  const std::function<void(std::int64_t)>* task = nullptr;
  // Tasks are cut into one run of neighbours a thread. A thread works off its own run, then helps with the others': so
  // the same thread tends to meet the same rows in one kernel after the other, while they are in its caches.
  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  std::vector<Share> shares;
  std::exception_ptr failure;
  bool idle = false;

  void deal(std::int64_t count) {
    const auto threads = static_cast<std::int64_t>(shares.size());
    for (std::int64_t i = 0; i < threads; ++i) {
      Share& share = shares[static_cast<std::size_t>(i)];
      share.next.store(count * i / threads, std::memory_order_relaxed);
      share.end = count * (i + 1) / threads;
    }
  }

  void fail() {
    const std::lock_guard lock(mutex);
    if (failure == nullptr) failure = std::current_exception();
    for (Share& share : shares) share.next.store(share.end, std::memory_order_relaxed);
  }

  void work_off(std::size_t thread) {
    t_inside_task = true;
    for (std::size_t i = 0; i < shares.size(); ++i) {
      Share& share = shares[(thread + i) % shares.size()];
      for (;;) {
        const std::int64_t index = share.next.fetch_add(1, std::memory_order_relaxed);
        if (index >= share.end) break;
        try {
          (*task)(index);
        } catch (...) {
          fail();
        }
      }
    }
    t_inside_task = false;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  void worker(std::size_t thread) {
    std::uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation.load(std::memory_order_acquire) == seen && !stopping; ++spin) {
        pause_briefly();
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load() != seen || stopping; });
      }
      if (stopping) return;
      seen = generation.load(std::memory_order_acquire);
      work_off(thread);
      if (active.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard lock(mutex);
        done.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  const int total = threads > 0 ? threads : available_processors();
  state_->shares = std::vector<State::Share>(static_cast<std::size_t>(total));
  try {
    const WithoutSignals guard;
    for (std::size_t i = 1; i < state_->shares.size(); ++i)
      state_->workers.emplace_back([state = state_.get(), i] { state->worker(i); });
  } catch (const std::system_error& error) {
    const std::size_t started = state_->workers.size() + 1;
    state_->stop();
    raise(ErrorCategory::kInvalidArgument, "cannot start {} threads: {} after {} of them", total,
          error.code().message(), started);
  }
}

ThreadPool::ThreadPool(Idle /*idle*/) : ThreadPool(1) {
  state_->idle = true;
}

ThreadPool::~ThreadPool() {
  state_->stop();
}

int ThreadPool::threads() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (count <= 0 || state_->idle) return;
  if (t_inside_task || state_->workers.empty() || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  const std::lock_guard run_lock(state_->run_mutex);
  State& state = *state_;
  {
    const std::lock_guard lock(state.mutex);
    state.task = &task;
    state.deal(count);
    state.failure = nullptr;
    state.active.store(static_cast<int>(state.workers.size()), std::memory_order_relaxed);
    state.generation.fetch_add(1, std::memory_order_release);
  }
  state.wake.notify_all();
  state.work_off(0);
  for (int spin = 0; spin < kSpins && state.active.load(std::memory_order_acquire) != 0; ++spin) pause_briefly();
  if (state.active.load(std::memory_order_acquire) != 0) {
    std::unique_lock lock(state.mutex);
    state.done.wait(lock, [&] { return state.active.load(std::memory_order_acquire) == 0; });
  }
  std::exception_ptr failure;
  {
    const std::lock_guard lock(state.mutex);
    failure = std::exchange(state.failure, nullptr);
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

void ThreadPool::run_ranges(std::int64_t size, std::int64_t grain,
                            const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (size <= 0) return;
  const std::int64_t step = std::max<std::int64_t>(1, grain);
  run((size + step - 1) / step, [&](std::int64_t task) { body(task * step, std::min(size, (task + 1) * step)); });
}

}  // namespace instruct
