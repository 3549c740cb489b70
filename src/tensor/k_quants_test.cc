// K-quants against ggml's quantiser (tests/goldens/tensor/k_quants.py): as close to the values, or closer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/file.h"
#include "base/json.h"
#include "tensor/block_codec.h"

namespace instruct::tensor {
namespace {

constexpr DType kTypes[] = {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<float> there_and_back(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> blocks(static_cast<std::size_t>(bytes_of(dtype, static_cast<std::int64_t>(values.size()))));
  encode_elements(dtype, values, blocks.data());
  std::vector<float> decoded(values.size());
  decode_elements(dtype, blocks.data(), decoded);
  return decoded;
}

// Sum of squared differences of each block of 256.
std::vector<double> errors(DType dtype, const std::vector<float>& values) {
  const std::vector<float> decoded = there_and_back(dtype, values);
  std::vector<double> result(values.size() / 256);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = static_cast<double>(decoded[i]) - static_cast<double>(values[i]);
    result[i / 256] += difference * difference;
  }
  return result;
}

TEST(KQuants, AreAsCloseAsThoseOfGgml) {
  const Value golden = parse_json(read_file(INSTRUCT_GOLDENS "/tensor/k_quants.json"), "k_quants.json");
  const std::string& hex = golden.at("values").as_string();
  std::vector<float> values(hex.size() / 8);
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  ASSERT_EQ(golden.at("errors").size(), std::size(kTypes));
  for (const auto& [name, theirs] : golden.at("errors").as_object()) {
    const std::vector<double> ours = errors(dtype_from_name(name).value(), values);
    ASSERT_EQ(theirs.size(), ours.size());
    double ratios = 0;
    int counted = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const double expected = theirs.as_array()[i].as_double();
      // What a half-precision scale of 11 bits alone may cost.
      double squares = 0;
      for (std::size_t j = 0; j < 256; ++j) squares += std::pow(static_cast<double>(values[256 * i + j]), 2);
      if (expected <= squares * 0x1p-22) {
        EXPECT_LE(ours[i], squares * 0x1p-22) << name << " block " << i;
        continue;
      }
      EXPECT_LE(ours[i], expected * 1.1) << name << " block " << i;
      ratios += std::log(ours[i] / expected);
      ++counted;
    }
    EXPECT_LT(ratios / counted, 0) << name;
    EXPECT_GE(counted, 11) << name;
  }
}

// Normal values: the share of their root mean square that the error of the best scale for 2 to 6 bits is (a uniform
// quantiser with as many levels, Max 1960, loses 0.345, 0.194, 0.107, 0.059 and 0.032; groups with a scale of their own
// lose less).
TEST(KQuants, ErrorsHaveTheSizeOfTheirBits) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(256 * 64);
  for (float& value : values) value = normal(random);
  constexpr double kMost[] = {0.30, 0.16, 0.075, 0.037, 0.019};
  for (std::size_t t = 0; t < std::size(kTypes); ++t) {
    double sum = 0;
    for (const double error : errors(kTypes[t], values)) sum += error;
    EXPECT_LT(std::sqrt(sum / static_cast<double>(values.size())), kMost[t]) << info(kTypes[t]).name;
    EXPECT_GT(std::sqrt(sum / static_cast<double>(values.size())), kMost[t] / 1.3) << info(kTypes[t]).name;
  }
}

// Whatever the values, blocks decode to finite ones, zeros to zeros, and the largest not far above itself.
TEST(KQuants, HoldAnyFiniteValues) {
  for (const DType dtype : kTypes) {
    EXPECT_EQ(there_and_back(dtype, std::vector<float>(256)), std::vector<float>(256)) << info(dtype).name;
    for (const float scale : {65504.0F, 1e-30F, 1e-40F, 1.0F}) {
      std::vector<float> values(256);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = i % 3 == 0 ? -scale : i % 5 == 0 ? scale : 0;
      for (const float value : there_and_back(dtype, values)) EXPECT_LE(std::abs(value), scale * 1.2F) << scale;
      for (std::size_t i = 32; i < values.size(); ++i) values[i] = 0;
      for (const float value : there_and_back(dtype, values)) EXPECT_LE(std::abs(value), scale * 1.2F) << scale;
    }
  }
}

// What lies on the grid of one type already is found again: encoding twice loses next to nothing more.
TEST(KQuants, AGridIsFoundAgain) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> values(256 * 16);
  for (float& value : values) value = normal(random);
  for (const DType dtype : kTypes) {
    const std::vector<float> once = there_and_back(dtype, values);
    double first = 0, second = 0;
    for (const double error : errors(dtype, values)) first += error;
    for (const double error : errors(dtype, once)) second += error;
    EXPECT_LT(second, first * 0.25) << info(dtype).name;
  }
}

}  // namespace
}  // namespace instruct::tensor
