// The one place that chooses a backend.
#pragma once

#include <utility>

#include "base/error.h"
#include "kernels/kernels.h"
#include "ops/context.h"

namespace instruct::ops {

// Runs the context's implementation of one kernel: dispatch<&kernels::cpu::add, &kernels::reference::add>(context,
// ...).
template <auto Cpu, auto Reference, typename... Args>
decltype(auto) dispatch(const Context& context, Args&&... args) {
  switch (context.backend) {
    case Backend::kCpu:
      return Cpu(context.stream, std::forward<Args>(args)...);
    case Backend::kReference:
      return Reference(context.stream, std::forward<Args>(args)...);
  }
  raise(ErrorCategory::kInternal, "unknown backend {}", static_cast<int>(context.backend));
}

// The same by kernel name.
#define INSTRUCT_KERNEL(name) \
  ::instruct::ops::dispatch<&::instruct::kernels::cpu::name, &::instruct::kernels::reference::name>

}  // namespace instruct::ops
