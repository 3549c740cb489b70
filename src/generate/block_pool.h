// Slots of a key/value cache in blocks of a fixed number of tokens (Kwon et al., "PagedAttention", 2023): handed out
// when tokens are written, shared by sequences that start alike, taken back when no sequence needs them.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/segments.h"

namespace instruct::generate {

class BlockPool {
 public:
  // Blocks 0, 1, ...: block b has the slots [b * block_tokens, (b + 1) * block_tokens).
  BlockPool(std::int64_t blocks, std::int64_t block_tokens);

  std::int64_t block_tokens() const { return block_tokens_; }
  std::int64_t blocks() const { return static_cast<std::int64_t>(users_.size()); }
  std::int64_t free() const { return free_; }
  std::int64_t most_used() const { return most_used_; }
  // `count` blocks, at most free(), with one user each. They continue block `after` (-1: none) as far as they can; the
  // rest is the first run of free blocks that is long enough, or else the lowest ones. Attention is fastest over few
  // long runs.
  std::vector<std::int32_t> take(std::int64_t count, std::int32_t after);
  void add_user(std::int32_t block);
  void remove_user(std::int32_t block);

 private:
  bool is_free(std::int64_t block) const { return users_[static_cast<std::size_t>(block)] == 0; }
  std::int64_t first_run(std::int64_t length) const;

  std::int64_t block_tokens_;
  std::vector<std::int32_t> users_;  // of each block
  std::int64_t free_;
  std::int64_t most_used_ = 0;
};

// The slots of one sequence, by position. The pool must outlive it.
class BlockTable {
 public:
  explicit BlockTable(BlockPool& pool) : pool_(&pool) {}
  ~BlockTable() { clear(); }
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Makes the slots of another table's first `tokens` positions those of this one, which must be empty.
  void share(const BlockTable& other, std::int64_t tokens);
  // Makes slots for positions below `tokens`; false, and nothing is changed, where the pool has too few.
  bool reserve(std::int64_t tokens);
  void clear();
  std::int64_t capacity() const { return capacity_; }  // positions that have slots
  // Slots of positions [begin, end), which must have been reserved, as the fewest ranges.
  std::vector<tensor::KeyRange> slots(std::int64_t begin, std::int64_t end) const;

 private:
  void append(tensor::KeyRange range);

  BlockPool* pool_;
  std::vector<std::int32_t> blocks_;  // those it is a user of
  std::vector<tensor::KeyRange> ranges_;
  std::int64_t capacity_ = 0;
};

}  // namespace instruct::generate
