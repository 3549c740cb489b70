#include "tensor/block_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace instruct::tensor {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes block, std::size_t offset) {
  Half value{};
  std::memcpy(&value.bits, block + offset, 2);
  return to_float(value);
}

void put_half(std::uint8_t* block, std::size_t offset, float value) {
  const Half stored = to_half(value);
  std::memcpy(block + offset, &stored.bits, 2);
}

// Low and high four bits of byte i hold elements i and i + 16.
int low(std::uint8_t byte) {
  return byte & 0xF;
}
int high(std::uint8_t byte) {
  return byte >> 4;
}

void decode_q8_0(Bytes block, float* y) {
  const float d = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i) y[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
}

void decode_q4_0(Bytes block, float* y) {
  const float d = half_at(block, 0);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(block[2 + i]) - 8);
    y[i + 16] = d * static_cast<float>(high(block[2 + i]) - 8);
  }
}

void decode_q4_1(Bytes block, float* y) {
  const float d = half_at(block, 0);
  const float m = half_at(block, 2);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(block[4 + i])) + m;
    y[i + 16] = d * static_cast<float>(high(block[4 + i])) + m;
  }
}

// The fifth bits of 32 elements.
std::uint32_t fifth_bits(Bytes block, std::size_t offset) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, block + offset, 4);
  return bits;
}

void decode_q5_0(Bytes block, float* y) {
  const float d = half_at(block, 0);
  const std::uint32_t bits = fifth_bits(block, 2);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((low(block[6 + i]) | static_cast<int>((bits >> i & 1U) << 4)) - 16);
    y[i + 16] = d * static_cast<float>((high(block[6 + i]) | static_cast<int>((bits >> (i + 16) & 1U) << 4)) - 16);
  }
}

void decode_q5_1(Bytes block, float* y) {
  const float d = half_at(block, 0);
  const float m = half_at(block, 2);
  const std::uint32_t bits = fifth_bits(block, 4);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(block[8 + i]) | static_cast<int>((bits >> i & 1U) << 4)) + m;
    y[i + 16] = d * static_cast<float>(high(block[8 + i]) | static_cast<int>((bits >> (i + 16) & 1U) << 4)) + m;
  }
}

// Six-bit scale and minimum of sub-block j, packed into 12 bytes.
struct ScaleMin {
  float scale;
  float minimum;
};
ScaleMin scale_min(Bytes packed, int j) {
  if (j < 4) return {static_cast<float>(packed[j] & 63), static_cast<float>(packed[j + 4] & 63)};
  return {static_cast<float>((packed[j + 4] & 0xF) | (packed[j - 4] >> 6) << 4),
          static_cast<float>(packed[j + 4] >> 4 | (packed[j] >> 6) << 4)};
}

void decode_q4_k(Bytes block, float* y) {
  const float d = half_at(block, 0);
  const float dmin = half_at(block, 2);
  Bytes q = block + 16;
  for (int j = 0; j < 4; ++j, q += 32, y += 64) {
    const ScaleMin first = scale_min(block + 4, 2 * j);
    const ScaleMin second = scale_min(block + 4, 2 * j + 1);
    const float d1 = d * first.scale, m1 = dmin * first.minimum;
    const float d2 = d * second.scale, m2 = dmin * second.minimum;
    for (std::size_t i = 0; i < 32; ++i) y[i] = d1 * static_cast<float>(low(q[i])) - m1;
    for (std::size_t i = 0; i < 32; ++i) y[i + 32] = d2 * static_cast<float>(high(q[i])) - m2;
  }
}

void decode_q5_k(Bytes block, float* y) {
  const float d = half_at(block, 0);
  const float dmin = half_at(block, 2);
  Bytes fifth = block + 16;
  Bytes q = block + 48;
  for (int j = 0; j < 4; ++j, q += 32, y += 64) {
    const ScaleMin first = scale_min(block + 4, 2 * j);
    const ScaleMin second = scale_min(block + 4, 2 * j + 1);
    const float d1 = d * first.scale, m1 = dmin * first.minimum;
    const float d2 = d * second.scale, m2 = dmin * second.minimum;
    for (std::size_t i = 0; i < 32; ++i) {
      y[i] = d1 * static_cast<float>(low(q[i]) + ((fifth[i] >> (2 * j) & 1) != 0 ? 16 : 0)) - m1;
      y[i + 32] = d2 * static_cast<float>(high(q[i]) + ((fifth[i] >> (2 * j + 1) & 1) != 0 ? 16 : 0)) - m2;
    }
  }
}

void decode_q6_k(Bytes block, float* y) {
  const float d = half_at(block, 208);
  Bytes ql = block;
  Bytes qh = block + 128;
  Bytes scales = block + 192;
  for (int half = 0; half < 2; ++half, ql += 64, qh += 32, scales += 8, y += 128) {
    for (std::size_t i = 0; i < 32; ++i) {
      const int values[4] = {low(ql[i]) | (qh[i] & 3) << 4, low(ql[i + 32]) | (qh[i] >> 2 & 3) << 4,
                             high(ql[i]) | (qh[i] >> 4 & 3) << 4, high(ql[i + 32]) | (qh[i] >> 6 & 3) << 4};
      for (std::size_t part = 0; part < 4; ++part) {
        const auto scale = static_cast<float>(static_cast<std::int8_t>(scales[i / 16 + 2 * part]));
        y[i + 32 * part] = d * scale * static_cast<float>(values[part] - 32);
      }
    }
  }
}

template <typename Decode>
void decode_blocks(DType dtype, const std::byte* source, std::span<float> values, Decode decode) {
  const DTypeInfo& layout = info(dtype);
  const auto* block = reinterpret_cast<Bytes>(source);
  const auto count = static_cast<std::size_t>(layout.block_elements);
  for (std::size_t i = 0; i < values.size(); i += count, block += layout.block_bytes) decode(block, values.data() + i);
}

// The value of largest magnitude, with its sign: what ggml scales the symmetric formats by.
float extreme(const float* x) {
  float most = 0;
  float result = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    if (std::abs(x[i]) > most) {
      most = std::abs(x[i]);
      result = x[i];
    }
  }
  return result;
}

void encode_q8_0(const float* x, std::uint8_t* block) {
  const float d = std::abs(extreme(x)) / 127.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  for (std::size_t i = 0; i < 32; ++i) {
    block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x[i] * inverse)));
  }
}

// Truncation after adding half (and the offset) is how ggml rounds here.
int quantised(float value, float offset, int most) {
  return std::min(most, static_cast<int>(value + offset));
}

void encode_q4_0(const float* x, std::uint8_t* block) {
  const float d = extreme(x) / -8.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  for (std::size_t i = 0; i < 16; ++i) {
    block[2 + i] =
        static_cast<std::uint8_t>(quantised(x[i] * inverse, 8.5F, 15) | quantised(x[i + 16] * inverse, 8.5F, 15) << 4);
  }
}

void encode_q5_0(const float* x, std::uint8_t* block) {
  const float d = extreme(x) / -16.0F;
  const float inverse = d != 0 ? 1.0F / d : 0.0F;
  put_half(block, 0, d);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    const int first = quantised(x[i] * inverse, 16.5F, 31);
    const int second = quantised(x[i + 16] * inverse, 16.5F, 31);
    block[6 + i] = static_cast<std::uint8_t>((first & 0xF) | (second & 0xF) << 4);
    bits |= static_cast<std::uint32_t>(first >> 4) << i | static_cast<std::uint32_t>(second >> 4) << (i + 16);
  }
  std::memcpy(block + 2, &bits, 4);
}

struct Range {
  float least;
  float step;
  float inverse;
};
Range range_of(const float* x, float levels) {
  const auto [least, most] = std::minmax_element(x, x + 32);
  const float step = (*most - *least) / levels;
  return {*least, step, step != 0 ? 1.0F / step : 0.0F};
}

void encode_q4_1(const float* x, std::uint8_t* block) {
  const Range range = range_of(x, 15.0F);
  put_half(block, 0, range.step);
  put_half(block, 2, range.least);
  for (std::size_t i = 0; i < 16; ++i) {
    block[4 + i] = static_cast<std::uint8_t>(quantised((x[i] - range.least) * range.inverse, 0.5F, 15) |
                                             quantised((x[i + 16] - range.least) * range.inverse, 0.5F, 15) << 4);
  }
}

void encode_q5_1(const float* x, std::uint8_t* block) {
  const Range range = range_of(x, 31.0F);
  put_half(block, 0, range.step);
  put_half(block, 2, range.least);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    const int first = quantised((x[i] - range.least) * range.inverse, 0.5F, 31);
    const int second = quantised((x[i + 16] - range.least) * range.inverse, 0.5F, 31);
    block[8 + i] = static_cast<std::uint8_t>((first & 0xF) | (second & 0xF) << 4);
    bits |= static_cast<std::uint32_t>(first >> 4) << i | static_cast<std::uint32_t>(second >> 4) << (i + 16);
  }
  std::memcpy(block + 4, &bits, 4);
}

template <typename Encode>
void encode_blocks(DType dtype, std::span<const float> values, std::byte* target, Encode encode) {
  const DTypeInfo& layout = info(dtype);
  auto* block = reinterpret_cast<std::uint8_t*>(target);
  const auto count = static_cast<std::size_t>(layout.block_elements);
  INSTRUCT_CHECK(values.size() % count == 0);
  for (std::size_t i = 0; i < values.size(); i += count, block += layout.block_bytes) encode(values.data() + i, block);
}

}  // namespace

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
    case DType::kQ8_0:
      return decode_blocks(dtype, source, values, decode_q8_0);
    case DType::kQ4_0:
      return decode_blocks(dtype, source, values, decode_q4_0);
    case DType::kQ4_1:
      return decode_blocks(dtype, source, values, decode_q4_1);
    case DType::kQ5_0:
      return decode_blocks(dtype, source, values, decode_q5_0);
    case DType::kQ5_1:
      return decode_blocks(dtype, source, values, decode_q5_1);
    case DType::kQ4_K:
      return decode_blocks(dtype, source, values, decode_q4_k);
    case DType::kQ5_K:
      return decode_blocks(dtype, source, values, decode_q5_k);
    case DType::kQ6_K:
      return decode_blocks(dtype, source, values, decode_q6_k);
    default:
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
    case DType::kQ8_0:
      return encode_blocks(dtype, values, target, encode_q8_0);
    case DType::kQ4_0:
      return encode_blocks(dtype, values, target, encode_q4_0);
    case DType::kQ4_1:
      return encode_blocks(dtype, values, target, encode_q4_1);
    case DType::kQ5_0:
      return encode_blocks(dtype, values, target, encode_q5_0);
    case DType::kQ5_1:
      return encode_blocks(dtype, values, target, encode_q5_1);
    default:
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
