// Attention over key ranges by blocks of 64 queries: oneDNN for the products, Highway for the softmax rows.
//
// Query segments with the same visible ranges form a family (the children of one prefix). One task computes one family
// and one query head: it gathers the visible keys and values into a dense buffer once, appends each segment's own, and
// then every block of queries is three steps on dense matrices: scores, softmax, values. Columns are in order of
// position, so what a query may see is a run of columns and no mask is needed. Widths are rounded up to 64 and cut at
// 512 so that a few dozen compiled products serve every length.
//
// The backward pass recomputes the scores from the saved log_sum (Dao et al., "FlashAttention", 2022). Its tasks are
// (tree, query head): families of one tree add to the same keys, in order, so the sum is the same for any number of
// threads; the heads of a group are added up afterwards.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/products.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;
using tensor::KeyRange;
using tensor::QuerySegment;

constexpr std::int64_t kBlock = 64;        // queries a block
constexpr std::int64_t kMaxColumns = 512;  // columns a product
constexpr std::int64_t kFewQueries = 4;    // up to here the direct path is faster than filling blocks

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Neighbouring query segments [first, last) of the plan that see the same ranges.
struct Family {
  std::size_t first = 0;
  std::size_t last = 0;
  std::int64_t visible_keys = 0;
  std::int64_t longest = 0;  // most queries of a member
};

bool same_ranges(const std::vector<KeyRange>& a, const std::vector<KeyRange>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const KeyRange& x, const KeyRange& y) { return x.begin == y.begin && x.end == y.end; });
}

bool is_few(const QuerySegment& segment) {
  return segment.end - segment.begin <= kFewQueries;
}

std::vector<Family> families_of(const std::vector<QuerySegment>& queries) {
  std::vector<Family> families;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const std::int64_t length = queries[i].end - queries[i].begin;
    if (!families.empty() && same_ranges(queries[families.back().first].visible, queries[i].visible)) {
      families.back().last = i + 1;
      families.back().longest = std::max(families.back().longest, length);
      continue;
    }
    Family family{.first = i, .last = i + 1, .visible_keys = 0, .longest = length};
    for (const KeyRange& range : queries[i].visible) family.visible_keys += range.end - range.begin;
    families.push_back(family);
  }
  return families;
}

// Families whose keys overlap, [first, last): they must be summed by one task.
struct Tree {
  std::size_t first = 0;
  std::size_t last = 0;
  std::int64_t end = 0;  // past the last key any member sees
};

std::vector<Tree> trees_of(const std::vector<Family>& families, const std::vector<QuerySegment>& queries) {
  std::vector<Tree> trees;
  for (std::size_t f = 0; f < families.size(); ++f) {
    std::int64_t begin = queries[families[f].first].self_begin;
    std::int64_t end = begin;
    for (std::size_t i = families[f].first; i < families[f].last; ++i) {
      begin = std::min(begin, queries[i].self_begin);
      end = std::max(end, queries[i].self_begin + queries[i].end - queries[i].begin);
    }
    for (const KeyRange& range : queries[families[f].first].visible) {
      begin = std::min(begin, range.begin);
      end = std::max(end, range.end);
    }
    // Trees may be interleaved: a family joins every earlier tree whose keys it may touch, and what lies between.
    Tree joined{f, f + 1, end};
    while (!trees.empty() && begin < trees.back().end) {
      joined.first = trees.back().first;
      joined.end = std::max(joined.end, trees.back().end);
      trees.pop_back();
    }
    trees.push_back(joined);
  }
  return trees;
}

// A task's memory, cut from one allocation.
class Scratch {
 public:
  Scratch(Stream& stream, std::int64_t bytes) : storage_(stream.allocator.allocate(bytes)), left_(bytes) {}
  template <typename T = std::byte>
  T* take(std::int64_t bytes) {
    bytes = round_up(bytes, 64);
    INSTRUCT_CHECK(bytes <= left_);
    std::byte* result = storage_->data + used_;
    used_ += bytes;
    left_ -= bytes;
    return reinterpret_cast<T*>(result);
  }

 private:
  std::shared_ptr<tensor::Storage> storage_;
  std::int64_t used_ = 0;
  std::int64_t left_;
};

// What one task works with: one query head of one family or tree.
class HeadTask {
 public:
  HeadTask(Stream& stream, const AttentionArgs& args, std::int64_t head)
      : args_(args),
        products_(products_of(stream)),
        dtype_(args.query.dtype()),
        size_(tensor::info(dtype_).block_bytes),
        width_(args.head_width),
        head_(head) {
    const std::int64_t heads = args.query.dim(1) / width_;
    key_head_ = head / (heads / (args.key.dim(1) / width_));
  }

 protected:
  const std::byte* head_row(const Tensor& matrix, std::int64_t row, std::int64_t head) const {
    return matrix.raw() + (row * matrix.row_stride() + head * width_) * size_;
  }
  // Copies `count` rows of one head into a dense buffer.
  void gather(const Tensor& matrix, std::int64_t first, std::int64_t count, std::int64_t head,
              std::byte* target) const {
    const std::int64_t bytes = width_ * size_;
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(target + i * bytes, head_row(matrix, first + i, head), static_cast<std::size_t>(bytes));
    }
  }
  void gather_visible(const Tensor& matrix, const std::vector<KeyRange>& ranges, std::byte* target) const {
    for (const KeyRange& range : ranges) {
      gather(matrix, range.begin, range.end - range.begin, key_head_, target);
      target += (range.end - range.begin) * width_ * size_;
    }
  }
  void zero_rows(std::byte* buffer, std::int64_t first, std::int64_t last) const {
    std::memset(buffer + first * width_ * size_, 0, static_cast<std::size_t>((last - first) * width_ * size_));
  }
  // Columns a query at position `position` may see, in a row of `width` columns.
  RowSpan visible_columns(std::int64_t position, std::int64_t width) const {
    const std::int64_t begin = args_.window > 0 ? std::max<std::int64_t>(0, position + 1 - args_.window) : 0;
    return {.begin = begin, .end = position + 1, .width = width};
  }

  // result [rows, columns] (stride `stride`, f32) = alpha * left [rows, width] * keys [columns, width]^T.
  void against_keys(const std::byte* left, const std::byte* keys, std::int64_t rows, std::int64_t columns,
                    std::int64_t stride, float alpha, float* result) const {
    for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
      const std::int64_t n = std::min(kMaxColumns, columns - c);
      products_
          .get({.m = rows,
                .n = n,
                .k = width_,
                .stride_a = width_,
                .stride_b = width_,
                .stride_c = stride,
                .transpose_b = Transpose::kYes,
                .input = dtype_,
                .output = DType::kF32,
                .alpha = alpha})
          .run(left, keys + c * width_ * size_, result + c);
    }
  }
  // result [rows, width] f32 = left [rows, columns] (stride `stride`) * values [columns, width].
  void times_values(const std::byte* left, const std::byte* values, std::int64_t rows, std::int64_t columns,
                    std::int64_t stride, float* result) const {
    for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
      products_
          .get({.m = rows,
                .n = width_,
                .k = std::min(kMaxColumns, columns - c),
                .stride_a = stride,
                .stride_b = width_,
                .stride_c = width_,
                .accumulate = c > 0 ? Accumulate::kYes : Accumulate::kNo,
                .input = dtype_,
                .output = DType::kF32})
          .run(left + c * size_, values + c * width_ * size_, result);
    }
  }
  // result [columns, width] f32 += left [rows, columns]^T (stride `stride`) * right [rows, width].
  void add_transposed(const std::byte* left, const std::byte* right, std::int64_t rows, std::int64_t columns,
                      std::int64_t stride, float* result) const {
    for (std::int64_t c = 0; c < columns; c += kMaxColumns) {
      products_
          .get({.m = std::min(kMaxColumns, columns - c),
                .n = width_,
                .k = rows,
                .stride_a = stride,
                .stride_b = width_,
                .stride_c = width_,
                .transpose_a = Transpose::kYes,
                .accumulate = Accumulate::kYes,
                .input = dtype_,
                .output = DType::kF32})
          .run(left + c * size_, right, result + c * width_);
    }
  }

  const AttentionArgs& args_;
  Products& products_;
  DType dtype_;
  std::int64_t size_;
  std::int64_t width_;
  std::int64_t head_;
  std::int64_t key_head_ = 0;
};

class ForwardTask : HeadTask {
 public:
  ForwardTask(Stream& stream, const AttentionArgs& args, std::int64_t head, const Family& family, Tensor& output,
              Tensor& log_sum)
      : HeadTask(stream, args, head),
        family_(family),
        output_(output),
        log_sum_(log_sum),
        columns_(round_up(family.visible_keys + family.longest, kBlock)),
        stride_(round_up(columns_, kMaxColumns) + 16),
        scratch_(stream,
                 2 * columns_ * width_ * size_ + kBlock * (width_ * (size_ + 4) + stride_ * (4 + size_)) + 512) {
    keys_ = scratch_.take(columns_ * width_ * size_);
    values_ = scratch_.take(columns_ * width_ * size_);
    queries_ = scratch_.take(kBlock * width_ * size_);
    result_ = scratch_.take<float>(kBlock * width_ * 4);
    scores_ = scratch_.take<float>(kBlock * stride_ * 4);
    probabilities_ = scratch_.take(kBlock * stride_ * size_);
  }

  void run() {
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
    const std::int64_t length = segment.end - segment.begin;
    const std::int64_t offset = family_.visible_keys * width_ * size_;
    gather(args_.key, segment.self_begin, length, key_head_, keys_ + offset);
    gather(args_.value, segment.self_begin, length, key_head_, values_ + offset);
    const std::int64_t filled = family_.visible_keys + length;
    zero_rows(keys_, filled, round_up(filled, kBlock));
    zero_rows(values_, filled, round_up(filled, kBlock));
  }

  void block(const QuerySegment& segment, std::int64_t q) {
    const std::int64_t count = std::min(kBlock, segment.end - segment.begin - q);
    const std::int64_t rows = round_up(count, 16);
    const std::int64_t columns = round_up(family_.visible_keys + q + count, kBlock);
    gather(args_.query, segment.begin + q, count, head_, queries_);
    zero_rows(queries_, count, rows);
    against_keys(queries_, keys_, rows, columns, stride_, args_.scale, scores_);
    const std::int64_t heads = log_sum_.dim(1);
    for (std::int64_t r = 0; r < count; ++r) {
      const RowSpan span = visible_columns(family_.visible_keys + q + r, columns);
      log_sum_.data<float>()[(segment.begin + q + r) * heads + head_] =
          softmax_row(scores_ + r * stride_, span, dtype_, probabilities_ + r * stride_ * size_);
    }
    for (std::int64_t r = count; r < rows; ++r) {
      std::memset(probabilities_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
    }
    times_values(probabilities_, values_, rows, columns, stride_, result_);
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

class BackwardTask : HeadTask {
 public:
  struct Targets {
    const Tensor& output;
    const Tensor& log_sum;
    const Tensor& doutput;
    Tensor& dquery;
    float* dkey;    // this head's [S, width], f32
    float* dvalue;  // the same
  };

  BackwardTask(Stream& stream, const AttentionArgs& args, std::int64_t head, std::int64_t most_columns,
               const Targets& targets)
      : HeadTask(stream, args, head),
        targets_(targets),
        columns_(round_up(most_columns, kBlock)),
        stride_(round_up(columns_, kMaxColumns) + 16),
        scratch_(stream, columns_ * width_ * (2 * size_ + 8) + kBlock * (width_ * (2 * size_ + 4)) +
                             kBlock * stride_ * (8 + 2 * size_) + 1024) {
    keys_ = scratch_.take(columns_ * width_ * size_);
    values_ = scratch_.take(columns_ * width_ * size_);
    dkeys_ = scratch_.take<float>(columns_ * width_ * 4);
    dvalues_ = scratch_.take<float>(columns_ * width_ * 4);
    queries_ = scratch_.take(kBlock * width_ * size_);
    doutputs_ = scratch_.take(kBlock * width_ * size_);
    dqueries_ = scratch_.take<float>(kBlock * width_ * 4);
    scores_ = scratch_.take<float>(kBlock * stride_ * 4);
    dprobabilities_ = scratch_.take<float>(kBlock * stride_ * 4);
    probabilities_ = scratch_.take(kBlock * stride_ * size_);
    dscores_ = scratch_.take(kBlock * stride_ * size_);
  }

  void run(const Family& family) {
    const auto& queries = args_.plan->queries;
    const auto& visible = queries[family.first].visible;
    visible_keys_ = family.visible_keys;
    gather_visible(args_.key, visible, keys_);
    gather_visible(args_.value, visible, values_);
    clear(0, visible_keys_);
    for (std::size_t i = family.first; i < family.last; ++i) segment(queries[i]);
    std::int64_t row = 0;
    for (const KeyRange& range : visible) {
      scatter(row, range.begin, range.end - range.begin);
      row += range.end - range.begin;
    }
  }

 private:
  void clear(std::int64_t first, std::int64_t last) {
    const auto bytes = static_cast<std::size_t>((last - first) * width_ * 4);
    std::memset(dkeys_ + first * width_, 0, bytes);
    std::memset(dvalues_ + first * width_, 0, bytes);
  }

  void scatter(std::int64_t row, std::int64_t key, std::int64_t count) {
    add_row(dkeys_ + row * width_, count * width_, targets_.dkey + key * width_);
    add_row(dvalues_ + row * width_, count * width_, targets_.dvalue + key * width_);
  }

  void segment(const QuerySegment& segment) {
    const std::int64_t length = segment.end - segment.begin;
    const std::int64_t filled = visible_keys_ + length;
    gather(args_.key, segment.self_begin, length, key_head_, keys_ + visible_keys_ * width_ * size_);
    gather(args_.value, segment.self_begin, length, key_head_, values_ + visible_keys_ * width_ * size_);
    zero_rows(keys_, filled, round_up(filled, kBlock));
    zero_rows(values_, filled, round_up(filled, kBlock));
    clear(visible_keys_, round_up(filled, kBlock));
    for (std::int64_t q = 0; q < length; q += kBlock) block(segment, q);
    scatter(visible_keys_, segment.self_begin, length);
  }

  void block(const QuerySegment& segment, std::int64_t q) {
    const std::int64_t count = std::min(kBlock, segment.end - segment.begin - q);
    const std::int64_t rows = round_up(count, 16);
    const std::int64_t columns = round_up(visible_keys_ + q + count, kBlock);
    const std::int64_t first = segment.begin + q;
    gather(args_.query, first, count, head_, queries_);
    gather(targets_.doutput, first, count, head_, doutputs_);
    zero_rows(queries_, count, rows);
    zero_rows(doutputs_, count, rows);
    against_keys(queries_, keys_, rows, columns, stride_, args_.scale, scores_);
    against_keys(doutputs_, values_, rows, columns, stride_, 1.0F, dprobabilities_);
    const std::int64_t heads = targets_.log_sum.dim(1);
    for (std::int64_t r = 0; r < count; ++r) {
      const float delta =
          dot_row(head_row(targets_.output, first + r, head_), doutputs_ + r * width_ * size_, width_, dtype_);
      softmax_gradient_row(scores_ + r * stride_, dprobabilities_ + r * stride_,
                           visible_columns(visible_keys_ + q + r, columns),
                           targets_.log_sum.data<float>()[(first + r) * heads + head_], delta, args_.scale, dtype_,
                           probabilities_ + r * stride_ * size_, dscores_ + r * stride_ * size_);
    }
    for (std::int64_t r = count; r < rows; ++r) {
      std::memset(probabilities_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
      std::memset(dscores_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
    }
    add_transposed(probabilities_, doutputs_, rows, columns, stride_, dvalues_);
    add_transposed(dscores_, queries_, rows, columns, stride_, dkeys_);
    times_values(dscores_, keys_, rows, columns, stride_, dqueries_);
    for (std::int64_t r = 0; r < count; ++r) {
      store_row(dqueries_ + r * width_, width_, dtype_,
                const_cast<std::byte*>(head_row(targets_.dquery, first + r, head_)));
    }
  }

  Targets targets_;
  std::int64_t visible_keys_ = 0;
  std::int64_t columns_;
  std::int64_t stride_;
  Scratch scratch_;
  std::byte* keys_;
  std::byte* values_;
  float* dkeys_;
  float* dvalues_;
  std::byte* queries_;
  std::byte* doutputs_;
  float* dqueries_;
  float* scores_;
  float* dprobabilities_;
  std::byte* probabilities_;
  std::byte* dscores_;
};

// One query head of a segment of a few queries (a decoding step): straight over the cache, nothing is gathered.
void attend_few(Stream& stream, const AttentionArgs& args, const QuerySegment& segment, std::int64_t head,
                Tensor& output, Tensor& log_sum) {
  const DType dtype = args.query.dtype();
  const std::int64_t size = tensor::info(dtype).block_bytes;
  const std::int64_t width = args.head_width;
  const std::int64_t heads = args.query.dim(1) / width;
  const std::int64_t key_column = head / (heads / (args.key.dim(1) / width)) * width;
  std::vector<KeyRange> ranges = segment.visible;
  ranges.push_back({segment.self_begin, segment.self_begin});
  std::int64_t total = segment.end - segment.begin;
  for (const KeyRange& range : ranges) total += range.end - range.begin;
  const auto storage = stream.allocator.allocate((2 * total + 2 * width) * 4);
  auto* scores = reinterpret_cast<float*>(storage->data);
  float* weights = scores + total;
  float* query = weights + total;
  float* result = query + width;
  const auto address = [&](const Tensor& matrix, std::int64_t row, std::int64_t column) {
    return matrix.raw() + (row * matrix.row_stride() + column) * size;
  };
  for (std::int64_t q = segment.begin; q < segment.end; ++q) {
    ranges.back().end = segment.self_begin + (q - segment.begin) + 1;
    load_row(address(args.query, q, head * width), width, dtype, query);
    std::int64_t column = 0;
    for (const KeyRange& range : ranges) {
      score_keys(query, address(args.key, range.begin, key_column), args.key.row_stride(), range.end - range.begin,
                 width, args.scale, dtype, scores + column);
      column += range.end - range.begin;
    }
    const std::int64_t begin = args.window > 0 ? std::max<std::int64_t>(0, column - args.window) : 0;
    log_sum.data<float>()[q * heads + head] =
        softmax_row(scores, {.begin = begin, .end = column, .width = column}, DType::kF32, weights);
    std::fill(result, result + width, 0.0F);
    column = 0;
    for (const KeyRange& range : ranges) {
      add_weighted_values(weights + column, address(args.value, range.begin, key_column), args.value.row_stride(),
                          range.end - range.begin, width, dtype, result);
      column += range.end - range.begin;
    }
    store_row(result, width, dtype, const_cast<std::byte*>(address(output, q, head * width)));
  }
}

}  // namespace

void attention(Stream& stream, const AttentionArgs& args, Tensor& output, Tensor& log_sum) {
  const auto& queries = args.plan->queries;
  const std::int64_t heads = args.query.dim(1) / args.head_width;
  const std::vector<Family> families = families_of(queries);
  std::vector<std::size_t> blocked;  // families with at least one segment for the block path
  std::vector<std::size_t> few;      // segments for the direct path
  for (std::size_t f = 0; f < families.size(); ++f) {
    bool any = false;
    for (std::size_t i = families[f].first; i < families[f].last; ++i) {
      if (queries[i].begin == queries[i].end) continue;
      if (is_few(queries[i])) {
        few.push_back(i);
      } else {
        any = true;
      }
    }
    if (any) blocked.push_back(f);
  }
  const auto block_tasks = static_cast<std::int64_t>(blocked.size()) * heads;
  stream.threads.run(block_tasks + static_cast<std::int64_t>(few.size()) * heads, [&](std::int64_t task) {
    if (task < block_tasks) {
      const Family& family = families[blocked[static_cast<std::size_t>(task / heads)]];
      ForwardTask(stream, args, task % heads, family, output, log_sum).run();
    } else {
      task -= block_tasks;
      attend_few(stream, args, queries[few[static_cast<std::size_t>(task / heads)]], task % heads, output, log_sum);
    }
  });
}

void attention_backward(Stream& stream, const AttentionArgs& args, const Tensor& output, const Tensor& log_sum,
                        const Tensor& doutput, Tensor& dquery, Tensor& dkey, Tensor& dvalue) {
  const std::int64_t width = args.head_width;
  const std::int64_t heads = args.query.dim(1) / width;
  const std::int64_t key_heads = args.key.dim(1) / width;
  const std::int64_t group = heads / key_heads;
  const std::int64_t keys = args.key.dim(0);
  const std::vector<Family> families = families_of(args.plan->queries);
  const std::vector<Tree> trees = trees_of(families, args.plan->queries);
  Tensor head_gradients = Tensor::zeros({2, heads, keys, width}, DType::kF32, stream.allocator);
  float* dkeys = head_gradients.data<float>();
  float* dvalues = dkeys + heads * keys * width;
  stream.threads.run(static_cast<std::int64_t>(trees.size()) * heads, [&](std::int64_t task) {
    const Tree& tree = trees[static_cast<std::size_t>(task / heads)];
    const std::int64_t head = task % heads;
    std::int64_t most = 0;
    for (std::size_t f = tree.first; f < tree.last; ++f) {
      most = std::max(most, families[f].visible_keys + families[f].longest);
    }
    BackwardTask backward(
        stream, args, head, most,
        {output, log_sum, doutput, dquery, dkeys + head * keys * width, dvalues + head * keys * width});
    for (std::size_t f = tree.first; f < tree.last; ++f) backward.run(families[f]);
  });
  stream.threads.run_ranges(keys, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = 0; g < key_heads; ++g) {
      for (std::int64_t s = begin; s < end; ++s) {
        for (auto [source, target] : {std::pair{dkeys, &dkey}, std::pair{dvalues, &dvalue}}) {
          float* sum = source + (g * group * keys + s) * width;
          for (std::int64_t h = 1; h < group; ++h) add_row(sum + h * keys * width, width, sum);
          store_row(sum, width, target->dtype(),
                    target->raw() + (s * target->row_stride() + g * width) * tensor::info(target->dtype()).block_bytes);
        }
      }
    }
  });
}

}  // namespace instruct::kernels::cpu
