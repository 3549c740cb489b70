#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "base/progress.h"

namespace instruct::tensor {
namespace {

constexpr std::int64_t kHugePage = 2 << 20;

// Eight classes between neighbouring powers of two: at most an eighth is wasted.
std::int64_t size_class(std::int64_t bytes) {
  if (bytes <= 64) return 64;
  const auto power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes)));
  const std::int64_t step = std::max<std::int64_t>(64, power / 8);
  return (bytes + step - 1) / step * step;
}

// The pool is shared by the allocator and every block, so blocks may be freed after the allocator is gone.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  ~Pool() { release_free(); }

  std::shared_ptr<Storage> allocate(std::int64_t bytes) {
    const std::int64_t size = size_class(bytes);
    std::byte* data = take(size);
    if (data == nullptr) data = fresh(size);
    if (data == nullptr) {
      raise(ErrorCategory::kInvalidArgument, "out of memory: cannot allocate {} more, {} in use", format_bytes(size),
            format_bytes(in_use()));
    }
    count(size);
    auto pool = shared_from_this();
    return {new Storage{data, bytes, Device::kCpu, nullptr}, [pool, size](Storage* storage) {
              pool->give(storage->data, size);
              delete storage;
            }};
  }

  std::int64_t in_use() {
    const std::lock_guard lock(mutex_);
    return in_use_;
  }
  std::int64_t peak() {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  // A cached block, or null.
  std::byte* take(std::int64_t size) {
    const std::lock_guard lock(mutex_);
    auto& blocks = free_[size];
    if (blocks.empty()) return nullptr;
    std::byte* block = blocks.back();
    blocks.pop_back();
    return block;
  }
  // A block from the system; when it refuses, once more after the cached blocks are given back. Null when that fails
  // too.
  std::byte* fresh(std::int64_t size) {
    const std::int64_t alignment = size >= kHugePage ? kHugePage : 64;
    const auto rounded = static_cast<std::size_t>((size + alignment - 1) / alignment * alignment);
    void* data = std::aligned_alloc(static_cast<std::size_t>(alignment), rounded);
    if (data == nullptr) {
      release_free();
      data = std::aligned_alloc(static_cast<std::size_t>(alignment), rounded);
    }
    // A hint: where the system has no huge pages the block works all the same.
    if (data != nullptr && size >= kHugePage) ::madvise(data, static_cast<std::size_t>(size), MADV_HUGEPAGE);
    return static_cast<std::byte*>(data);
  }
  void release_free() {
    const std::lock_guard lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (std::byte* block : blocks) std::free(block);
      blocks.clear();
    }
  }
  void count(std::int64_t size) {
    const std::lock_guard lock(mutex_);
    in_use_ += size;
    peak_ = std::max(peak_, in_use_);
  }
  void give(std::byte* data, std::int64_t size) {
    const std::lock_guard lock(mutex_);
    in_use_ -= size;
    free_[size].push_back(data);
  }

  std::mutex mutex_;
  std::map<std::int64_t, std::vector<std::byte*>> free_;
  std::int64_t in_use_ = 0;
  std::int64_t peak_ = 0;
};

class HostAllocator final : public Allocator {
 public:
  std::shared_ptr<Storage> allocate(std::int64_t bytes) override {
    INSTRUCT_CHECK(bytes >= 0);
    return pool_->allocate(bytes);
  }
  std::int64_t bytes_in_use() const override { return pool_->in_use(); }
  std::int64_t peak_bytes() const override { return pool_->peak(); }

 private:
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
};

}  // namespace

std::shared_ptr<Allocator> make_host_allocator() {
  return std::make_shared<HostAllocator>();
}

}  // namespace instruct::tensor
