// bf16 matrix products by tiles: on AMX, or on the registers of AVX-512 bf16 over the same layouts. Internal to
// kernels/cpu; for one thread each.
//
// Why not oneDNN: version 2.6 multiplies with AMX only when the left side is stored plainly and the result has the
// type of the inputs; everything else (scores, transposed left sides, f32 results) falls back to a bf16 gemm without
// tiles, at 22 GFLOP/s for the blocks of attention where these reach hundreds. Without AMX its plain products are as
// fast as ours, but those of attention take one and a half times as long, and nothing is added before rounding.
//
// A tile is 16 rows of 64 bytes. A product step multiplies 16 x 32 of the left side by 32 x 16 of the right side, whose
// rows hold pairs of neighbouring k ("packed"); two by two tiles of results are kept in registers. Each result is a sum
// over k in one fixed order, so a row does not depend on the rows computed beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/rounding.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu::tiles {

inline constexpr std::int64_t kTileRows = 16;
inline constexpr std::int64_t kTileDepth = 32;     // bf16 values of k in a tile
inline constexpr std::int64_t kPanelColumns = 32;  // columns of the right side packed together
inline constexpr std::int64_t kTileBytes = 1024;

// What multiplies: AMX tiles, or AVX-512 registers over the same layouts.
enum class Unit : std::uint8_t { kNone, kRegisters, kAmx };

// Makes this thread's products run on one unit, whose state it sets up and gives back.
class Session {
 public:
  explicit Session(Unit which);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  static Unit current() { return unit; }

 private:
  static thread_local constinit Unit unit;
};

// A bf16 matrix as it is stored, perhaps transposed.
struct Stored {
  const std::byte* data = nullptr;
  std::int64_t stride = 0;  // elements from row to row of what is stored
  Transpose transpose = Transpose::kNo;

  // The same from row `row`, column `column` of the logical matrix.
  Stored from(std::int64_t row, std::int64_t column) const;
};

// The left side as tiles read it: in place, or packed.
struct Left {
  const std::byte* data = nullptr;
  std::int64_t row_bytes = 0;          // from row to row in a tile
  std::int64_t tile_row_bytes = 0;     // to the tile 16 rows below
  std::int64_t tile_column_bytes = 0;  // to the tile 32 columns to the right
};

// [m, k] where it lies. Rows up to the next multiple of 16 and columns up to the next of 32 are read.
Left left_in_place(const Stored& matrix);
std::int64_t packed_left_bytes(std::int64_t m, std::int64_t k);
// [m, k] as tiles in `buffer`, filled up with zeros.
Left pack_left(const Stored& matrix, std::int64_t m, std::int64_t k, std::byte* buffer);
// The same in pieces: the layout of [m, k] in `buffer`, where a part starts (at a multiple of 16 rows and of 32
// columns), and one part packed to where `target` starts.
Left packed_left(std::int64_t k, std::byte* buffer);
inline Left left_from(const Left& left, std::int64_t row, std::int64_t column) {
  Left moved = left;
  moved.data += row / kTileRows * left.tile_row_bytes + column / kTileDepth * left.tile_column_bytes;
  return moved;
}
void pack_left(const Stored& matrix, std::int64_t m, std::int64_t k, const Left& target);

// The right side [k, n], packed: panels of 32 columns, `panel_bytes` apart. A panel of [k, 32] takes
// packed_panel_bytes(k) and starts with its first 32 k: one packed for a long k holds every shorter one, and pieces of
// 32 k can be packed on their own.
std::int64_t packed_panel_bytes(std::int64_t k);
std::int64_t packed_right_bytes(std::int64_t k, std::int64_t n);
struct Right {
  const std::byte* data = nullptr;
  std::int64_t panel_bytes = 0;
};
Right pack_right(const Stored& matrix, std::int64_t k, std::int64_t n, std::byte* buffer, std::int64_t panel_bytes);
// The same matrix from row k and column n (multiples of 32).
inline Right right_from(const Right& right, std::int64_t k, std::int64_t n) {
  return {right.data + n / kPanelColumns * right.panel_bytes + k / kTileDepth * 2 * kTileBytes, right.panel_bytes};
}

// Where results [m, n] go: c = alpha * sums (+ c).
struct Result {
  std::byte* data = nullptr;
  std::int64_t stride = 0;  // elements
  tensor::DType dtype = tensor::DType::kF32;
  Accumulate accumulate = Accumulate::kNo;
  float alpha = 1.0F;
  // Whether whole panels are stored past the caches: for results that are not added to and whose rows and columns
  // start at multiples of 64 bytes. Without it each line is read before it is overwritten.
  bool streams = false;
};

struct Extent {
  std::int64_t m = 0, n = 0, k = 0;
};
// More of k, with a left side of its own; in the right side's panels it follows the other k.
struct MoreDepth {
  Left left;
  std::int64_t k = 0;
};
// c [m, n] = alpha * left [m, k] * right [k, n] (+ c), inside a Session. `more` lengthens k.
void multiply(const Left& left, const Right& right, const Extent& extent, const Result& result,
              const MoreDepth& more = {});

// The two halves of it for sums over a long k, cut into blocks: sums [panels][m rounded up to 32][32] f32 (+)= left *
// right, and c from the sums.
std::int64_t sums_bytes(std::int64_t m, std::int64_t n);
void add_to_sums(const Left& left, const Right& right, const Extent& extent, Accumulate accumulate, float* sums);
void store_sums(const float* sums, std::int64_t m, std::int64_t n, const Result& result);

}  // namespace instruct::kernels::cpu::tiles
