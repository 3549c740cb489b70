// Attention over key ranges by blocks of 64 queries: oneDNN for the products, Highway for the softmax rows. For bf16
// where there are tiles (tiles.h), tile_attention.h replaces the blocks.
//
// Query segments with the same visible ranges form a family (the children of one prefix). One task computes one family
// and one query head: it gathers the visible keys and values into a dense buffer once, appends each segment's own, and
// then every block of queries is three steps on dense matrices: scores, softmax, values. Columns are in order of
// position, so what a query may see is a run of columns and no mask is needed. Widths are rounded up to 64, below that
// to 16; several heads of short rows are one task.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "kernels/cpu/attention_few.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/tile_attention.h"

namespace instruct::kernels::cpu {

namespace {

class ForwardTask : HeadTask {
 public:
  ForwardTask(Stream& stream, const AttentionArgs& args, const Family& family, Tensor& output, Tensor& log_sum)
      : HeadTask(stream, args, 0),
        family_(family),
        output_(output),
        log_sum_(log_sum),
        columns_(padded_columns(family.visible_keys + family.longest)),
        stride_(columns_ + 16),
        scratch_(stream, 2 * gathered_bytes(columns_) + kBlock * (width_ * (size_ + 4) + stride_ * (4 + size_)) + 512) {
    keys_ = scratch_.take(gathered_bytes(columns_));
    values_ = scratch_.take(gathered_bytes(columns_));
    queries_ = scratch_.take(kBlock * width_ * size_);
    result_ = scratch_.take<float>(kBlock * width_ * 4);
    scores_ = scratch_.take<float>(kBlock * stride_ * 4);
    probabilities_ = scratch_.take(kBlock * stride_ * size_);
  }

  void run(std::int64_t head) {
    take_head(head);
    const auto& queries = args_.plan->queries;
    gather_visible(args_.key, queries[family_.first].visible, keys_);
    gather_visible(args_.value, queries[family_.first].visible, values_);
    for (std::size_t i = family_.first; i < family_.last; ++i) {
      if (is_few(queries[i])) continue;
      append_own(queries[i]);
      for (std::int64_t q = 0; q < queries[i].end - queries[i].begin; q += kBlock) block(queries[i], q);
    }
  }

 private:
  void append_own(const QuerySegment& segment) {
    gather_own(args_.key, segment, family_.visible_keys, keys_);
    gather_own(args_.value, segment, family_.visible_keys, values_);
  }

  void block(const QuerySegment& segment, std::int64_t q) {
    const std::int64_t count = std::min(kBlock, segment.end - segment.begin - q);
    const std::int64_t rows = round_up(count, 16);
    const std::int64_t columns = padded_columns(family_.visible_keys + segment.own_keys_of(q + count));
    gather(args_.query, segment.begin + q, count, head_, queries_);
    zero_rows(queries_, count, rows);
    against(queries_, keys_, rows, columns, stride_, args_.scale, scores_);
    const std::int64_t heads = log_sum_.dim(1);
    for (std::int64_t r = 0; r < count; ++r) {
      const RowSpan span = visible_columns(segment, family_.visible_keys, q + r, columns);
      cap_row(scores_ + r * stride_, span, args_.soft_cap);
      add_bias(span, family_.visible_keys + q + r, scores_ + r * stride_);
      log_sum_.data<float>()[(segment.begin + q + r) * heads + head_] =
          softmax_row(scores_ + r * stride_, span, dtype_, probabilities_ + r * stride_ * size_);
    }
    for (std::int64_t r = count; r < rows; ++r) {
      std::memset(probabilities_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
    }
    times(probabilities_, values_, rows, columns, stride_, result_);
    for (std::int64_t r = 0; r < count; ++r) {
      store_row(result_ + r * width_, width_, dtype_,
                const_cast<std::byte*>(head_row(output_, segment.begin + q + r, head_)));
    }
  }

  const Family& family_;
  Tensor& output_;
  Tensor& log_sum_;
  std::int64_t columns_;
  std::int64_t stride_;
  Scratch scratch_;
  std::byte* keys_;
  std::byte* values_;
  std::byte* queries_;
  float* result_;
  float* scores_;
  std::byte* probabilities_;
};

// Query heads [first, last) of a family.
struct HeadRange {
  const Family& family;
  std::int64_t first;
  std::int64_t last;
};

// By the sizes alone, as all tasks: as many heads as make up about four whole blocks.
std::vector<HeadRange> tasks_of(const std::vector<Family>& families, std::int64_t heads) {
  std::vector<HeadRange> tasks;
  for (const Family& family : families) {
    const std::int64_t pairs = family.longest * (family.visible_keys + family.longest);
    const std::int64_t step = std::max<std::int64_t>(1, 4 * kBlock * kBlock / std::max<std::int64_t>(1, pairs));
    for (std::int64_t head = 0; head < heads; head += step)
      tasks.push_back({family, head, std::min(heads, head + step)});
  }
  return tasks;
}

}  // namespace

void attention(Stream& stream, const AttentionArgs& args, Tensor& output, Tensor& log_sum) {
  const auto& queries = args.plan->queries;
  const std::int64_t heads = args.query.dim(1) / args.head_width;
  std::vector<Family> blocked;  // families with at least one segment for the block path
  FewQueries few(stream, args, output, log_sum);
  for (const Family& family : families_of(queries)) {
    bool any = false;
    for (std::size_t i = family.first; i < family.last; ++i) {
      if (queries[i].begin == queries[i].end) continue;
      if (is_few(queries[i])) {
        few.add(queries[i]);
      } else {
        any = true;
      }
    }
    if (any) blocked.push_back(family);
  }
  std::optional<TileAttention> on_tiles;
  if (suits_tiles(stream, args)) on_tiles.emplace(stream, args, blocked, output, log_sum);
  const std::vector<HeadRange> on_blocks = on_tiles ? std::vector<HeadRange>() : tasks_of(blocked, heads);
  const std::int64_t block_tasks = on_tiles ? on_tiles->tasks() : static_cast<std::int64_t>(on_blocks.size());
  stream.threads.run(block_tasks + few.tasks(), [&](std::int64_t task) {
    if (task >= block_tasks) {
      task -= block_tasks;
      few.run(task);
    } else if (on_tiles) {
      on_tiles->run(task);
    } else {
      const HeadRange& range = on_blocks[static_cast<std::size_t>(task)];
      ForwardTask forward(stream, args, range.family, output, log_sum);
      for (std::int64_t head = range.first; head < range.last; ++head) forward.run(head);
    }
  });
  few.finish();
}

}  // namespace instruct::kernels::cpu
