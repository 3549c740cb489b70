#include "tensor/block_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/error.h"
#include "tensor/block_writers.h"

namespace instruct::tensor {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes block, std::size_t offset) {
  Half value{};
  std::memcpy(&value.bits, block + offset, 2);
  return to_float(value);
}

// Low and high four bits of a byte.
std::uint8_t low(std::uint8_t byte) {
  return byte & 0xF;
}
std::uint8_t high(std::uint8_t byte) {
  return byte >> 4;
}

void read_q8_0(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i) out.integers[i] = block[2 + i] ^ 0x80;
}

// Byte i holds elements i and i + 16.
void read_nibbles(Bytes q, IntegerBlock& out) {
  for (std::size_t i = 0; i < 16; ++i) {
    out.integers[i] = low(q[i]);
    out.integers[i + 16] = high(q[i]);
  }
}

void add_fifth_bits(Bytes packed, IntegerBlock& out) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, packed, 4);
  for (std::size_t i = 0; i < 32; ++i) out.integers[i] |= static_cast<std::uint8_t>((bits >> i & 1U) << 4);
}

void read_q4_0(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  read_nibbles(block + 2, out);
}

void read_q4_1(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  out.minimums[0] = half_at(block, 2);
  read_nibbles(block + 4, out);
}

void read_q5_0(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  read_nibbles(block + 6, out);
  add_fifth_bits(block + 2, out);
}

void read_q5_1(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  out.minimums[0] = half_at(block, 2);
  read_nibbles(block + 8, out);
  add_fifth_bits(block + 4, out);
}

// Six-bit scales and minimums of the 8 groups, packed into 12 bytes.
void read_scales_k(Bytes block, IntegerBlock& out) {
  const float d = half_at(block, 0);
  const float dmin = half_at(block, 2);
  Bytes packed = block + 4;
  for (std::size_t j = 0; j < 8; ++j) {
    const int scale = j < 4 ? packed[j] & 63 : low(packed[j + 4]) | (packed[j - 4] >> 6) << 4;
    const int minimum = j < 4 ? packed[j + 4] & 63 : high(packed[j + 4]) | (packed[j] >> 6) << 4;
    out.scales[j] = d * static_cast<float>(scale);
    out.minimums[j] = -(dmin * static_cast<float>(minimum));
  }
}

// 32 bytes hold the low bits of one group in their low half and those of the next in the high one.
void read_nibbles_k(Bytes q, IntegerBlock& out) {
  for (std::size_t i = 0; i < 128; ++i) {
    out.integers[i / 32 * 64 + i % 32] = low(q[i]);
    out.integers[i / 32 * 64 + 32 + i % 32] = high(q[i]);
  }
}

void read_q4_k(Bytes block, IntegerBlock& out) {
  read_scales_k(block, out);
  read_nibbles_k(block + 16, out);
}

void read_q5_k(Bytes block, IntegerBlock& out) {
  read_scales_k(block, out);
  read_nibbles_k(block + 48, out);
  Bytes fifth = block + 16;
  for (std::size_t i = 0; i < 256; ++i) {
    out.integers[i] |= static_cast<std::uint8_t>((fifth[i % 32] >> (i / 32) & 1) << 4);
  }
}

void read_q6_k(Bytes block, IntegerBlock& out) {
  const float d = half_at(block, 208);
  for (std::size_t j = 0; j < 16; ++j) {
    out.scales[j] = d * static_cast<float>(static_cast<std::int8_t>(block[192 + j]));
  }
  for (std::size_t half = 0; half < 2; ++half) {
    Bytes ql = block + 64 * half;
    Bytes qh = block + 128 + 32 * half;
    std::uint8_t* to = out.integers + 128 * half;
    for (std::size_t i = 0; i < 32; ++i) {
      to[i] = static_cast<std::uint8_t>(low(ql[i]) | (qh[i] & 3) << 4);
      to[i + 32] = static_cast<std::uint8_t>(low(ql[i + 32]) | (qh[i] >> 2 & 3) << 4);
      to[i + 64] = static_cast<std::uint8_t>(high(ql[i]) | (qh[i] >> 4 & 3) << 4);
      to[i + 96] = static_cast<std::uint8_t>(high(ql[i + 32]) | (qh[i] >> 6 & 3) << 4);
    }
  }
}

// Of 128 elements, two bits each: a byte holds those of elements 32 apart.
void read_pairs_k(Bytes q, IntegerBlock& out) {
  for (std::size_t i = 0; i < 256; ++i)
    out.integers[i] = static_cast<std::uint8_t>(q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3);
}

void read_q2_k(Bytes block, IntegerBlock& out) {
  const float d = half_at(block, 80);
  const float dmin = half_at(block, 82);
  for (std::size_t j = 0; j < 16; ++j) {
    out.scales[j] = d * static_cast<float>(low(block[j]));
    out.minimums[j] = -(dmin * static_cast<float>(high(block[j])));
  }
  read_pairs_k(block + 16, out);
}

// The third bit has its own bytes; the six bits of a scale lie in two places.
void read_q3_k(Bytes block, IntegerBlock& out) {
  const float d = half_at(block, 108);
  Bytes packed = block + 96;
  for (std::size_t j = 0; j < 16; ++j) {
    const int bits = (j < 8 ? low(packed[j]) : high(packed[j - 8])) | (packed[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
    out.scales[j] = d * static_cast<float>(bits - 32);
  }
  read_pairs_k(block + 32, out);
  for (std::size_t i = 0; i < 256; ++i)
    out.integers[i] |= static_cast<std::uint8_t>((block[i % 32] >> (i / 32) & 1) << 2);
}

// Sixteen values that are closer together near zero (ggml's table for IQ4), and those of a 4-bit float of two bits of
// exponent and one of mantissa, doubled (Open Compute Project, "Microscaling formats", 2023); plus the format's zero.
constexpr std::uint8_t kIq4Values[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
constexpr std::uint8_t kFp4Values[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

void read_table(Bytes q, const std::uint8_t (&values)[16], std::uint8_t* integers) {
  for (std::size_t i = 0; i < 16; ++i) {
    integers[i] = values[low(q[i])];
    integers[i + 16] = values[high(q[i])];
  }
}

void read_iq4_nl(Bytes block, IntegerBlock& out) {
  out.scales[0] = half_at(block, 0);
  read_table(block + 2, kIq4Values, out.integers);
}

void read_iq4_xs(Bytes block, IntegerBlock& out) {
  const float d = half_at(block, 0);
  for (std::size_t j = 0; j < 8; ++j) {
    const int four = j % 2 == 0 ? low(block[4 + j / 2]) : high(block[4 + j / 2]);
    out.scales[j] = d * static_cast<float>((four | (block[2 + j / 4] >> (j % 4 * 2) & 3) << 4) - 32);
    read_table(block + 8 + 16 * j, kIq4Values, out.integers + 32 * j);
  }
}

void read_mxfp4(Bytes block, IntegerBlock& out) {
  out.scales[0] = std::ldexp(1.0F, block[0] - 128);
  read_table(block + 1, kFp4Values, out.integers);
}

// The values of one block; Group is the format's, known here so that the loops over it are unrolled.
template <std::size_t Group>
void decode_groups(const IntegerFormat& format, const IntegerBlock& block, std::size_t groups, float* values) {
  const auto zero = static_cast<float>(format.zero);
  const std::uint8_t* integers = block.integers;
  for (std::size_t g = 0; g < groups; ++g, integers += Group, values += Group) {
    const float scale = block.scales[g];
    if (format.has_minimum) {
      const float minimum = block.minimums[g];
      for (std::size_t i = 0; i < Group; ++i) values[i] = scale * (static_cast<float>(integers[i]) - zero) + minimum;
    } else {
      for (std::size_t i = 0; i < Group; ++i) values[i] = scale * (static_cast<float>(integers[i]) - zero);
    }
  }
}

void decode_blocks(DType dtype, const std::byte* source, std::span<float> values) {
  const DTypeInfo& layout = info(dtype);
  const IntegerFormat& format = *integer_format(dtype);
  const auto elements = static_cast<std::size_t>(layout.block_elements);
  IntegerBlock block;
  for (std::size_t at = 0; at < values.size(); at += elements, source += layout.block_bytes) {
    format.read(reinterpret_cast<Bytes>(source), block);
    if (format.group == 32) {
      decode_groups<32>(format, block, elements / 32, values.data() + at);
    } else {
      decode_groups<16>(format, block, elements / 16, values.data() + at);
    }
  }
}

void encode_blocks(DType dtype, std::span<const float> values, std::byte* target) {
  const DTypeInfo& layout = info(dtype);
  const IntegerFormat& format = *integer_format(dtype);
  auto* block = reinterpret_cast<std::uint8_t*>(target);
  const auto count = static_cast<std::size_t>(layout.block_elements);
  INSTRUCT_CHECK(values.size() % count == 0);
  for (std::size_t i = 0; i < values.size(); i += count, block += layout.block_bytes)
    format.write(values.data() + i, block);
}

}  // namespace

const IntegerFormat* integer_format(DType dtype) {
  static const std::map<DType, IntegerFormat> formats{
      {DType::kQ8_0, {.bits = 8, .zero = 128, .read = read_q8_0, .write = write_q8_0}},
      {DType::kQ4_0, {.bits = 4, .zero = 8, .read = read_q4_0, .write = write_q4_0}},
      {DType::kQ4_1, {.bits = 4, .has_minimum = true, .read = read_q4_1, .write = write_q4_1}},
      {DType::kQ5_0, {.bits = 5, .zero = 16, .read = read_q5_0, .write = write_q5_0}},
      {DType::kQ5_1, {.bits = 5, .has_minimum = true, .read = read_q5_1, .write = write_q5_1}},
      {DType::kQ4_K, {.bits = 4, .has_minimum = true, .half_scales = false, .read = read_q4_k, .write = write_q4_k}},
      {DType::kQ5_K, {.bits = 5, .has_minimum = true, .half_scales = false, .read = read_q5_k, .write = write_q5_k}},
      {DType::kQ6_K,
       {.bits = 6, .zero = 32, .group = 16, .half_scales = false, .read = read_q6_k, .write = write_q6_k}},
      {DType::kQ2_K,
       {.bits = 4, .group = 16, .has_minimum = true, .half_scales = false, .read = read_q2_k, .write = write_q2_k}},
      {DType::kQ3_K, {.bits = 4, .zero = 4, .group = 16, .half_scales = false, .read = read_q3_k, .write = write_q3_k}},
      {DType::kIQ4NL, {.bits = 8, .zero = 128, .read = read_iq4_nl}},
      {DType::kIQ4XS, {.bits = 8, .zero = 128, .half_scales = false, .read = read_iq4_xs}},
      {DType::kMXFP4, {.bits = 5, .zero = 16, .half_scales = false, .read = read_mxfp4}}};
  const auto found = formats.find(dtype);
  return found == formats.end() ? nullptr : &found->second;
}

void decode_elements(DType dtype, const std::byte* source, std::span<float> values) {
  INSTRUCT_CHECK(static_cast<std::int64_t>(values.size()) % info(dtype).block_elements == 0);
  const auto plain = [&](auto element) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::memcpy(&element, source + i * sizeof(element), sizeof(element));
      values[i] = to_float(element);
    }
  };
  switch (dtype) {
    case DType::kF32:
      std::memcpy(values.data(), source, values.size_bytes());
      return;
    case DType::kF16:
      return plain(Half{});
    case DType::kBF16:
      return plain(BFloat16{});
    default:
      if (integer_format(dtype) != nullptr) return decode_blocks(dtype, source, values);
      raise(ErrorCategory::kUnsupported, "elements of type {} do not decode to floats", info(dtype).name);
  }
}

void encode_elements(DType dtype, std::span<const float> values, std::byte* target) {
  const auto plain = [&](auto convert) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto element = convert(values[i]);
      std::memcpy(target + i * sizeof(element), &element, sizeof(element));
    }
  };
  switch (dtype) {
    case DType::kF32:
      std::memcpy(target, values.data(), values.size_bytes());
      return;
    case DType::kF16:
      return plain(to_half);
    case DType::kBF16:
      return plain(to_bfloat16);
    default:
      if (const IntegerFormat* format = integer_format(dtype); format != nullptr && format->write != nullptr)
        return encode_blocks(dtype, values, target);
      raise(ErrorCategory::kUnsupported, "writing tensors as {} is not supported", info(dtype).name);
  }
}

void decode_rows(const Tensor& matrix, std::int64_t first_row, std::int64_t rows, std::span<float> values) {
  INSTRUCT_CHECK(matrix.rank() == 2 && first_row >= 0 && first_row + rows <= matrix.dim(0) &&
                 static_cast<std::int64_t>(values.size()) == rows * matrix.dim(1));
  const auto columns = static_cast<std::size_t>(matrix.dim(1));
  const std::int64_t row_bytes = bytes_of(matrix.dtype(), matrix.row_stride());
  for (std::int64_t r = 0; r < rows; ++r) {
    decode_elements(matrix.dtype(), matrix.raw() + (first_row + r) * row_bytes,
                    values.subspan(static_cast<std::size_t>(r) * columns, columns));
  }
}

}  // namespace instruct::tensor
