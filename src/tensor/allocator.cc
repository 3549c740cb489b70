// Two kinds of blocks. Small ones are kept by size class, for they come and go by the thousand. Large ones are cut from
// regions of address space, the lowest place first, and freed neighbours are joined: so the gradients of a backward
// pass move into the places of the activations it has done with. Pages of a region that were never used cost nothing.
//
// With size classes for all blocks, as before, a step of full tuning kept both: 0.5 GB more for SmolLM2-135M.
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
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kLarge = 16 << 10;                // blocks from this size on are cut from regions
constexpr std::int64_t kRegion = std::int64_t{1} << 30;  // address space asked for at a time

std::int64_t round_up(std::int64_t bytes, std::int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Eight classes between neighbouring powers of two: at most an eighth is wasted.
std::int64_t size_class(std::int64_t bytes) {
  if (bytes <= 64) return 64;
  const auto power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes)));
  return round_up(bytes, std::max<std::int64_t>(64, power / 8));
}

// A stretch of address space, used from its lowest address on.
class Region {
 public:
  // Throws nothing: without memory, empty() is true.
  explicit Region(std::int64_t bytes) : bytes_(bytes) {
    const auto size = static_cast<std::size_t>(bytes + kHugePage);
    void* map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return;
    map_ = static_cast<std::byte*>(map);
    const auto address = reinterpret_cast<std::uintptr_t>(map);
    base_ = map_ + (static_cast<std::uintptr_t>(kHugePage) - address % kHugePage) % kHugePage;
    // A hint: where the system has no huge pages the region works all the same.
    ::madvise(base_, static_cast<std::size_t>(bytes_), MADV_HUGEPAGE);
    free_.emplace(0, bytes_);
  }
  ~Region() {
    if (map_ != nullptr) ::munmap(map_, static_cast<std::size_t>(bytes_ + kHugePage));
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  bool empty() const { return map_ == nullptr; }
  bool holds(const std::byte* data) const { return data >= base_ && data < base_ + bytes_; }
  std::int64_t kept() const { return kept_; }
  // Gives back what lies behind.
  void shrink(std::int64_t kept) {
    const std::int64_t begin = round_up(kept, kHugePage);
    if (begin < kept_) ::madvise(base_ + begin, static_cast<std::size_t>(kept_ - begin), MADV_DONTNEED);
    kept_ = kept;
  }
  // End of the last block in use.
  std::int64_t used_end() const {
    const auto last = free_.empty() ? free_.end() : std::prev(free_.end());
    return last != free_.end() && last->first + last->second == bytes_ ? last->first : bytes_;
  }

  // Null when no free stretch is long enough.
  std::byte* take(std::int64_t size) {
    const auto found = std::find_if(free_.begin(), free_.end(), [&](const auto& gap) { return gap.second >= size; });
    if (found == free_.end()) return nullptr;
    const auto [begin, length] = *found;
    free_.erase(found);
    if (length > size) free_.emplace(begin + size, length - size);
    kept_ = std::max(kept_, begin + size);
    return base_ + begin;
  }
  void give(const std::byte* data, std::int64_t size) {
    std::int64_t begin = data - base_;
    const auto after = free_.find(begin + size);
    if (after != free_.end()) {
      size += after->second;
      free_.erase(after);
    }
    const auto next = free_.lower_bound(begin);
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == begin) {
        begin = before->first;
        size += before->second;
        free_.erase(before);
      }
    }
    free_[begin] = size;
  }

 private:
  std::int64_t bytes_;
  std::int64_t kept_ = 0;  // all bytes below were used at some time
  std::byte* map_ = nullptr;
  std::byte* base_ = nullptr;
  std::map<std::int64_t, std::int64_t> free_;  // begin and length of every free stretch, none beside another
};

// The pool is shared by the allocator and every block, so blocks may be freed after the allocator is gone.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  ~Pool() {
    for (auto& [size, blocks] : small_) {
      for (std::byte* block : blocks) std::free(block);
    }
  }

  std::shared_ptr<Storage> allocate(std::int64_t bytes) {
    const std::int64_t size = bytes >= kLarge ? round_up(bytes, kPage) : size_class(bytes);
    std::byte* data = take(size);
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
  std::int64_t kept() {
    const std::lock_guard lock(mutex_);
    std::int64_t bytes = small_bytes_;
    for (const auto& region : regions_) bytes += region->kept();
    return bytes;
  }
  std::int64_t kept_after(const std::function<void()>& body) {
    std::vector<std::int64_t> before;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& region : regions_) before.push_back(region->kept());
    }
    body();
    const std::int64_t after = kept();
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < regions_.size(); ++i)
      regions_[i]->shrink(std::max(i < before.size() ? before[i] : 0, regions_[i]->used_end()));
    return after;
  }

 private:
  std::byte* take(std::int64_t size) {
    const std::lock_guard lock(mutex_);
    std::byte* data = size >= kLarge ? take_large(size) : take_small(size);
    if (data == nullptr) {
      raise(ErrorCategory::kInvalidArgument, "out of memory: cannot allocate {} more, {} in use", format_bytes(size),
            format_bytes(in_use_));
    }
    in_use_ += size;
    return data;
  }
  std::byte* take_small(std::int64_t size) {
    auto& blocks = small_[size];
    if (blocks.empty()) {
      small_bytes_ += size;
      return static_cast<std::byte*>(std::aligned_alloc(64, static_cast<std::size_t>(size)));
    }
    std::byte* block = blocks.back();
    blocks.pop_back();
    return block;
  }
  std::byte* take_large(std::int64_t size) {
    for (const auto& region : regions_) {
      if (std::byte* data = region->take(size)) return data;
    }
    const std::int64_t least = round_up(size, kHugePage);
    auto region = std::make_unique<Region>(std::max(kRegion, least));
    if (region->empty()) region = std::make_unique<Region>(least);
    if (region->empty()) return nullptr;
    regions_.push_back(std::move(region));
    return regions_.back()->take(size);
  }
  void give(std::byte* data, std::int64_t size) {
    const std::lock_guard lock(mutex_);
    in_use_ -= size;
    if (size < kLarge) {
      small_[size].push_back(data);
      return;
    }
    const auto found =
        std::find_if(regions_.begin(), regions_.end(), [&](const auto& region) { return region->holds(data); });
    (*found)->give(data, size);
  }

  std::mutex mutex_;
  std::map<std::int64_t, std::vector<std::byte*>> small_;  // free blocks by size class
  std::int64_t small_bytes_ = 0;                           // of all small blocks, free or not
  std::vector<std::unique_ptr<Region>> regions_;
  std::int64_t in_use_ = 0;
};

class HostAllocator final : public Allocator {
 public:
  std::shared_ptr<Storage> allocate(std::int64_t bytes) override {
    INSTRUCT_CHECK(bytes >= 0);
    return pool_->allocate(bytes);
  }
  std::int64_t bytes_in_use() const override { return pool_->in_use(); }
  std::int64_t bytes_kept() const override { return pool_->kept(); }
  std::int64_t bytes_kept_after(const std::function<void()>& body) override { return pool_->kept_after(body); }

 private:
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
};

}  // namespace

std::shared_ptr<Allocator> make_host_allocator() {
  return std::make_shared<HostAllocator>();
}

}  // namespace instruct::tensor
