// Where tensors get their bytes. The caching allocator keeps freed blocks, so a training loop asks the system for
// memory during its first step only.
#pragma once

#include <cstdint>
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
  virtual std::int64_t peak_bytes() const = 0;
};

// Host memory with a cache of freed blocks by size class. Thread-safe. Blocks may outlive the allocator object.
std::shared_ptr<Allocator> make_host_allocator();

}  // namespace instruct::tensor
