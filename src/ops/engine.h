// Threads, memory and prepared products of one process: what a Context is made from.
#pragma once

#include <functional>
#include <memory>

#include "ops/context.h"

namespace instruct::ops {

class Engine {
 public:
  // threads 0 takes every processor this process may run on.
  explicit Engine(int threads = 0, Backend backend = Backend::kCpu);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // tape null: nothing is recorded.
  Context context(Tape* tape = nullptr) { return {rehearsing_ ? idle_stream_ : stream_, tape, backend_}; }
  // Runs `body` with contexts whose kernels ask for memory as ever and compute nothing, so that values are undefined.
  // Returns what the allocator would keep after the body itself (Allocator::bytes_kept_after).
  std::int64_t rehearse(const std::function<void()>& body);
  tensor::Allocator& allocator() { return *allocator_; }
  ThreadPool& threads() { return threads_; }
  Backend backend() const { return backend_; }

 private:
  ThreadPool threads_;
  ThreadPool idle_threads_{ThreadPool::Idle::kIdle};
  std::shared_ptr<tensor::Allocator> allocator_;
  std::unique_ptr<kernels::ProductCache> products_;
  kernels::Stream stream_;
  kernels::Stream idle_stream_;
  Backend backend_;
  bool rehearsing_ = false;
};

// The dtype that `auto` means on this processor: bf16 where it has bf16 products (AVX-512 bf16 or AMX), else f32.
DType preferred_dtype();
// "auto", "bf16" or "f32"; raises InvalidArgument for another name and Unsupported where the processor cannot.
DType dtype_from_option(std::string_view name);

}  // namespace instruct::ops
