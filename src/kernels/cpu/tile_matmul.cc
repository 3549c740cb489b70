#include "kernels/cpu/tile_matmul.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "kernels/cpu/products.h"

namespace instruct::kernels::cpu {
namespace {

using tiles::Stored;

constexpr std::int64_t kFewestRows = 16;  // below, packing the right side costs more than tiles save
constexpr std::int64_t kMostRows = 256;   // rows of a task: with 512 of k they fill an eighth of a 2 MB cache
constexpr std::int64_t kMostPanels = 16;  // panels of a task, whose sums take 32 KB each
constexpr std::int64_t kManyTasks = 64;
// k of a block: a panel and two rows of tiles of it fit into the first cache.
constexpr std::int64_t kMostDepth = 640;
constexpr std::int64_t kNarrow = 32;  // results up to this many columns are computed transposed
// Small results of a long k are cut along k: reading the operands is most of the work, and this reads whole rows.
constexpr std::int64_t kLongDepth = 1024;
constexpr std::int64_t kFewResults = 1 << 18;
constexpr std::int64_t kMostPieces = 16;
constexpr std::int64_t kPieceDepth = 256;  // k of a block within a piece
// Rows this many bytes apart share a few sets of the first cache, and tiles read in place would evict each other.
constexpr std::int64_t kConflictBytes = 2048;
constexpr std::int64_t kStreamedBytes = 4 << 20;

Stored stored(const Tensor& matrix, Transpose transpose) {
  return {matrix.raw(), matrix.row_stride(), transpose};
}

std::int64_t depth_of(const Matmul& product) {
  return product.a.dim(product.transpose_a == Transpose::kYes ? 0 : 1);
}

std::int64_t low_depth_of(const Matmul& product) {
  return product.low_a.defined() ? product.low_a.dim(1) : 0;
}

// [m, k] in place where that reads whole tiles and no cache conflicts, else packed in `buffer`.
tiles::Left left_side(const Stored& part, std::int64_t m, std::int64_t k, std::byte* buffer) {
  const bool whole_tiles = m % tiles::kTileRows == 0 && k % tiles::kTileDepth == 0;
  const bool conflicts = part.stride * 2 % kConflictBytes == 0;
  if (part.transpose == Transpose::kNo && whole_tiles && !conflicts) return tiles::left_in_place(part);
  return tiles::pack_left(part, m, k, buffer);
}

// Large results leave the caches before they are read; small ones are better kept there.
bool streams(const Matmul& product) {
  const Tensor& c = product.c;
  const std::int64_t row_bytes = c.row_stride() * tensor::info(c.dtype()).block_bytes;
  const bool aligned = reinterpret_cast<std::uintptr_t>(c.raw()) % 64 == 0 && row_bytes % 64 == 0;
  return aligned && product.accumulate == Accumulate::kNo && c.dim(0) * row_bytes >= kStreamedBytes;
}

// c from row `row`, column `column`.
tiles::Result result_at(const Matmul& product, std::int64_t row, std::int64_t column) {
  const Tensor& c = product.c;
  return {
      .data = const_cast<std::byte*>(c.raw()) + (row * c.row_stride() + column) * tensor::info(c.dtype()).block_bytes,
      .stride = c.row_stride(),
      .dtype = c.dtype(),
      .accumulate = product.accumulate,
      .alpha = product.alpha,
      .streams = streams(product)};
}

// How a product is cut: by its size alone.
struct Cut {
  std::int64_t rows = 0, row_blocks = 0;
  std::int64_t panels = 0, column_blocks = 0;  // panels of a task
  std::int64_t depth = 0;                      // k of a block
};

Cut cut_of(std::int64_t m, std::int64_t n, std::int64_t k) {
  Cut cut;
  cut.row_blocks = ceil_div(m, kMostRows);
  cut.rows = round_up(ceil_div(m, cut.row_blocks), 32);
  cut.row_blocks = ceil_div(m, cut.rows);
  const std::int64_t panels = ceil_div(n, tiles::kPanelColumns);
  cut.panels = std::min(kMostPanels, ceil_div(panels * cut.row_blocks, kManyTasks));
  cut.column_blocks = ceil_div(panels, cut.panels);
  cut.depth = k <= kMostDepth ? k : round_up(ceil_div(k, ceil_div(k, kMostDepth)), tiles::kTileDepth);
  return cut;
}

// The right side, packed whole: in each panel the k of b, then those of low_b.
class PackedRight {
 public:
  PackedRight(Stream& stream, const Matmul& product)
      : low_offset_(tiles::packed_panel_bytes(depth_of(product))),
        panel_bytes_(low_offset_ + tiles::packed_panel_bytes(low_depth_of(product))) {
    const std::int64_t n = product.c.dim(1);
    storage_ = stream.allocator.allocate(ceil_div(n, tiles::kPanelColumns) * panel_bytes_);
    pack(stream, stored(product.b, product.transpose_b), depth_of(product), n, storage_->data);
    if (product.low_a.defined()) {
      pack(stream, stored(product.low_b, product.transpose_b), low_depth_of(product), n, storage_->data + low_offset_);
    }
  }
  tiles::Right from(std::int64_t k, std::int64_t column) const {
    return tiles::right_from({storage_->data, panel_bytes_}, k, column);
  }

 private:
  // Reads whole rows of what is stored: panels of a transposed matrix, pieces of k of a plain one.
  void pack(Stream& stream, const Stored& right, std::int64_t k, std::int64_t n, std::byte* target) const {
    if (right.transpose == Transpose::kYes) {
      stream.threads.run_ranges(n, tiles::kPanelColumns, [&](std::int64_t begin, std::int64_t end) {
        tiles::pack_right(right.from(0, begin), k, end - begin, target + begin / tiles::kPanelColumns * panel_bytes_,
                          panel_bytes_);
      });
      return;
    }
    stream.threads.run_ranges(k, tiles::kTileDepth, [&](std::int64_t begin, std::int64_t end) {
      tiles::pack_right(right.from(begin, 0), end - begin, n, target + tiles::packed_panel_bytes(begin), panel_bytes_);
    });
  }

  std::int64_t low_offset_;
  std::int64_t panel_bytes_;
  std::shared_ptr<tensor::Storage> storage_;
};

// One block of rows times one group of panels.
class Task {
 public:
  // `packed`: the whole right side, or null when each task packs its own panels.
  Task(Stream& stream, const Matmul& product, const Cut& cut, const PackedRight* packed)
      : unit_(products_of(stream).tiles()),
        product_(product),
        cut_(cut),
        packed_(packed),
        k_(depth_of(product)),
        low_k_(low_depth_of(product)),
        left_bytes_(tiles::packed_left_bytes(cut.rows, cut.depth)),
        low_bytes_(tiles::packed_left_bytes(cut.rows, low_k_)),
        panel_sums_(tiles::sums_bytes(cut.rows, tiles::kPanelColumns)),
        scratch_(stream.allocator.allocate(left_bytes_ + low_bytes_ + tiles::packed_panel_bytes(cut.depth) +
                                           tiles::packed_panel_bytes(low_k_) + cut.panels * panel_sums_)) {}

  void run(std::int64_t row_block, std::int64_t column_block) {
    const tiles::Session session(unit_);
    row_ = row_block * cut_.rows;
    rows_ = std::min(cut_.rows, product_.c.dim(0) - row_);
    first_column_ = column_block * cut_.panels * tiles::kPanelColumns;
    last_column_ = std::min(first_column_ + cut_.panels * tiles::kPanelColumns, product_.c.dim(1));
    if (low_k_ > 0) low_ = tiles::pack_left(stored(product_.low_a, Transpose::kNo).from(row_, 0), rows_, low_k_, low());
    cut_.depth == k_ ? multiply() : multiply_by_blocks();
  }

 private:
  std::byte* low() const { return scratch_->data + left_bytes_; }
  std::byte* panel() const { return low() + low_bytes_; }
  float* sums(std::int64_t column) const {
    std::byte* first = panel() + tiles::packed_panel_bytes(cut_.depth) + tiles::packed_panel_bytes(low_k_);
    return reinterpret_cast<float*>(first + (column - first_column_) / tiles::kPanelColumns * panel_sums_);
  }
  tiles::Left left(std::int64_t first, std::int64_t depth) {
    return left_side(stored(product_.a, product_.transpose_a).from(row_, first), rows_, depth, scratch_->data);
  }
  // k [first, first + depth) of the panel at `column`, followed by its low part when k ends there.
  tiles::Right right(std::int64_t column, std::int64_t first, std::int64_t depth) {
    if (packed_ != nullptr) return packed_->from(first, column);
    const std::int64_t columns = std::min(tiles::kPanelColumns, last_column_ - column);
    const tiles::Right packed =
        tiles::pack_right(stored(product_.b, product_.transpose_b).from(first, column), depth, columns, panel(), 0);
    if (low_k_ > 0 && first + depth == k_) {
      tiles::pack_right(stored(product_.low_b, product_.transpose_b).from(0, column), low_k_, columns,
                        panel() + tiles::packed_panel_bytes(depth), 0);
    }
    return packed;
  }
  template <typename Body>
  void for_panels(const Body& body) {
    for (std::int64_t column = first_column_; column < last_column_; column += tiles::kPanelColumns) {
      body(column, std::min(tiles::kPanelColumns, last_column_ - column));
    }
  }

  void multiply() {
    const tiles::Left whole = left(0, k_);
    for_panels([&](std::int64_t column, std::int64_t columns) {
      tiles::multiply(whole, right(column, 0, k_), {.m = rows_, .n = columns, .k = k_},
                      result_at(product_, row_, column), {.left = low_, .k = low_k_});
    });
  }

  void multiply_by_blocks() {
    for (std::int64_t first = 0; first < k_; first += cut_.depth) {
      const std::int64_t depth = std::min(cut_.depth, k_ - first);
      const tiles::Left part = left(first, depth);
      for_panels([&](std::int64_t column, std::int64_t columns) {
        const tiles::Right panel = right(column, first, depth);
        tiles::add_to_sums(part, panel, {.m = rows_, .n = columns, .k = depth},
                           first > 0 ? Accumulate::kYes : Accumulate::kNo, sums(column));
        if (first + depth < k_) return;
        if (low_k_ > 0) {
          tiles::add_to_sums(low_, tiles::right_from(panel, round_up(depth, tiles::kTileDepth), 0),
                             {.m = rows_, .n = columns, .k = low_k_}, Accumulate::kYes, sums(column));
        }
        tiles::store_sums(sums(column), rows_, columns, result_at(product_, row_, column));
      });
    }
  }

  tiles::Unit unit_;
  const Matmul& product_;
  const Cut& cut_;
  const PackedRight* packed_;
  std::int64_t k_;
  std::int64_t low_k_;
  std::int64_t left_bytes_;
  std::int64_t low_bytes_;
  std::int64_t panel_sums_;
  std::shared_ptr<tensor::Storage> scratch_;
  tiles::Left low_;
  std::int64_t row_ = 0;
  std::int64_t rows_ = 0;
  std::int64_t first_column_ = 0;
  std::int64_t last_column_ = 0;
};

// A small result of a long k: the sums of each piece of k, added up in order.
class LongProduct {
 public:
  LongProduct(Stream& stream, const Matmul& product)
      : stream_(stream),
        product_(product),
        m_(product.c.dim(0)),
        n_(product.c.dim(1)),
        k_(depth_of(product)),
        piece_(round_up(std::max(kPieceDepth, ceil_div(k_, kMostPieces)), kPieceDepth)),
        pieces_(ceil_div(k_, piece_)),
        sums_bytes_(tiles::sums_bytes(m_, n_)),
        sums_(stream.allocator.allocate(pieces_ * sums_bytes_)) {}

  static bool suits(std::int64_t m, std::int64_t n, std::int64_t k) {
    return m <= kMostRows && k >= kLongDepth && m * n <= kFewResults;
  }

  void run() {
    stream_.threads.run(pieces_, [&](std::int64_t piece) { add_piece(piece); });
    const std::int64_t panel_sums = tiles::sums_bytes(m_, tiles::kPanelColumns) / 4;
    stream_.threads.run_ranges(n_, tiles::kPanelColumns, [&](std::int64_t begin, std::int64_t end) {
      float* total = sums(0) + begin / tiles::kPanelColumns * panel_sums;
      for (std::int64_t piece = 1; piece < pieces_; ++piece) {
        const float* part = sums(piece) + begin / tiles::kPanelColumns * panel_sums;
        for (std::int64_t i = 0; i < panel_sums; ++i) total[i] += part[i];
      }
      tiles::store_sums(total, m_, end - begin, result_at(product_, 0, begin));
    });
  }

 private:
  float* sums(std::int64_t piece) const { return reinterpret_cast<float*>(sums_->data + piece * sums_bytes_); }

  void add_piece(std::int64_t piece) {
    const tiles::Session session(products_of(stream_).tiles());
    const std::int64_t left_bytes = tiles::packed_left_bytes(m_, kPieceDepth);
    const std::int64_t panel_bytes = tiles::packed_panel_bytes(kPieceDepth);
    const auto scratch = stream_.allocator.allocate(left_bytes + ceil_div(n_, tiles::kPanelColumns) * panel_bytes);
    std::byte* packed = scratch->data + left_bytes;
    const std::int64_t begin = piece * piece_;
    for (std::int64_t first = begin; first < std::min(k_, begin + piece_); first += kPieceDepth) {
      const std::int64_t depth = std::min(kPieceDepth, k_ - first);
      const tiles::Left left =
          left_side(stored(product_.a, product_.transpose_a).from(0, first), m_, depth, scratch->data);
      const Stored right = stored(product_.b, product_.transpose_b).from(first, 0);
      for (std::int64_t t = 0; t < depth; t += tiles::kTileDepth) {
        tiles::pack_right(right.from(t, 0), std::min(tiles::kTileDepth, depth - t), n_,
                          packed + tiles::packed_panel_bytes(t), panel_bytes);
      }
      tiles::add_to_sums(left, {packed, panel_bytes}, {.m = m_, .n = n_, .k = depth},
                         first > begin ? Accumulate::kYes : Accumulate::kNo, sums(piece));
    }
  }

  Stream& stream_;
  const Matmul& product_;
  std::int64_t m_;
  std::int64_t n_;
  std::int64_t k_;
  std::int64_t piece_;  // k of a piece
  std::int64_t pieces_;
  std::int64_t sums_bytes_;
  std::shared_ptr<tensor::Storage> sums_;
};

// c [m, few] as (op(b)^T op(a)^T)^T: then the wide operand is the right side, which packs without being transposed.
void multiply_narrow(Stream& stream, const Matmul& product) {
  const std::int64_t m = product.c.dim(0);
  const std::int64_t n = product.c.dim(1);
  Tensor transposed = Tensor::empty({n, m}, tensor::DType::kF32, stream.allocator);
  const auto flipped = [](Transpose transpose) {
    return transpose == Transpose::kYes ? Transpose::kNo : Transpose::kYes;
  };
  tile_matmul(stream, {.a = product.b,
                       .b = product.a,
                       .c = transposed,
                       .transpose_a = flipped(product.transpose_b),
                       .transpose_b = flipped(product.transpose_a),
                       .alpha = product.alpha});
  const auto* from = transposed.data<float>();
  Tensor c = product.c;
  auto* to = c.data<float>();
  stream.threads.run_ranges(m, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        float& value = to[i * c.row_stride() + j];
        value = product.accumulate == Accumulate::kYes ? value + from[j * m + i] : from[j * m + i];
      }
    }
  });
}

}  // namespace

bool suits_tiles(const Matmul& product) {
  if (product.a.dtype() != tensor::DType::kBF16) return false;
  return std::max(product.c.dim(0), product.c.dim(1)) >= 32 && product.c.dim(0) >= kFewestRows;
}

void tile_matmul(Stream& stream, const Matmul& product) {
  const std::int64_t m = product.c.dim(0);
  const std::int64_t n = product.c.dim(1);
  const std::int64_t k = depth_of(product);
  INSTRUCT_CHECK(!product.low_a.defined() || product.transpose_a == Transpose::kNo);
  if (n <= kNarrow && m > kNarrow && product.transpose_a == Transpose::kYes &&
      product.c.dtype() == tensor::DType::kF32) {
    multiply_narrow(stream, product);
    return;
  }
  if (LongProduct::suits(m, n, k) && !product.low_a.defined()) {
    LongProduct(stream, product).run();
    return;
  }
  const Cut cut = cut_of(m, n, k);
  std::optional<PackedRight> packed;
  if (cut.row_blocks > 1) packed.emplace(stream, product);  // several tasks read each panel: packed once for all
  stream.threads.run(cut.row_blocks * cut.column_blocks, [&](std::int64_t task) {
    Task(stream, product, cut, packed ? &*packed : nullptr).run(task / cut.column_blocks, task % cut.column_blocks);
  });
}

}  // namespace instruct::kernels::cpu
