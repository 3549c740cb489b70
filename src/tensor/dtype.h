// Element types, plain and block-quantised.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace instruct::tensor {

// Block types are GGUF's: `block_elements` values share scales and are stored together in `block_bytes`.
enum class DType : std::uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kI64,
  kU8,
  kI8,
  kU16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ2_K,
  kQ3_K,
  kIQ4NL,
  kIQ4XS,
  kMXFP4,
};
inline constexpr int kDTypeCount = 21;

struct DTypeInfo {
  std::string_view name;        // "f32", "bf16", "q4_1", ...
  std::int64_t block_elements;  // 1 for plain types
  std::int64_t block_bytes;
};
const DTypeInfo& info(DType dtype);
inline bool is_quantised(DType dtype) {
  return info(dtype).block_elements > 1;
}
// nullopt for an unknown name. Case does not matter.
std::optional<DType> dtype_from_name(std::string_view name);
// Bytes of `elements` values; elements must be a multiple of the block.
std::int64_t bytes_of(DType dtype, std::int64_t elements);

// bfloat16 and half as stored; conversions round to nearest, ties to even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits;
};
struct Half {
  std::uint16_t bits;
};
inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}
inline float to_float(Half value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = value.bits >> 10 & 0x1FU;
  const std::uint32_t mantissa = value.bits & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  // Subnormal: mantissa * 2^-24 is exact in f32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

inline Half to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {static_cast<std::uint16_t>(sign | 0x7E00U | (magnitude >> 13 & 0x1FFU))};
  if (magnitude >= 0x47800000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};  // 2^16 and above
  if (magnitude < 0x38800000U) {                                                      // below 2^-14: subnormal
    // Adding 0.5 puts the half's last bit at the float's last bit; the addition rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U))};
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U) - 0x38000000U;
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
}

// An f32 number in two halves that give it back bit for bit: the nearest bfloat16, of two equally near ones that away
// from zero, and the lower 16 bits. Adding half a unit carries into the upper bits exactly where the lower ones begin
// with a one, so that bit says what to take away again. (Ties to even would leave one case in 65,536 undecided.)
struct SplitFloat {
  BFloat16 upper;
  std::uint16_t lower;
};
inline SplitFloat split(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return {{static_cast<std::uint16_t>((bits + 0x8000U) >> 16)}, static_cast<std::uint16_t>(bits)};
}
inline float join(SplitFloat value) {
  const std::uint32_t upper = value.upper.bits - (static_cast<std::uint32_t>(value.lower) >> 15);
  return std::bit_cast<float>(upper << 16 | value.lower);
}
inline float to_float(float value) {
  return value;
}

}  // namespace instruct::tensor
