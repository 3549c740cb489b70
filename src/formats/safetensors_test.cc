#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "base/error.h"

namespace instruct::formats {
namespace {

namespace fs = std::filesystem;
using tensor::DType;
using tensor::Tensor;
using ::testing::HasSubstr;

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\1');
}

std::shared_ptr<const SafetensorsFile> parse(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return SafetensorsFile::parse(std::as_bytes(std::span(*owner)), "m.safetensors", owner);
}

std::string error_of(const std::string& bytes) {
  try {
    const auto file = parse(bytes);
    for (const std::string& name : file->names()) static_cast<void>(file->tensor(name));
  } catch (const Error& error) {
    return fmt::format("{}: {}", category_name(error.category()), error.what());
  }
  return "no error";
}

class SafetensorsFiles : public ::testing::Test {
 protected:
  SafetensorsFiles() { fs::create_directories(folder_); }
  ~SafetensorsFiles() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / fmt::format("instruct-safetensors-{}", ::getpid());
  std::shared_ptr<tensor::Allocator> allocator_ = tensor::make_host_allocator();
};

TEST_F(SafetensorsFiles, WhatIsWrittenIsRead) {
  const std::vector<float> values{1, -2, 3.5F, 0, 5, 6};
  const auto zeros = [&](DType dtype, const tensor::Shape& shape) {
    return [this, dtype, shape] { return Tensor::zeros(shape, dtype, *allocator_); };
  };
  write_safetensors(folder_ / "m.safetensors",
                    {{"half", {3}, DType::kF16, zeros(DType::kF16, {3})},
                     {"matrix",
                      {2, 3},
                      DType::kF32,
                      [&] {
                        return Tensor::from_floats(values, {2, 3}, *allocator_);
                      }},
                     {"none", {0, 4}, DType::kBF16, zeros(DType::kBF16, {0, 4})},
                     {"\"quoted\" \xC3\xBC", {1}, DType::kI64, zeros(DType::kI64, {1})}},
                    Value::object({{"format", "pt"}}));
  const auto file = SafetensorsFile::open(folder_ / "m.safetensors");
  EXPECT_EQ(file->names(), (std::vector<std::string>{"\"quoted\" \xC3\xBC", "half", "matrix", "none"}));
  // "half" leaves the matrix at byte 6: it is read all the same.
  EXPECT_EQ(file->tensor("matrix").to_floats(), values);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->tensor("matrix").raw()) % 4, 0U);
  EXPECT_EQ(file->tensor("half").dtype(), DType::kF16);
  EXPECT_EQ(file->tensor("none").shape(), (tensor::Shape{0, 4}));
  EXPECT_EQ(file->metadata().at("format").as_string(), "pt");
}

TEST_F(SafetensorsFiles, AFileCutAnywhereIsRefused) {
  write_safetensors(folder_ / "m.safetensors",
                    {{"t",
                      {2, 2},
                      DType::kF32,
                      [&] {
                        return Tensor::zeros({2, 2}, DType::kF32, *allocator_);
                      }}},
                    {});
  const std::string whole = read_file(folder_ / "m.safetensors");
  ASSERT_NO_THROW(parse(whole));
  for (std::size_t length = 0; length < whole.size(); ++length)
    EXPECT_THAT(error_of(whole.substr(0, length)), HasSubstr("bad data: m.safetensors")) << length;
}

// The limit on a file's size stands for a full disk: the system refuses the write in the same place.
TEST_F(SafetensorsFiles, AFullDiskNamesTheFileAndLeavesTheOldOne) {
  write_file_atomic(folder_ / "m.safetensors", "old");
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{1000, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message = "no error";
  try {
    write_safetensors(folder_ / "m.safetensors",
                      {{"t", {1000}, DType::kF32, [&] { return Tensor::zeros({1000}, DType::kF32, *allocator_); }}},
                      {});
  } catch (const Error& error) {
    message = error.what();
    EXPECT_EQ(error.category(), ErrorCategory::kIo);
  }
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, previous);
  EXPECT_THAT(message, HasSubstr("m.safetensors': File too large"));
  EXPECT_EQ(read_file(folder_ / "m.safetensors"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST(Safetensors, ATypeOfOthersIsNamedWhenAskedFor) {
  const auto file = parse(file_of(R"({"t": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}})", 8));
  try {
    static_cast<void>(file->tensor("t"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), ErrorCategory::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("m.safetensors: tensor 't' has type F64"));
  }
}

TEST(Safetensors, HostileFilesAreRefusedWithTheirTensor) {
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return fmt::format(R"({{"dtype": "{}", "shape": {}, "data_offsets": {}}})", dtype, shape, offsets);
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return file_of("{\"t\": " + tensor(dtype, shape, offsets) + "}", 16);
  };
  const auto two = [&](const std::string& first, const std::string& second) {
    return file_of(fmt::format(R"({{"s": {}, "t": {}}})", tensor("U8", "[8]", first), tensor("U8", "[8]", second)), 16);
  };
  std::string huge = file_of("{}", 0);
  huge[7] = '\x7F';
  const std::vector<std::array<std::string, 2>> cases{
      {std::string(), "byte 0: not a safetensors file"},
      {huge, "byte 0: not a safetensors file, or truncated: a header of 9151314442816847874 bytes in a file of 10"},
      {file_of("[1]", 0), "the header is no JSON object"},
      {file_of("{\"t\"", 0), "m.safetensors (header)"},
      {file_of("{\"\xFF\": 1}", 0), "UTF-8"},
      {file_of(R"({"__metadata__": 3})", 0), "'__metadata__': expected an object, got integer"},
      {file_of(R"({"t": 3})", 0), "tensor 't': expected an object with dtype, shape and data_offsets"},
      {file_of(R"({"t": {"shape": [1], "data_offsets": [0, 1]}})", 1), "tensor 't': "},
      {file_of(R"({"t": {"dtype": 5, "shape": [1], "data_offsets": [0, 1]}})", 1), "expected string, got integer"},
      {one("F32", "4", "[0, 16]"), "expected array, got integer"},
      {one("F32", "[\"4\"]", "[0, 16]"), "expected integer, got string"},
      {one("F32", "[1.5]", "[0, 16]"), "expected integer, got float"},
      {one("F32", "[-4]", "[0, 16]"), "dimension -4 is out of range"},
      {one("F32", "[9223372036854775807]", "[0, 16]"), "dimension 9223372036854775807 is out of range"},
      {one("U8", "[4294967296, 4294967296]", "[0, 16]"), "is out of range"},
      {one("U8", "[0, 4294967296, 4294967296]", "[0, 0]"), "is out of range"},
      {one("U8", "[1, 1, 1, 1, 16]", "[0, 16]"), "has 5 dimensions, at most 4"},
      {one("F32", "[4]", "[0]"), "data_offsets: expected 2 numbers, got 1"},
      {one("F32", "[4]", "[0, 17]"), "17 bytes for F32 [4], expected 16"},
      {one("F32", "[4]", "[-1, 15]"), "data_offsets -1 to 15 are no range"},
      {one("F32", "[4]", "[16, 0]"), "data_offsets 16 to 0 are no range"},
      {file_of("{\"t\": " + tensor("F32", "[4]", "[0, 16]") + "}", 12),
       "has 82 bytes, its header describes 86: it is truncated; was the download complete?"},
      {one("U8", "[9223372036854775807]", "[0, 9223372036854775807]"), "its header describes 9223372036854775"},
      {one("F32", "[3]", "[0, 16]"), "16 bytes for F32 [3], expected 12"},
      {two("[0, 8]", "[4, 12]"), "tensor 't' begins at data byte 4, expected 8: tensors overlap"},
      {two("[0, 8]", "[0, 8]"), "tensors overlap"},
      {file_of("{\"t\": " + tensor("U8", "[8]", "[8, 16]") + "}", 16),
       "begins at data byte 8, expected 0: there is a hole"},
      {file_of("{\"t\": " + tensor("U8", "[8]", "[0, 8]") + "}", 16),
       "the tensors end at data byte 8, the file has 16"},
      {file_of(fmt::format(R"({{"t": {0}, "t": {0}}})", tensor("U8", "[8]", "[0, 8]")), 8), "m.safetensors (header)"},
  };
  for (const auto& [bytes, message] : cases) {
    EXPECT_THAT(error_of(bytes), HasSubstr("bad data: m.safetensors"));
    EXPECT_THAT(error_of(bytes), HasSubstr(message));
  }
  // A dtype of later versions is nothing damaged.
  EXPECT_THAT(error_of(one("F33", "[4]", "[0, 16]")),
              HasSubstr("unsupported: m.safetensors: tensor 't': unknown dtype 'F33'"));
  EXPECT_EQ(error_of(file_of(R"({"__metadata__": null})", 0)), "no error");  // as mlx writes it
  EXPECT_EQ(error_of(two("[8, 16]", "[0, 8]")), "no error");                 // the order in the header is free
  EXPECT_EQ(error_of(file_of("{}", 0)), "no error");
}

}  // namespace
}  // namespace instruct::formats
