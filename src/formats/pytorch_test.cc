// Files of torch.save (tests/goldens/pytorch/make.py), whole and damaged.
#include "formats/pytorch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/json.h"

namespace instruct::formats {
namespace {

using ::testing::HasSubstr;

std::string golden(const std::string& name) {
  return INSTRUCT_GOLDENS "/pytorch/" + name;
}

std::string message_of(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  try {
    const auto file = PytorchFile::parse(std::as_bytes(std::span(*owner)), "m.bin", owner);
    for (const std::string& name : file->names()) file->tensor(name);
    return "";
  } catch (const Error& error) {
    return fmt::format("{}: {}", category_name(error.category()), error.what());
  }
}

TEST(Pytorch, TensorsAreThoseThatWereSaved) {
  const auto file = PytorchFile::open(golden("tensors.bin"));
  const Value expected = parse_json(read_file(golden("tensors.json")), "tensors.json");
  EXPECT_EQ(file->names().size(), expected.size() + 1);
  for (const auto& [name, sample] : expected.as_object()) {
    const tensor::Tensor tensor = file->tensor(name);
    std::vector<std::int64_t> shape;
    for (const Value& size : sample.at("shape").as_array()) shape.push_back(size.as_integer());
    if (shape.empty()) shape.push_back(1);
    ASSERT_EQ(tensor.shape(), tensor::Shape(std::span<const std::int64_t>(shape))) << name;
    const Value::Array& values = sample.at("values").as_array();
    ASSERT_EQ(tensor.elements(), static_cast<std::int64_t>(values.size())) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      double got = 0;
      switch (tensor.dtype()) {
        case tensor::DType::kI64:
          got = static_cast<double>(tensor.data<std::int64_t>()[i]);
          break;
        case tensor::DType::kI32:
          got = tensor.data<std::int32_t>()[i];
          break;
        case tensor::DType::kU8:
          got = tensor.data<std::uint8_t>()[i];
          break;
        default:
          got = static_cast<double>(tensor.to_floats()[i]);
      }
      EXPECT_EQ(got, values[i].as_double()) << name << " " << i;
    }
  }
  EXPECT_THROW(file->tensor("f64"), Error);
  EXPECT_THROW(file->tensor("nothing"), Error);
}

TEST(Pytorch, NothingIsExecuted) {
  const std::filesystem::path trace = "/tmp/instruct-was-here";
  std::filesystem::remove(trace);
  EXPECT_THAT(message_of(read_file(golden("evil.bin"))), HasSubstr("unsupported: m.bin: byte"));
  EXPECT_THAT(message_of(read_file(golden("evil.bin"))), HasSubstr("names 'posix.system'"));
  EXPECT_FALSE(std::filesystem::exists(trace));
}

TEST(Pytorch, WhatIsNoDictOfTensorsIsNamed) {
  EXPECT_THAT(message_of(read_file(golden("checkpoint.bin"))), HasSubstr("item 0 ('epoch') is no tensor"));
  EXPECT_THAT(message_of(read_file(golden("list.bin"))), HasSubstr("holds no dict of tensors"));
  EXPECT_THAT(message_of(read_file(golden("legacy.bin"))), HasSubstr("written by PyTorch before 1.6"));
  EXPECT_THAT(message_of(""), HasSubstr("bad data: m.bin: byte 0: no ZIP archive"));
}

// Every way to cut a file off, and each byte of its headers and its pickle changed.
TEST(Pytorch, DamageIsAnErrorOfTheReader) {
  const std::string whole = read_file(golden("tensors.bin"));
  ASSERT_EQ(message_of(whole),
            "unsupported: m.bin: tensor 'f64' is of DoubleStorage, which this program cannot compute with");
  for (std::size_t length = 0; length < whole.size(); length += 7) EXPECT_NE(message_of(whole.substr(0, length)), "");
  std::size_t refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      if (message_of(damaged).starts_with("bad data")) ++refused;
    }
  }
  EXPECT_GT(refused, 500U);
}

}  // namespace
}  // namespace instruct::formats
