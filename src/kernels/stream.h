// What a kernel call runs on: the threads and the reusable memory, passed in by the caller, never global.
#pragma once

#include <cstdint>
#include <memory>

#include "base/threads.h"
#include "tensor/allocator.h"

namespace instruct::kernels {

// Prepared matrix products (vendor handles), kept between calls. Its content is known to the backend only.
class ProductCache {
 public:
  virtual ~ProductCache() = default;
};

// Instruction sets that kernels choose between at run time.
struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_bf16 = false;
};
CpuFeatures detect_cpu_features();

struct Stream {
  ThreadPool& threads;
  tensor::Allocator& allocator;  // scratch comes from here; a caching allocator makes that cheap
  ProductCache* products = nullptr;
};

}  // namespace instruct::kernels
