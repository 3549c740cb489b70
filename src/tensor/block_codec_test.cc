// The block encodings against the official gguf package (tests/goldens/tensor/make.py), to the bit.
#include "tensor/block_codec.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "base/json.h"

namespace instruct::tensor {
namespace {

const Value& golden() {
  static const Value value = parse_json(read_file(INSTRUCT_GOLDENS "/tensor/blocks.json"), "blocks.json");
  return value;
}

std::vector<std::byte> bytes_from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::vector<float> floats_from_hex(const std::string& hex) {
  const std::vector<std::byte> bytes = bytes_from_hex(hex);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

DType dtype_of(const std::string& name) {
  return dtype_from_name(name).value();
}

TEST(BlockCodec, DecodesAsTheOfficialPackage) {
  EXPECT_EQ(golden().at("decode").size(), 13U);
  for (const auto& [name, sample] : golden().at("decode").as_object()) {
    const std::vector<std::byte> blocks = bytes_from_hex(sample.at("blocks").as_string());
    const std::vector<float> expected = floats_from_hex(sample.at("values").as_string());
    ASSERT_EQ(static_cast<std::int64_t>(blocks.size()),
              bytes_of(dtype_of(name), static_cast<std::int64_t>(expected.size())));
    std::vector<float> values(expected.size());
    decode_elements(dtype_of(name), blocks.data(), values);
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], expected[i]) << name << " element " << i;
  }
}

TEST(BlockCodec, EncodesAsTheOfficialPackage) {
  EXPECT_EQ(golden().at("encode").size(), 5U);
  const std::vector<float> values = floats_from_hex(golden().at("values").as_string());
  for (const auto& [name, hex] : golden().at("encode").as_object()) {
    const DType dtype = dtype_of(name);
    const std::vector<std::byte> expected = bytes_from_hex(hex.as_string());
    std::vector<std::byte> encoded(expected.size());
    ASSERT_EQ(static_cast<std::int64_t>(encoded.size()), bytes_of(dtype, static_cast<std::int64_t>(values.size())));
    encode_elements(dtype, values, encoded.data());
    const auto block = static_cast<std::size_t>(info(dtype).block_bytes);
    for (std::size_t i = 0; i < encoded.size(); ++i)
      EXPECT_EQ(encoded[i], expected[i]) << name << " block " << i / block << " byte " << i % block;
  }
}

}  // namespace
}  // namespace instruct::tensor
