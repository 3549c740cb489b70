#include "ops/engine.h"

#include "base/error.h"
#include "kernels/kernels.h"

namespace instruct::ops {

Engine::Engine(int threads, Backend backend)
    : threads_(threads),
      allocator_(tensor::make_host_allocator()),
      products_(kernels::cpu::make_product_cache(kernels::detect_cpu_features())),
      stream_{threads_, *allocator_, products_.get()},
      idle_stream_{idle_threads_, *allocator_, products_.get()},
      backend_(backend) {}

Engine::~Engine() = default;

std::int64_t Engine::rehearse(const std::function<void()>& body) {
  INSTRUCT_CHECK(backend_ == Backend::kCpu && !rehearsing_);  // the reference computes without the pool
  rehearsing_ = true;
  try {
    const std::int64_t kept = allocator_->bytes_kept_after(body);
    rehearsing_ = false;
    return kept;
  } catch (...) {
    rehearsing_ = false;
    throw;
  }
}

DType preferred_dtype() {
  const kernels::CpuFeatures features = kernels::detect_cpu_features();
  return features.avx512_bf16 || features.amx_bf16 ? DType::kBF16 : DType::kF32;
}

DType dtype_from_option(std::string_view name) {
  if (name == "auto") return preferred_dtype();
  if (name == "f32" || name == "float32" || name == "fp32") return DType::kF32;
  if (name != "bf16" && name != "bfloat16") {
    raise(ErrorCategory::kInvalidArgument, "unknown dtype '{}': expected auto, bf16 or f32", name);
  }
  if (!kernels::detect_cpu_features().avx512) {
    raise(ErrorCategory::kUnsupported,
          "dtype bf16 needs a processor with AVX-512 (this one has none): use --dtype f32, or auto");
  }
  return DType::kBF16;
}

}  // namespace instruct::ops
