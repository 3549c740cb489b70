#include "kernels/cpu/tile_attention.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/attention_tiles.h"

namespace instruct::kernels::cpu {
namespace {

constexpr std::int64_t kTaskQueries = 256;  // of each head in a task
constexpr std::int64_t kFewTasks = 16;      // fewer are cut by heads as well
constexpr std::int64_t kTreeQueries = 512;  // trees of more are cut by heads in the backward pass

std::int64_t tile_columns(std::int64_t keys) {
  return round_up(keys, tiles::kTileDepth);
}

// Keys or values of one key head: dense rows, and packed [width, columns] as the left side of products.
struct Gathered {
  std::byte* rows = nullptr;
  tiles::Left transposed;
};

// What tasks forward and backward share: the heads of one group, and the keys and values they see.
class GroupTask {
 public:
  GroupTask(Stream& stream, const AttentionArgs& args, std::int64_t first_head)
      : args_(args), unit_(products_of(stream).tiles()), width_(args.head_width), heads_(args.query.dim(1) / width_) {
    key_head_ = first_head / (heads_ / args.key_heads());
  }

 protected:
  enum class Packed : std::uint8_t { kNo, kTransposed };
  std::int64_t gathered_bytes(std::int64_t columns, Packed packed) const {
    return columns * width_ * 2 * (packed == Packed::kTransposed ? 2 : 1);
  }
  Gathered take_gathered(Scratch& scratch, std::int64_t columns, Packed packed) const {
    Gathered gathered{.rows = scratch.take(columns * width_ * 2), .transposed = {}};
    if (packed == Packed::kTransposed) {
      gathered.transposed = tiles::packed_left(columns, scratch.take(columns * width_ * 2));
    }
    return gathered;
  }
  tiles::Left rows_of(const Gathered& gathered) const { return tiles::left_in_place({gathered.rows, width_}); }

  std::byte* head_row(const Tensor& matrix, std::int64_t row, std::int64_t head) const {
    return const_cast<std::byte*>(matrix.raw()) + (row * matrix.row_stride() + head * width_) * 2;
  }
  void gather(const Tensor& matrix, std::int64_t first, std::int64_t count, std::byte* target) const {
    copy_heads(matrix, first, count, key_head_ * head_columns(matrix.dtype(), width_), width_, DType::kBF16, target);
  }
  // The keys or values that a family shares. What does not fill a tile is packed with those of each segment.
  void gather_visible(const Tensor& matrix, const std::vector<KeyRange>& ranges, Gathered& target) const {
    std::int64_t row = 0;
    for (const KeyRange& range : ranges) {
      gather(matrix, range.begin, range.end - range.begin, target.rows + row * width_ * 2);
      row += range.end - range.begin;
    }
    pack(target, 0, row / tiles::kTileDepth * tiles::kTileDepth);
  }
  // The first `count` of a segment's own behind the first `visible`, and zeros up to the end of the tile.
  void gather_own(const Tensor& matrix, const QuerySegment& segment, std::int64_t visible, std::int64_t count,
                  Gathered& target) const {
    const std::int64_t end = tile_columns(visible + count);
    gather(matrix, segment.self_begin, count, target.rows + visible * width_ * 2);
    std::memset(target.rows + (visible + count) * width_ * 2, 0,
                static_cast<std::size_t>((end - visible - count) * width_ * 2));
    pack(target, visible / tiles::kTileDepth * tiles::kTileDepth, end);
  }
  // What `count` queries from `q` on see behind the first `visible` keys.
  tiles::View view_of(const QuerySegment& segment, std::int64_t visible, std::int64_t q, std::int64_t count) const {
    const bool causal = segment.own == tensor::OwnKeys::kCausal;
    return {.position = visible + q,
            .count = count,
            .window = args_.window,
            .end = causal ? 0 : visible + segment.own_keys()};
  }
  // Whole tiles: rows [first, last) must be there.
  void pack(Gathered& gathered, std::int64_t first, std::int64_t last) const {
    if (gathered.transposed.data == nullptr) return;
    tiles::pack_left({gathered.rows + first * width_ * 2, width_, Transpose::kYes}, width_, last - first,
                     tiles::left_from(gathered.transposed, 0, first));
  }

  const AttentionArgs& args_;
  tiles::Unit unit_;
  std::int64_t width_;
  std::int64_t heads_;
  std::int64_t key_head_ = 0;
};

class ForwardTask : GroupTask {
 public:
  ForwardTask(Stream& stream, const AttentionArgs& args, std::int64_t first_head, std::int64_t last_head,
              std::int64_t keys, Tensor& output, Tensor& log_sum)
      : GroupTask(stream, args, first_head),
        first_head_(first_head),
        last_head_(last_head),
        output_(output),
        log_sum_(log_sum),
        scratch_(stream, gathered_bytes(tile_columns(keys), Packed::kNo) +
                             gathered_bytes(tile_columns(keys), Packed::kTransposed) +
                             tiles::forward_scratch_bytes(width_)) {
    keys_ = take_gathered(scratch_, tile_columns(keys), Packed::kNo);
    values_ = take_gathered(scratch_, tile_columns(keys), Packed::kTransposed);
    panel_scratch_ = scratch_.take(tiles::forward_scratch_bytes(width_));
  }

  void run(const std::vector<QueryPart>& parts, std::int64_t visible_keys) {
    const tiles::Session session(unit_);
    const auto& queries = args_.plan->queries;
    const auto& visible = queries[parts.front().segment].visible;
    gather_visible(args_.key, visible, keys_);
    gather_visible(args_.value, visible, values_);
    for (const QueryPart& part : parts) {
      const QuerySegment& segment = queries[part.segment];
      const std::int64_t own = segment.own_keys_of(part.end);
      gather_own(args_.key, segment, visible_keys, own, keys_);
      gather_own(args_.value, segment, visible_keys, own, values_);
      for (std::int64_t head = first_head_; head < last_head_; ++head) {
        for (std::int64_t q = part.begin; q < part.end; q += tiles::kPanelQueries) {
          panel(segment, head, view_of(segment, visible_keys, q, std::min(tiles::kPanelQueries, part.end - q)), q);
        }
      }
    }
  }

 private:
  void panel(const QuerySegment& segment, std::int64_t head, const tiles::View& view, std::int64_t q) {
    const std::int64_t row = segment.begin + q;
    tiles::forward_panel({.view = view,
                          .width = width_,
                          .scale = args_.scale,
                          .keys = rows_of(keys_),
                          .values_transposed = values_.transposed,
                          .queries = {head_row(args_.query, row, head), args_.query.row_stride()},
                          .output = {head_row(output_, row, head), output_.row_stride()},
                          .log_sum = log_sum_.data<float>() + row * heads_ + head,
                          .log_sum_stride = heads_,
                          .scratch = panel_scratch_});
  }

  std::int64_t first_head_;
  std::int64_t last_head_;
  Tensor& output_;
  Tensor& log_sum_;
  Scratch scratch_;
  Gathered keys_;
  Gathered values_;
  std::byte* panel_scratch_;
};

// Operands of the backward pass beside the arguments.
struct BackwardTensors {
  const Tensor& output;
  const Tensor& log_sum;
  const Tensor& doutput;
  Tensor& dquery;
};

// The gradients of a tree's keys and values from some heads of a group, f32 [keys, width] each.
struct KeyGradients {
  float* dkey;
  float* dvalue;
};

class BackwardTask : GroupTask {
 public:
  BackwardTask(Stream& stream, const AttentionArgs& args, std::int64_t first_head, std::int64_t last_head,
               std::int64_t keys, const BackwardTensors& tensors, const KeyGradients& gradients)
      : GroupTask(stream, args, first_head),
        first_head_(first_head),
        last_head_(last_head),
        tensors_(tensors),
        gradients_(gradients),
        columns_(tile_columns(keys)),
        scratch_(stream, gathered_bytes(columns_, Packed::kNo) + gathered_bytes(columns_, Packed::kTransposed) +
                             2 * tiles::key_sums_bytes(columns_, width_) + tiles::backward_scratch_bytes(width_)) {
    keys_ = take_gathered(scratch_, columns_, Packed::kTransposed);
    values_ = take_gathered(scratch_, columns_, Packed::kNo);
    dkeys_ = scratch_.take<float>(tiles::key_sums_bytes(columns_, width_));
    dvalues_ = scratch_.take<float>(tiles::key_sums_bytes(columns_, width_));
    for (float* sums : {dkeys_, dvalues_}) std::fill_n(sums, columns_ * width_, 0.0F);
    block_scratch_ = scratch_.take(tiles::backward_scratch_bytes(width_));
  }

  void run(const Family& family) {
    const tiles::Session session(unit_);
    const auto& queries = args_.plan->queries;
    const auto& visible = queries[family.first].visible;
    visible_keys_ = family.visible_keys;
    gather_visible(args_.key, visible, keys_);
    gather_visible(args_.value, visible, values_);
    for (std::size_t i = family.first; i < family.last; ++i) segment(queries[i]);
    std::int64_t column = 0;
    for (const KeyRange& range : visible) {
      scatter(column, range.begin, range.end - range.begin);
      column += range.end - range.begin;
    }
  }

 private:
  void scatter(std::int64_t column, std::int64_t key, std::int64_t count) {
    tiles::move_key_sums(dkeys_, column, count, width_, gradients_.dkey + key * width_);
    tiles::move_key_sums(dvalues_, column, count, width_, gradients_.dvalue + key * width_);
  }

  void segment(const QuerySegment& segment) {
    const std::int64_t length = segment.end - segment.begin;
    gather_own(args_.key, segment, visible_keys_, segment.own_keys(), keys_);
    gather_own(args_.value, segment, visible_keys_, segment.own_keys(), values_);
    constexpr std::int64_t kQueries = tiles::kBackwardPanels * tiles::kPanelQueries;
    for (std::int64_t head = first_head_; head < last_head_; ++head) {
      for (std::int64_t q = 0; q < length; q += kQueries) {
        block(segment.begin + q, head, view_of(segment, visible_keys_, q, std::min(kQueries, length - q)));
      }
    }
    scatter(visible_keys_, segment.self_begin, segment.own_keys());
  }

  void block(std::int64_t row, std::int64_t head, const tiles::View& view) {
    const auto rows = [&](const Tensor& matrix) {
      return tiles::HeadRows{head_row(matrix, row, head), matrix.row_stride()};
    };
    tiles::backward_block({.view = view,
                           .width = width_,
                           .scale = args_.scale,
                           .keys = rows_of(keys_),
                           .values = rows_of(values_),
                           .keys_transposed = keys_.transposed,
                           .queries = rows(args_.query),
                           .output = rows(tensors_.output),
                           .doutput = rows(tensors_.doutput),
                           .dquery = {head_row(tensors_.dquery, row, head), tensors_.dquery.row_stride()},
                           .log_sum = tensors_.log_sum.data<float>() + row * heads_ + head,
                           .log_sum_stride = heads_,
                           .dkeys = dkeys_,
                           .dvalues = dvalues_,
                           .scratch = block_scratch_});
  }

  std::int64_t first_head_;
  std::int64_t last_head_;
  BackwardTensors tensors_;
  KeyGradients gradients_;
  std::int64_t columns_;
  std::int64_t visible_keys_ = 0;
  Scratch scratch_;
  Gathered keys_;
  Gathered values_;
  float* dkeys_;  // zero between segments, as far as these do not share
  float* dvalues_;
  std::byte* block_scratch_;
};

// A tree and the keys it writes the gradients of: its own, and those that nobody sees up to the next tree.
struct TreeWork {
  Tree tree;
  std::int64_t first_key = 0;
  std::int64_t last_key = 0;
  std::int64_t most_keys = 0;  // of a family, with the longest member
  bool cut_by_heads = false;   // depends on the tree alone, as the order of sums does
};

std::vector<TreeWork> tree_work_of(const std::vector<Family>& families, const AttentionArgs& args) {
  const auto& queries = args.plan->queries;
  std::vector<TreeWork> work;
  for (const Tree& tree : trees_of(families, queries)) {
    TreeWork made{.tree = tree, .first_key = work.empty() ? 0 : work.back().last_key, .last_key = tree.end};
    std::int64_t count = 0;
    for (std::size_t f = tree.first; f < tree.last; ++f) {
      made.most_keys = std::max(made.most_keys, families[f].visible_keys + families[f].longest);
      for (std::size_t i = families[f].first; i < families[f].last; ++i) count += queries[i].end - queries[i].begin;
    }
    made.cut_by_heads = count > kTreeQueries;
    work.push_back(made);
  }
  if (work.empty()) work.push_back({});
  work.back().last_key = args.key.dim(0);
  return work;
}

// The backward pass: tasks are (tree, key head), or (tree, query head) for large trees. Each sums into its own part of
// a buffer, and the sums of a group's heads are added up in order.
class Backward {
 public:
  Backward(Stream& stream, const AttentionArgs& args, const BackwardTensors& tensors, Tensor& dkey, Tensor& dvalue)
      : stream_(stream),
        args_(args),
        tensors_(tensors),
        dkey_(dkey),
        dvalue_(dvalue),
        width_(args.head_width),
        heads_(args.query.dim(1) / width_),
        key_heads_(args.key.dim(1) / width_),
        keys_(args.key.dim(0)),
        families_(families_of(args.plan->queries)),
        work_(tree_work_of(families_, args)),
        sums_(Tensor::empty({2, heads_, keys_, width_}, DType::kF32, stream.allocator)) {}

  void run() {
    std::vector<Part> parts;
    std::vector<Part> cut;  // what is left to be added up, in pieces
    const std::int64_t group = heads_ / key_heads_;
    for (const TreeWork& work : work_) {
      const std::int64_t step = work.cut_by_heads ? 1 : group;
      for (std::int64_t head = 0; head < heads_; head += step) parts.push_back({&work, head, head + step});
      if (!work.cut_by_heads) continue;
      for (std::int64_t head = 0; head < heads_; head += group) cut.push_back({&work, head, head + group});
    }
    stream_.threads.run(static_cast<std::int64_t>(parts.size()),
                        [&](std::int64_t i) { compute(parts[static_cast<std::size_t>(i)]); });
    for (const Part& part : cut) {
      stream_.threads.run_ranges(part.work->last_key - part.work->first_key, 64,
                                 [&](std::int64_t begin, std::int64_t end) {
                                   store(part, part.work->first_key + begin, part.work->first_key + end, 1);
                                 });
    }
  }

 private:
  struct Part {
    const TreeWork* work;
    std::int64_t first_head;
    std::int64_t last_head;
  };

  KeyGradients sums_of(std::int64_t head) {
    float* sums = sums_.data<float>() + head * keys_ * width_;
    return {sums, sums + heads_ * keys_ * width_};
  }

  void compute(const Part& part) {
    const TreeWork& work = *part.work;
    const KeyGradients sums = sums_of(part.first_head);
    for (float* of : {sums.dkey, sums.dvalue})
      std::fill(of + work.first_key * width_, of + work.last_key * width_, 0.0F);
    BackwardTask task(stream_, args_, part.first_head, part.last_head, work.most_keys, tensors_, sums);
    for (std::size_t f = work.tree.first; f < work.tree.last; ++f) task.run(families_[f]);
    if (!work.cut_by_heads) store(part, work.first_key, work.last_key, part.last_head - part.first_head);
  }

  // Adds up the sums of every `step`th head and stores them, for keys [begin, end).
  void store(const Part& part, std::int64_t begin, std::int64_t end, std::int64_t step) {
    const std::int64_t column = part.first_head / (heads_ / key_heads_) * width_;
    for (std::int64_t key = begin; key < end; ++key) {
      const KeyGradients first = sums_of(part.first_head);
      for (std::int64_t head = part.first_head + step; head < part.last_head; head += step) {
        add_row(sums_of(head).dkey + key * width_, width_, first.dkey + key * width_);
        add_row(sums_of(head).dvalue + key * width_, width_, first.dvalue + key * width_);
      }
      for (auto [sums, target] : {std::pair{first.dkey, &dkey_}, std::pair{first.dvalue, &dvalue_}}) {
        store_row(sums + key * width_, width_, DType::kBF16, target->raw() + (key * target->row_stride() + column) * 2);
      }
    }
  }

  Stream& stream_;
  const AttentionArgs& args_;
  BackwardTensors tensors_;
  Tensor& dkey_;
  Tensor& dvalue_;
  std::int64_t width_;
  std::int64_t heads_;
  std::int64_t key_heads_;
  std::int64_t keys_;
  std::vector<Family> families_;
  std::vector<TreeWork> work_;
  Tensor sums_;
};

}  // namespace

bool suits_tiles(Stream& stream, const AttentionArgs& args) {
  return args.query.dtype() == DType::kBF16 && args.head_width % tiles::kTileDepth == 0 && args.scale > 0 &&
         args.soft_cap == 0 && !args.relative.defined() && products_of(stream).tiles() != tiles::Unit::kNone;
}

TileAttention::TileAttention(Stream& stream, const AttentionArgs& args, const std::vector<Family>& families,
                             Tensor& output, Tensor& log_sum)
    : stream_(stream), args_(args), output_(output), log_sum_(log_sum) {
  std::int64_t room = 0;
  for (const Family& family : families) room = add_pieces(family, room);
  const std::int64_t key_heads = args.key_heads();
  const bool few = static_cast<std::int64_t>(pieces_.size()) * key_heads < kFewTasks;
  head_groups_ = few ? args.query.dim(1) / args.head_width : key_heads;
}

std::int64_t TileAttention::add_pieces(const Family& family, std::int64_t room) {
  const bool joins = family.visible_keys == 0 && !pieces_.empty() && pieces_.back().visible_keys == 0;
  if (!joins) room = 0;
  for (std::size_t i = family.first; i < family.last; ++i) {
    const QuerySegment& segment = args_.plan->queries[i];
    if (is_few(segment)) continue;
    for (std::int64_t q = 0; q < segment.end - segment.begin; q += kTaskQueries) {
      const std::int64_t end = std::min(q + kTaskQueries, segment.end - segment.begin);
      if (room < end - q) {
        pieces_.push_back({.visible_keys = family.visible_keys, .parts = {}});
        room = kTaskQueries;
      }
      pieces_.back().parts.push_back({.segment = i, .begin = q, .end = end});
      room -= end - q;
    }
  }
  return room;
}

void TileAttention::run(std::int64_t task) const {
  const Piece& piece = pieces_[static_cast<std::size_t>(task / head_groups_)];
  const std::int64_t group = args_.query.dim(1) / args_.head_width / head_groups_;
  const std::int64_t head = task % head_groups_ * group;
  std::int64_t most = 0;
  for (const QueryPart& part : piece.parts)
    most = std::max(most, args_.plan->queries[part.segment].own_keys_of(part.end));
  ForwardTask(stream_, args_, head, head + group, piece.visible_keys + most, output_, log_sum_)
      .run(piece.parts, piece.visible_keys);
}

void tile_attention_backward(Stream& stream, const AttentionArgs& args, const Tensor& output, const Tensor& log_sum,
                             const Tensor& doutput, Tensor& dquery, Tensor& dkey, Tensor& dvalue) {
  Backward(stream, args, {output, log_sum, doutput, dquery}, dkey, dvalue).run();
}

}  // namespace instruct::kernels::cpu
