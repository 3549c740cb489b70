// The products of integer_products.h, written once for any instruction set. Internal to kernels/cpu.
//
// An including file defines INSTRUCT_INTEGERS, the attribute that compiles a function for its instruction set, and before
// the include, inside its anonymous namespace, what one register or pair of registers holds:
//   Floats   16 f32: zero_floats, load_floats, load_halves, store_floats, set_floats, multiply, multiply_add, to_floats
//   Sums     16 int32: set_sums
//   Bytes    64 integers, four inputs of each of 16 outputs: load_bytes, low_halves, high_halves
//   dot<kSigned>(sums, bytes, four) adds to each output its four products with the four 8-bit inputs in `four`; with
//            kSigned the bytes stand for themselves minus 128
//   kSignedBytes: whether kSigned is wanted where a format's zero is 128, else the zero is taken from the sums
//   kMostRows: in a group
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/cpu/integer_products.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;

// A format at compile time.
template <int kBitsStored, int kZero, int kGroup, bool kMinimum, bool kHalf>
struct Format {
  static constexpr int bits = kBitsStored;  // 4 or 8
  static constexpr int zero = kZero;
  static constexpr int group = kGroup;
  static constexpr bool minimum = kMinimum;
  static constexpr bool half = kHalf;
  static constexpr bool is_signed = kSignedBytes && kZero == 128;
};

inline int read_int(const std::byte* from) {
  int value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline float read_float(const std::byte* from) {
  return std::bit_cast<float>(read_int(from));
}

// One number of one row in a block of activations.
template <int kRows>
const std::byte* field(const std::byte* block, RowField which, int row) {
  return block + kBlock * kRows + (which * kRows + row) * 4;
}

template <bool kHalf>
INSTRUCT_INTEGERS inline Floats next_numbers(const std::byte*& panel) {
  const std::byte* from = panel;
  panel += kPanel * (kHalf ? 2 : 4);
  if constexpr (kHalf) return load_halves(from);
  return load_floats(reinterpret_cast<const float*>(from));
}

// What a row's sums begin with: minus the format's zero times the sum of the row's integers.
template <class F, int kRows>
INSTRUCT_INTEGERS inline Sums first_sums(const std::byte* block, int part, int row) {
  if constexpr (F::zero == 0 || F::is_signed) {
    return set_sums(0);
  } else {
    int negated = read_int(field<kRows>(block, kNegatedSum, row));
    if constexpr (F::group != kBlock) {
      const int first = read_int(field<kRows>(block, kNegatedHalfSum, row));
      negated = part == 0 ? first : negated - first;
    }
    return set_sums(negated * F::zero);
  }
}

template <class F, int kRows>
INSTRUCT_INTEGERS void panel_product(const std::byte* group, const std::byte* panel, std::int64_t blocks, float* sums) {
  constexpr auto kSums = static_cast<std::size_t>(kRows);
  Floats sum[kSums];
  for (int r = 0; r < kRows; ++r) sum[r] = load_floats(sums + r * kPanel);
  for (std::int64_t b = 0; b < blocks; ++b, group += kRowBytes * kRows) {
    for (int part = 0; part < kBlock / F::group; ++part) {
      const Floats scale = next_numbers<F::half>(panel);
      Floats minimum = zero_floats();
      if constexpr (F::minimum) minimum = next_numbers<F::half>(panel);
      Sums dots[kSums];
      for (int r = 0; r < kRows; ++r) dots[r] = first_sums<F, kRows>(group, part, r);
      const std::byte* x = group + part * F::group;
      const auto accumulate = [&](Bytes weights, int four) INSTRUCT_INTEGERS {
        for (int r = 0; r < kRows; ++r)
          dots[r] = dot<F::is_signed>(dots[r], weights, read_int(x + r * kBlock + four * 4));
      };
      if constexpr (F::bits == 4) {
        for (int four = 0; four < F::group / 4; four += 2, panel += 64) {
          const Bytes both = load_bytes(panel);
          accumulate(low_halves(both), four);
          accumulate(high_halves(both), four + 1);
        }
      } else {
        for (int four = 0; four < F::group / 4; ++four, panel += 64) accumulate(load_bytes(panel), four);
      }
      for (int r = 0; r < kRows; ++r) {
        const Floats both = multiply(scale, set_floats(read_float(field<kRows>(group, kScale, r))));
        sum[r] = multiply_add(to_floats(dots[r]), both, sum[r]);
        if constexpr (F::minimum)
          sum[r] = multiply_add(minimum, set_floats(read_float(field<kRows>(group, kScaledSum, r))), sum[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) store_floats(sum[r], sums + r * kPanel);
}

// For a number of rows that is a power of two below kMostRows, or that itself.
template <class F, int kRows = 1>
PanelProduct of_rows(std::int64_t rows) {
  if constexpr (kRows < kMostRows) {
    return rows == kRows ? panel_product<F, kRows> : of_rows<F, 2 * kRows>(rows);
  } else {
    return panel_product<F, kMostRows>;
  }
}

PanelProduct find_panel_product(DType dtype, std::int64_t rows) {
  switch (dtype) {
    case DType::kQ8_0:
      return of_rows<Format<8, 128, 32, false, true>>(rows);
    case DType::kQ4_0:
      return of_rows<Format<4, 8, 32, false, true>>(rows);
    case DType::kQ4_1:
      return of_rows<Format<4, 0, 32, true, true>>(rows);
    case DType::kQ5_0:
      return of_rows<Format<8, 16, 32, false, true>>(rows);
    case DType::kQ5_1:
      return of_rows<Format<8, 0, 32, true, true>>(rows);
    case DType::kQ4_K:
      return of_rows<Format<4, 0, 32, true, false>>(rows);
    case DType::kQ5_K:
      return of_rows<Format<8, 0, 32, true, false>>(rows);
    case DType::kQ6_K:
      return of_rows<Format<8, 32, 16, false, false>>(rows);
    default:
      return nullptr;
  }
}

template <int kRows>
INSTRUCT_INTEGERS void low_product_rows(const float* left, const float* right, std::int64_t rank, float* sums) {
  Floats sum[static_cast<std::size_t>(kRows)];
  for (int r = 0; r < kRows; ++r) sum[r] = load_floats(sums + r * kPanel);
  for (std::int64_t k = 0; k < rank; ++k, right += kPanel) {
    const Floats outputs = load_floats(right);
    for (int r = 0; r < kRows; ++r) sum[r] = multiply_add(set_floats(left[r * rank + k]), outputs, sum[r]);
  }
  for (int r = 0; r < kRows; ++r) store_floats(sum[r], sums + r * kPanel);
}

void low_product(const float* left, const float* right, std::int64_t rank, std::int64_t rows, float* sums) {
  for (; rows >= 4; rows -= 4, left += 4 * rank, sums += 4 * kPanel) low_product_rows<4>(left, right, rank, sums);
  for (; rows > 0; --rows, left += rank, sums += kPanel) low_product_rows<1>(left, right, rank, sums);
}

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

// The numbers of one row beside its integers.
inline void put_fields(const BlockScale& scale, int first_sum, int second_sum, std::int64_t rows, std::int64_t row,
                       std::byte* block) {
  const int sum = first_sum + second_sum;
  const auto put = [&](RowField which, std::uint32_t bits) {
    std::memcpy(block + kBlock * rows + (which * rows + row) * 4, &bits, sizeof(bits));
  };
  put(kScale, std::bit_cast<std::uint32_t>(scale.scale));
  put(kScaledSum, std::bit_cast<std::uint32_t>(scale.scale * static_cast<float>(sum)));
  put(kNegatedSum, static_cast<std::uint32_t>(-sum));
  put(kNegatedHalfSum, static_cast<std::uint32_t>(-first_sum));
}

}  // namespace
}  // namespace instruct::kernels::cpu
