// Attention by tiles (tiles.h): how its work is cut into tasks and what a task gathers. The arithmetic is in
// attention_tiles.h. Internal to kernels/cpu.
//
// The query heads that share a key head are one task's: keys and values are gathered and packed once for all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/attention_plan.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

// Whether the tiles can do it; elsewhere attention.cc and attention_backward.cc do.
bool suits_tiles(Stream& stream, const AttentionArgs& args);

// Queries [begin, end), counted from the start of segment `segment`.
struct QueryPart {
  std::size_t segment = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// The forward pass of families, as tasks for any threads. Segments of few queries are left out (is_few).
class TileAttention {
 public:
  TileAttention(Stream& stream, const AttentionArgs& args, const std::vector<Family>& families, Tensor& output,
                Tensor& log_sum);
  std::int64_t tasks() const { return static_cast<std::int64_t>(pieces_.size()) * head_groups_; }
  void run(std::int64_t task) const;

 private:
  // What one task computes for its heads: parts of one family, or of several that see nothing but themselves.
  struct Piece {
    std::int64_t visible_keys = 0;
    std::vector<QueryPart> parts;
  };
  // `room`: queries that the last piece may still take, and what is left of that.
  std::int64_t add_pieces(const Family& family, std::int64_t room);

  Stream& stream_;
  const AttentionArgs& args_;
  Tensor& output_;
  Tensor& log_sum_;
  std::vector<Piece> pieces_;
  std::int64_t head_groups_ = 0;
};

// The backward pass; arguments as of attention_backward.
void tile_attention_backward(Stream& stream, const AttentionArgs& args, const Tensor& output, const Tensor& log_sum,
                             const Tensor& doutput, Tensor& dquery, Tensor& dkey, Tensor& dvalue);

}  // namespace instruct::kernels::cpu
