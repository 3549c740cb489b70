#include "generate/block_pool.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::generate {

using tensor::KeyRange;

BlockPool::BlockPool(std::int64_t blocks, std::int64_t block_tokens)
    : block_tokens_(block_tokens), users_(static_cast<std::size_t>(blocks)), free_(blocks) {}

// The first of the first run of so many free blocks; -1 where there is none.
std::int64_t BlockPool::first_run(std::int64_t length) const {
  std::int64_t begin = 0;
  for (std::int64_t block = 0; block < blocks(); ++block) {
    if (!is_free(block)) begin = block + 1;
    if (block + 1 - begin == length) return begin;
  }
  return -1;
}

std::vector<std::int32_t> BlockPool::take(std::int64_t count, std::int32_t after) {
  INSTRUCT_CHECK(count <= free_);
  std::vector<std::int32_t> taken;
  const auto take_from = [&](std::int64_t block) {
    for (; block < blocks() && static_cast<std::int64_t>(taken.size()) < count; ++block) {
      if (!is_free(block)) return block;
      users_[static_cast<std::size_t>(block)] = 1;
      taken.push_back(static_cast<std::int32_t>(block));
    }
    return block;
  };
  if (after >= 0) take_from(after + 1);
  const std::int64_t run = first_run(count - static_cast<std::int64_t>(taken.size()));
  for (std::int64_t block = std::max<std::int64_t>(0, run); static_cast<std::int64_t>(taken.size()) < count; ++block)
    block = take_from(block);
  free_ -= count;
  most_used_ = std::max(most_used_, blocks() - free_);
  return taken;
}

void BlockPool::add_user(std::int32_t block) {
  ++users_[static_cast<std::size_t>(block)];
}

void BlockPool::remove_user(std::int32_t block) {
  if (--users_[static_cast<std::size_t>(block)] == 0) ++free_;
}

void BlockTable::share(const BlockTable& other, std::int64_t tokens) {
  INSTRUCT_CHECK(blocks_.empty());
  ranges_ = other.slots(0, tokens);
  capacity_ = tokens;
  for (const std::int32_t block : other.blocks_) {
    const std::int64_t begin = block * pool_->block_tokens();
    const bool used = std::any_of(ranges_.begin(), ranges_.end(), [&](const KeyRange& range) {
      return range.begin < begin + pool_->block_tokens() && begin < range.end;
    });
    if (!used) continue;
    pool_->add_user(block);
    blocks_.push_back(block);
  }
}

bool BlockTable::reserve(std::int64_t tokens) {
  if (tokens <= capacity_) return true;
  const std::int64_t size = pool_->block_tokens();
  const std::int64_t count = (tokens - capacity_ + size - 1) / size;
  if (count > pool_->free()) return false;
  // Only the end of a whole block can be continued: the rest of a shared one belongs to another sequence.
  const bool whole = !ranges_.empty() && ranges_.back().end % size == 0;
  for (const std::int32_t block : pool_->take(count, whole ? blocks_.back() : -1)) {
    blocks_.push_back(block);
    append({block * size, (block + 1) * size});
  }
  capacity_ += count * size;
  return true;
}

void BlockTable::clear() {
  for (const std::int32_t block : blocks_) pool_->remove_user(block);
  blocks_.clear();
  ranges_.clear();
  capacity_ = 0;
}

void BlockTable::append(KeyRange range) {
  if (!ranges_.empty() && ranges_.back().end == range.begin) {
    ranges_.back().end = range.end;
  } else {
    ranges_.push_back(range);
  }
}

std::vector<KeyRange> BlockTable::slots(std::int64_t begin, std::int64_t end) const {
  INSTRUCT_CHECK(end <= capacity_);
  std::vector<KeyRange> found;
  std::int64_t position = 0;
  for (const KeyRange& range : ranges_) {
    const std::int64_t first = std::max(begin, position);
    const std::int64_t last = std::min(end, position + range.end - range.begin);
    if (first < last) found.push_back({range.begin + first - position, range.begin + last - position});
    position += range.end - range.begin;
  }
  return found;
}

}  // namespace instruct::generate
