// Dot products of 8-bit activations with packed block-quantised weights. Internal to kernels/cpu.
//
// A weight is cut into panels of kPanel outputs. A panel holds, block of 32 inputs after block: for each group that
// shares a scale (32 inputs, or two of 16) the scales of the 16 outputs and their minimums where the format has them,
// then the integers, four consecutive inputs of each output together: 64 bytes of 8-bit integers, or of 4-bit ones
// with four inputs in the low and the next four in the high halves. The f32 scales of kI8 come before two blocks each.
//
// Activations are cut into groups of rows. A group holds, block after block and in a block plane after plane (one of
// 8-bit integers, or two): 32 integers a row, then one number a row of each of the fields below. Two neighbouring
// blocks may share a scale: then the fields of the first are of both, and those of the second mean nothing. One panel
// of weights times one group of rows is what an instruction set implements. All of them compute the same to the bit:
// the sum over a block is exact, and blocks are added in order.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/integer_weight.h"
#include "kernels/stream.h"
#include "tensor/block_codec.h"

namespace instruct::kernels::cpu {

inline constexpr std::int64_t kPanel = 16;  // outputs
inline constexpr std::int64_t kBlock = 32;  // inputs
inline constexpr int kMostGroupRows = 12;   // of activations that any instruction set takes in a group

// Fields of a plane of activations after its integers, each one number a row.
enum RowField : std::uint8_t {
  kScale,           // f32
  kScaledSum,       // f32, scale times sum
  kNegatedSum,      // int32, minus 128 times the sum of the integers
  kNegatedHalfSum,  // the same of the first 16
};
inline constexpr std::int64_t kRowBytes = kBlock + 4 * 4;  // of one row in one plane

// sums [rows, kPanel] += group [rows, blocks * 32] times panel.
using PanelProduct = void (*)(const std::byte* group, const std::byte* panel, std::int64_t blocks, float* sums);

// How a group of rows is laid out.
struct GroupShape {
  std::int64_t rows = 0;
  std::int64_t blocks = 0;
  std::int64_t span = 1;  // blocks that share a scale: 1 or 2 (the last one may be alone)
  int planes = 1;
};

// Writes row `row` of a group: per span of blocks, scale = max|x| / 127 and integers round(x * (127 / max|x|)), ties to
// even; in a second plane what is left, with scale / 254. A value that is not finite makes its scale NaN. x: the row's
// values, f32 or bf16.
using RowQuantiser = void (*)(const std::byte* x, tensor::DType dtype, const GroupShape& shape, std::int64_t row,
                              std::byte* group);

// The scale of a block by its largest magnitude, and the factor that makes its values integers: 0 where they count as
// zero, because one is not finite (the scale is NaN) or all are so small that the factor would overflow.
struct BlockScale {
  float scale;
  float factor;
};
inline BlockScale scale_of(float largest) {
  constexpr float kMost = std::numeric_limits<float>::max();
  if (!(largest <= kMost)) return {std::numeric_limits<float>::quiet_NaN(), 0};
  return {largest / 127.0F, largest > 127.0F / kMost ? 127.0F / largest : 0.0F};
}

inline constexpr float kFiner = 254.0F;  // the scale of the first plane over that of the second

// The numbers of one row beside its integers.
inline void put_fields(float scale, int first_sum, int second_sum, std::int64_t rows, std::int64_t row,
                       std::byte* plane) {
  const int sum = first_sum + second_sum;
  const auto put = [&](RowField which, std::uint32_t bits) {
    std::memcpy(plane + kBlock * rows + (which * rows + row) * 4, &bits, sizeof(bits));
  };
  put(kScale, std::bit_cast<std::uint32_t>(scale));
  put(kScaledSum, std::bit_cast<std::uint32_t>(scale * static_cast<float>(sum)));
  put(kNegatedSum, static_cast<std::uint32_t>(-128 * sum));
  put(kNegatedHalfSum, static_cast<std::uint32_t>(-128 * first_sum));
}

// sums [rows, kPanel] += left [rows, rank] times right [rank, kPanel], all f32.
using LowProduct = void (*)(const float* left, const float* right, std::int64_t rank, std::int64_t rows, float* sums);

// The first `count` of kPanel numbers of each row, to and from f32 or bf16; the rest is read as zero.
using SumStore = void (*)(const float* sums, tensor::DType dtype, std::int64_t rows, std::int64_t count,
                          std::int64_t stride_bytes, std::byte* y);
using SumLoad = void (*)(const std::byte* y, tensor::DType dtype, std::int64_t rows, std::int64_t count,
                         std::int64_t stride_bytes, float* sums);

struct IntegerProducts {
  std::int64_t most_rows = 0;  // in one group; smaller groups are powers of two
  PanelProduct (*panel_product)(tensor::DType dtype, std::int64_t rows, int planes) = nullptr;
  RowQuantiser quantise_row = nullptr;
  LowProduct low_product = nullptr;
  SumStore store_sums = nullptr;
  SumLoad load_sums = nullptr;
};

extern const IntegerProducts kVnniProducts;  // AVX-512 VNNI
extern const IntegerProducts kAvx2Products;  // AVX2

// Blocks of activations that share a scale beside weights of this type.
inline std::int64_t span_of(tensor::DType dtype) {
  return dtype == tensor::DType::kI8 ? kScaledInputs / kBlock : 1;
}

// Bytes of one block of a packed panel.
inline std::int64_t panel_block_bytes(const tensor::IntegerFormat& format) {
  const std::int64_t numbers = kPanel * (kBlock / format.group) * (format.has_minimum ? 2 : 1);
  return numbers * (format.half_scales ? 2 : 4) + kPanel * kBlock * (format.bits == 4 ? 4 : 8) / 8;
}

}  // namespace instruct::kernels::cpu
