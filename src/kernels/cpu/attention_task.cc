#include "kernels/cpu/attention_task.h"

namespace instruct::kernels::cpu {
namespace {

// Columns of one product of oneDNN: with widths rounded up to blocks, a few dozen compiled products serve every length.
constexpr std::int64_t kMaxColumns = 512;

std::byte* as_bytes(float* values) {
  return reinterpret_cast<std::byte*>(values);
}

}  // namespace

void HeadTask::pack(Gathered& gathered, std::int64_t first, std::int64_t last) const {
  if (!tiled_) return;
  first = first / tiles::kTileDepth * tiles::kTileDepth;
  const tiles::Stored rows{gathered.rows + first * width_ * size_, width_};
  if (gathered.transposed.data != nullptr) {
    const tiles::Right part = tiles::right_from(gathered.transposed, 0, first);
    tiles::pack_right({rows.data, width_, Transpose::kYes}, width_, last - first, const_cast<std::byte*>(part.data),
                      part.panel_bytes);
  }
  if (gathered.plain.data != nullptr) {
    const tiles::Right part = tiles::right_from(gathered.plain, first, 0);
    tiles::pack_right(rows, last - first, width_, const_cast<std::byte*>(part.data), part.panel_bytes);
  }
}

void HeadTask::against(const std::byte* left, const Gathered& keys, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, float alpha, float* result) const {
  if (tiled_) {
    tiles::multiply(tiles::left_in_place({left, width_}), keys.transposed, {.m = rows, .n = columns, .k = width_},
                    {.data = as_bytes(result), .stride = stride, .alpha = alpha});
    return;
  }
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
        .run(left, keys.rows + c * width_ * size_, result + c);
  }
}

void HeadTask::times(const std::byte* left, const Gathered& values, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, float* result) const {
  if (tiled_) {
    tiles::multiply(tiles::left_in_place({left, stride}), values.plain, {.m = rows, .n = width_, .k = columns},
                    {.data = as_bytes(result), .stride = width_});
    return;
  }
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
        .run(left + c * size_, values.rows + c * width_ * size_, result);
  }
}

void HeadTask::add_transposed(const std::byte* left, const std::byte* right, std::int64_t rows, std::int64_t columns,
                              std::int64_t stride, float* result, const TileScratch& scratch) const {
  if (tiled_) {
    const tiles::Left narrow = tiles::pack_left({right, width_, Transpose::kYes}, width_, rows, scratch.left);
    const tiles::Right wide =
        tiles::pack_right({left, stride}, rows, columns, scratch.right, tiles::packed_panel_bytes(kBlock));
    tiles::multiply(narrow, wide, {.m = width_, .n = columns, .k = rows},
                    {.data = as_bytes(result), .stride = scratch.columns, .accumulate = Accumulate::kYes});
    return;
  }
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

}  // namespace instruct::kernels::cpu
