// What a pass of the model computes in generation: the tokens of some paths that are not in the cache yet.
#pragma once

#include <cstdint>
#include <vector>

#include "generate/block_pool.h"
#include "generate/writer.h"

namespace instruct::generate {

inline std::int64_t size_of(const std::vector<std::int32_t>& tokens) {
  return static_cast<std::int64_t>(tokens.size());
}

// A prompt with what has been written behind it, and where it lies in the cache.
struct Path {
  Path(const Request& request, BlockPool& pool)
      : adapter(request.adapter), source(request.source), tokens(request.prompt), blocks(pool) {}

  std::int64_t end() const { return size_of(tokens) + size_of(proposal); }

  std::int32_t adapter;
  std::int64_t source;               // of the tokens, those at the start that an encoder reads
  std::vector<std::int32_t> tokens;  // of prompt and answer
  std::int64_t computed = 0;         // of them, those in the cache; all but the last once the answer has begun
  std::vector<std::int32_t> proposal;
  std::int64_t first_row = 0;  // of its logits in the pass
  BlockTable blocks;
};

struct PassTokens {
  std::vector<std::int32_t> tokens, positions, slots, rows, adapters;
  tensor::AttentionPlan plan;

  // Tokens of a path behind those computed, and what is proposed behind them: its logits are of the last one and of
  // each that is proposed. All need slots.
  void add(Path& path);

 private:
  void add_source(const Path& path);
  void add_token(const Path& path, std::int64_t position, std::int64_t slot);
  void add_run(const Path& path, std::int64_t position, const tensor::KeyRange& range);
};

}  // namespace instruct::generate
