// The gradient of attention (see attention.cc). The scores are recomputed from the saved log_sum (Dao et al.,
// "FlashAttention", 2022). Tasks are (tree, query head): families of one tree add to the same keys, in order, so the
// sum is the same for any number of threads; the heads of a group are added up afterwards.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/tile_attention.h"

namespace instruct::kernels::cpu {

namespace {

class BackwardTask : HeadTask {
 public:
  struct Targets {
    const Tensor& output;
    const Tensor& log_sum;
    const Tensor& doutput;
    Tensor& dquery;
    float* dkey;       // this head's [S, width], f32
    float* dvalue;     // the same
    float* drelative;  // of this task, [2R + 1]; null where it isn't wanted
  };

  BackwardTask(Stream& stream, const AttentionArgs& args, std::int64_t head, std::int64_t most_columns,
               const Targets& targets)
      : HeadTask(stream, args, head),
        targets_(targets),
        columns_(padded_columns(most_columns)),
        stride_(columns_ + 16),
        scratch_(stream, 2 * gathered_bytes(columns_) + columns_ * width_ * 8 + kBlock * (width_ * (2 * size_ + 4)) +
                             kBlock * stride_ * (8 + 2 * size_) + 1024) {
    keys_ = scratch_.take(gathered_bytes(columns_));
    values_ = scratch_.take(gathered_bytes(columns_));
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
    gather_own(args_.key, segment, visible_keys_, keys_);
    gather_own(args_.value, segment, visible_keys_, values_);
    clear(visible_keys_, padded_columns(visible_keys_ + segment.own_keys()));
    for (std::int64_t q = 0; q < length; q += kBlock) block(segment, q);
    scatter(visible_keys_, segment.self_begin, segment.own_keys());
  }

  void block(const QuerySegment& segment, std::int64_t q) {
    const std::int64_t count = std::min(kBlock, segment.end - segment.begin - q);
    const std::int64_t rows = round_up(count, 16);
    const std::int64_t columns = padded_columns(visible_keys_ + segment.own_keys_of(q + count));
    const std::int64_t first = segment.begin + q;
    gather(args_.query, first, count, head_, queries_);
    gather(targets_.doutput, first, count, head_, doutputs_);
    zero_rows(queries_, count, rows);
    zero_rows(doutputs_, count, rows);
    against(queries_, keys_, rows, columns, stride_, args_.scale, scores_);
    against(doutputs_, values_, rows, columns, stride_, 1.0F, dprobabilities_);
    const std::int64_t heads = targets_.log_sum.dim(1);
    for (std::int64_t r = 0; r < count; ++r) {
      const float delta =
          dot_row(head_row(targets_.output, first + r, head_), doutputs_ + r * width_ * size_, width_, dtype_);
      const RowSpan span = visible_columns(segment, visible_keys_, q + r, columns);
      cap_row(scores_ + r * stride_, span, args_.soft_cap);
      add_bias(span, visible_keys_ + q + r, scores_ + r * stride_);
      softmax_gradient_row(scores_ + r * stride_, dprobabilities_ + r * stride_, span,
                           targets_.log_sum.data<float>()[(first + r) * heads + head_], delta, args_.scale,
                           args_.soft_cap, dtype_, probabilities_ + r * stride_ * size_,
                           dscores_ + r * stride_ * size_);
      if (targets_.drelative != nullptr) {
        add_relative_gradient(dscores_ + r * stride_ * size_, dtype_, 1 / args_.scale, visible_keys_ + q + r, span,
                              args_.relative.dim(1) / 2, targets_.drelative);
      }
    }
    for (std::int64_t r = count; r < rows; ++r) {
      std::memset(probabilities_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
      std::memset(dscores_ + r * stride_ * size_, 0, static_cast<std::size_t>(columns * size_));
    }
    add_transposed(probabilities_, doutputs_, rows, columns, stride_, dvalues_);
    add_transposed(dscores_, queries_, rows, columns, stride_, dkeys_);
    times(dscores_, keys_, rows, columns, stride_, dqueries_);
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
  float* dkeys_;  // [columns, width]
  float* dvalues_;
  std::byte* queries_;
  std::byte* doutputs_;
  float* dqueries_;
  float* scores_;
  float* dprobabilities_;
  std::byte* probabilities_;
  std::byte* dscores_;
};

}  // namespace

void attention_backward(Stream& stream, const AttentionArgs& args, const Tensor& output, const Tensor& log_sum,
                        const Tensor& doutput, Tensor& dquery, Tensor& dkey, Tensor& dvalue, Tensor* drelative) {
  if (suits_tiles(stream, args)) {
    tile_attention_backward(stream, args, output, log_sum, doutput, dquery, dkey, dvalue);
    return;
  }
  const std::int64_t width = args.head_width;
  const std::int64_t heads = args.query.dim(1) / width;
  const std::int64_t key_heads = args.key.dim(1) / width;
  const std::int64_t group = heads / key_heads;
  const std::int64_t keys = args.key.dim(0);
  const std::vector<Family> families = families_of(args.plan->queries);
  const std::vector<Tree> trees = trees_of(families, args.plan->queries);
  Tensor head_gradients = Tensor::empty({2, heads, keys, width}, DType::kF32, stream.allocator);
  float* dkeys = head_gradients.data<float>();
  stream.threads.run(2 * heads,
                     [&](std::int64_t plane) { std::fill_n(dkeys + plane * keys * width, keys * width, 0.0F); });
  float* dvalues = dkeys + heads * keys * width;
  // A sum for each task, so that the order of additions doesn't depend on the threads.
  const std::int64_t columns = drelative != nullptr ? drelative->dim(1) : 0;
  std::vector<float> biases(trees.size() * static_cast<std::size_t>(heads * columns), 0.0F);
  stream.threads.run(static_cast<std::int64_t>(trees.size()) * heads, [&](std::int64_t task) {
    const Tree& tree = trees[static_cast<std::size_t>(task / heads)];
    const std::int64_t head = task % heads;
    std::int64_t most = 0;
    for (std::size_t f = tree.first; f < tree.last; ++f) {
      most = std::max(most, families[f].visible_keys + families[f].longest);
    }
    BackwardTask backward(stream, args, head, most,
                          {output, log_sum, doutput, dquery, dkeys + head * keys * width, dvalues + head * keys * width,
                           drelative != nullptr ? biases.data() + task * columns : nullptr});
    for (std::size_t f = tree.first; f < tree.last; ++f) backward.run(families[f]);
  });
  if (drelative != nullptr) {
    std::fill_n(drelative->data<float>(), heads * columns, 0.0F);
    for (std::size_t tree = 0; tree < trees.size(); ++tree) {
      add_row(biases.data() + tree * static_cast<std::size_t>(heads * columns), heads * columns,
              drelative->data<float>());
    }
  }
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
