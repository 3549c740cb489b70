#include "kernels/cpu/tile_attention.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/attention_tiles.h"

namespace instruct::kernels::cpu {
namespace {

using tiles::ceil_div;

constexpr std::int64_t kTaskQueries = 256;  // of each head in a task
constexpr std::int64_t kFewTasks = 16;      // fewer are cut by heads as well

std::int64_t tile_columns(std::int64_t keys) {
  return round_up(keys, tiles::kTileDepth);
}

// Keys or values of one key head: dense rows, and packed [width, columns] as the left side of products.
struct TileGathered {
  std::byte* rows = nullptr;
  tiles::Left transposed;
};

// What tasks forward and backward share: the heads of one group, and the keys and values they see.
class GroupTask {
 public:
  GroupTask(const AttentionArgs& args, std::int64_t first_head)
      : args_(args), width_(args.head_width), heads_(args.query.dim(1) / width_) {
    key_head_ = first_head / (heads_ / (args.key.dim(1) / width_));
  }

 protected:
  enum class Packed : std::uint8_t { kNo, kTransposed };
  std::int64_t gathered_bytes(std::int64_t columns, Packed packed) const {
    return columns * width_ * 2 * (packed == Packed::kTransposed ? 2 : 1);
  }
  TileGathered take_gathered(Scratch& scratch, std::int64_t columns, Packed packed) const {
    TileGathered gathered{.rows = scratch.take(columns * width_ * 2), .transposed = {}};
    if (packed == Packed::kTransposed) {
      gathered.transposed = tiles::packed_left(columns, scratch.take(columns * width_ * 2));
    }
    return gathered;
  }
  tiles::Left rows_of(const TileGathered& gathered) const { return tiles::left_in_place({gathered.rows, width_}); }

  std::byte* head_row(const Tensor& matrix, std::int64_t row, std::int64_t head) const {
    return const_cast<std::byte*>(matrix.raw()) + (row * matrix.row_stride() + head * width_) * 2;
  }
  void gather(const Tensor& matrix, std::int64_t first, std::int64_t count, std::byte* target) const {
    const std::int64_t bytes = width_ * 2;
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(target + i * bytes, head_row(matrix, first + i, key_head_), static_cast<std::size_t>(bytes));
    }
  }
  // The keys or values that a family shares. What does not fill a tile is packed with those of each segment.
  void gather_visible(const Tensor& matrix, const std::vector<KeyRange>& ranges, TileGathered& target) const {
    std::int64_t row = 0;
    for (const KeyRange& range : ranges) {
      gather(matrix, range.begin, range.end - range.begin, target.rows + row * width_ * 2);
      row += range.end - range.begin;
    }
    pack(target, 0, row / tiles::kTileDepth * tiles::kTileDepth);
  }
  // The first `count` of a segment's own behind the first `visible`, and zeros up to the end of the tile.
  void gather_own(const Tensor& matrix, const QuerySegment& segment, std::int64_t visible, std::int64_t count,
                  TileGathered& target) const {
    const std::int64_t end = tile_columns(visible + count);
    gather(matrix, segment.self_begin, count, target.rows + visible * width_ * 2);
    std::memset(target.rows + (visible + count) * width_ * 2, 0,
                static_cast<std::size_t>((end - visible - count) * width_ * 2));
    pack(target, visible / tiles::kTileDepth * tiles::kTileDepth, end);
  }
  // Whole tiles: rows [first, last) must be there.
  void pack(TileGathered& gathered, std::int64_t first, std::int64_t last) const {
    if (gathered.transposed.data == nullptr) return;
    tiles::pack_left({gathered.rows + first * width_ * 2, width_, Transpose::kYes}, width_, last - first,
                     tiles::left_from(gathered.transposed, 0, first));
  }

  const AttentionArgs& args_;
  std::int64_t width_;
  std::int64_t heads_;
  std::int64_t key_head_ = 0;
};

class ForwardTask : GroupTask {
 public:
  ForwardTask(Stream& stream, const AttentionArgs& args, std::int64_t first_head, std::int64_t last_head,
              std::int64_t keys, Tensor& output, Tensor& log_sum)
      : GroupTask(args, first_head),
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
    const tiles::Session session;
    const auto& queries = args_.plan->queries;
    const auto& visible = queries[parts.front().segment].visible;
    gather_visible(args_.key, visible, keys_);
    gather_visible(args_.value, visible, values_);
    for (const QueryPart& part : parts) {
      const QuerySegment& segment = queries[part.segment];
      gather_own(args_.key, segment, visible_keys, part.end, keys_);
      gather_own(args_.value, segment, visible_keys, part.end, values_);
      for (std::int64_t head = first_head_; head < last_head_; ++head) {
        for (std::int64_t q = part.begin; q < part.end; q += tiles::kPanelQueries) {
          panel(segment.begin + q, head, visible_keys + q, std::min(tiles::kPanelQueries, part.end - q));
        }
      }
    }
  }

 private:
  void panel(std::int64_t row, std::int64_t head, std::int64_t position, std::int64_t count) {
    tiles::forward_panel({.view = {.position = position, .count = count, .window = args_.window},
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
  TileGathered keys_;
  TileGathered values_;
  std::byte* panel_scratch_;
};

}  // namespace

bool suits_tiles(Stream& stream, const AttentionArgs& args) {
  return args.query.dtype() == DType::kBF16 && args.head_width % tiles::kTileDepth == 0 && args.scale > 0 &&
         products_of(stream).tiles();
}

TileAttention::TileAttention(Stream& stream, const AttentionArgs& args, const std::vector<Family>& families,
                             Tensor& output, Tensor& log_sum)
    : stream_(stream), args_(args), output_(output), log_sum_(log_sum) {
  for (const Family& family : families) add_pieces(family);
  const std::int64_t key_heads = args.key.dim(1) / args.head_width;
  const bool few = static_cast<std::int64_t>(pieces_.size()) * key_heads < kFewTasks;
  head_groups_ = few ? args.query.dim(1) / args.head_width : key_heads;
}

void TileAttention::add_pieces(const Family& family) {
  std::int64_t room = 0;  // queries that the last piece may still take
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
}

void TileAttention::run(std::int64_t task) const {
  const Piece& piece = pieces_[static_cast<std::size_t>(task / head_groups_)];
  const std::int64_t group = args_.query.dim(1) / args_.head_width / head_groups_;
  const std::int64_t head = task % head_groups_ * group;
  std::int64_t most = 0;
  for (const QueryPart& part : piece.parts) most = std::max(most, part.end);
  ForwardTask(stream_, args_, head, head + group, piece.visible_keys + most, output_, log_sum_)
      .run(piece.parts, piece.visible_keys);
}

}  // namespace instruct::kernels::cpu
