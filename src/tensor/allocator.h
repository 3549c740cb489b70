// Where tensors get their bytes. Freed bytes are kept and serve the next tensors of any size, so a training loop asks
// the system for memory during its first step only, and holds no more than its fullest moment needs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace instruct::tensor {

enum class Device : std::uint8_t { kCpu, kCuda };

// Bytes on a device, given back when the last owner goes. `owner` keeps alive what the bytes belong to (a pool, a map).
struct Storage {
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
  Device device = Device::kCpu;
  std::shared_ptr<const void> owner;
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  // At least `bytes` bytes, aligned to 64, content undefined. Raises InvalidArgument when the system has no more.
  virtual std::shared_ptr<Storage> allocate(std::int64_t bytes) = 0;
  virtual std::int64_t bytes_in_use() const = 0;
  // Bytes that were used at some time, and are kept: what this allocator adds to the process.
  virtual std::int64_t bytes_kept() const = 0;
  // What bytes_kept() would become if `body` were run with everything written that it allocates. Meant for a body that
  // allocates and writes nothing: it counts for nothing afterwards.
  virtual std::int64_t bytes_kept_after(const std::function<void()>& body) = 0;
};

// Host memory. Thread-safe. Blocks may outlive the allocator object.
std::shared_ptr<Allocator> make_host_allocator();

}  // namespace instruct::tensor
