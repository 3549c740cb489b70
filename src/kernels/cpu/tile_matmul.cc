#include "kernels/cpu/tile_matmul.h"

#include <algorithm>

#include "kernels/cpu/tiles.h"

namespace instruct::kernels::cpu {
namespace {

using tiles::ceil_div;
using tiles::Stored;

constexpr std::int64_t kFewestRows = 16;  // below, packing the right side costs more than tiles save
constexpr std::int64_t kMostRows = 256;   // rows of a task: with 512 of k they fill an eighth of a 2 MB cache
constexpr std::int64_t kMostPanels = 16;  // panels of a task, whose sums take 32 KB each
constexpr std::int64_t kManyTasks = 64;
// k of a block: a panel and two rows of tiles of it fit into the first cache.
constexpr std::int64_t kMostDepth = 640;
constexpr std::int64_t kNarrow = 32;  // results up to this many columns are computed transposed

Stored stored(const Tensor& matrix, Transpose transpose) {
  return {matrix.raw(), matrix.row_stride(), transpose};
}

std::int64_t depth_of(const Matmul& product) {
  return product.a.dim(product.transpose_a == Transpose::kYes ? 0 : 1);
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
  cut.rows = ceil_div(ceil_div(m, cut.row_blocks), 32) * 32;
  cut.row_blocks = ceil_div(m, cut.rows);
  const std::int64_t panels = ceil_div(n, tiles::kPanelColumns);
  cut.panels = std::min(kMostPanels, ceil_div(panels * cut.row_blocks, kManyTasks));
  cut.column_blocks = ceil_div(panels, cut.panels);
  cut.depth =
      k <= kMostDepth ? k : ceil_div(ceil_div(k, ceil_div(k, kMostDepth)), tiles::kTileDepth) * tiles::kTileDepth;
  return cut;
}

// One block of rows times one group of panels.
class Task {
 public:
  // `packed`: the whole right side, or nothing when each task packs its own part.
  Task(Stream& stream, const Matmul& product, const Cut& cut, const tiles::Right& packed)
      : product_(product),
        c_(product.c),
        cut_(cut),
        packed_(packed),
        left_bytes_(tiles::packed_left_bytes(cut.rows, cut.depth)),
        right_bytes_(packed.data != nullptr ? 0
                                            : tiles::packed_right_bytes(cut.depth, cut.panels * tiles::kPanelColumns)),
        scratch_(stream.allocator.allocate(left_bytes_ + right_bytes_ +
                                           tiles::sums_bytes(cut.rows, cut.panels * tiles::kPanelColumns))) {}

  void run(std::int64_t row_block, std::int64_t column_block) {
    const tiles::Session session;
    row_ = row_block * cut_.rows;
    column_ = column_block * cut_.panels * tiles::kPanelColumns;
    extent_ = {.m = std::min(cut_.rows, c_.dim(0) - row_),
               .n = std::min(cut_.panels * tiles::kPanelColumns, c_.dim(1) - column_)};
    const tensor::DType dtype = c_.dtype();
    const tiles::Result result{.data = c_.raw() + (row_ * c_.row_stride() + column_) * tensor::info(dtype).block_bytes,
                               .stride = c_.row_stride(),
                               .dtype = dtype,
                               .accumulate = product_.accumulate,
                               .alpha = product_.alpha};
    const std::int64_t k = depth_of(product_);
    auto* sums = reinterpret_cast<float*>(scratch_->data + left_bytes_ + right_bytes_);
    for (std::int64_t first = 0; first < k; first += cut_.depth) {
      extent_.k = std::min(cut_.depth, k - first);
      if (cut_.depth == k) {
        tiles::multiply(left(first), right(first), extent_, result);
        return;
      }
      tiles::add_to_sums(left(first), right(first), extent_, first > 0 ? Accumulate::kYes : Accumulate::kNo, sums);
    }
    tiles::store_sums(sums, extent_.m, extent_.n, result);
  }

 private:
  tiles::Left left(std::int64_t first) {
    const Stored part = stored(product_.a, product_.transpose_a).from(row_, first);
    const bool whole_tiles = extent_.m % tiles::kTileRows == 0 && extent_.k % tiles::kTileDepth == 0;
    if (product_.transpose_a == Transpose::kNo && whole_tiles) return tiles::left_in_place(part);
    return tiles::pack_left(part, extent_.m, extent_.k, scratch_->data);
  }
  tiles::Right right(std::int64_t first) {
    if (packed_.data != nullptr) return tiles::right_from(packed_, first, column_);
    return tiles::pack_right(stored(product_.b, product_.transpose_b).from(first, column_), extent_.k, extent_.n,
                             scratch_->data + left_bytes_, tiles::packed_panel_bytes(extent_.k));
  }

  const Matmul& product_;
  Tensor c_;
  const Cut& cut_;
  const tiles::Right& packed_;
  std::int64_t left_bytes_;
  std::int64_t right_bytes_;
  std::shared_ptr<tensor::Storage> scratch_;
  std::int64_t row_ = 0;
  std::int64_t column_ = 0;
  tiles::Extent extent_;
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
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float& value = to[i * c.row_stride() + j];
      value = product.accumulate == Accumulate::kYes ? value + from[j * m + i] : from[j * m + i];
    }
  }
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
  if (n <= kNarrow && m > kNarrow && product.transpose_a == Transpose::kYes &&
      product.c.dtype() == tensor::DType::kF32) {
    multiply_narrow(stream, product);
    return;
  }
  const Cut cut = cut_of(m, n, k);
  std::shared_ptr<tensor::Storage> storage;
  tiles::Right packed;
  if (cut.row_blocks > 1) {  // several tasks read each panel: packed once for all
    const std::int64_t panel_bytes = tiles::packed_panel_bytes(k);
    storage = stream.allocator.allocate(tiles::packed_right_bytes(k, n));
    const Stored right = stored(product.b, product.transpose_b);
    stream.threads.run_ranges(ceil_div(n, tiles::kPanelColumns), 1, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * tiles::kPanelColumns;
      tiles::pack_right(right.from(0, first), k, std::min(n, end * tiles::kPanelColumns) - first,
                        storage->data + begin * panel_bytes, panel_bytes);
    });
    packed = {storage->data, panel_bytes};
  }
  stream.threads.run(cut.row_blocks * cut.column_blocks, [&](std::int64_t task) {
    Task(stream, product, cut, packed).run(task / cut.column_blocks, task % cut.column_blocks);
  });
}

}  // namespace instruct::kernels::cpu
