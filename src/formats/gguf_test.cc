#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/cancel.h"
#include "base/error.h"

namespace instruct::formats {
namespace {

namespace fs = std::filesystem;
using tensor::DType;
using tensor::Tensor;
using ::testing::HasSubstr;

// A GGUF file put together byte by byte, so that it can lie.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& u32(std::uint32_t value) { return put(value); }
  Bytes& u64(std::uint64_t value) { return put(value); }
  Bytes& text(const std::string& value) {
    u64(value.size());
    text_ += value;
    return *this;
  }
  Bytes& head(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    text_ += "GGUF";
    return u32(version).u64(tensors).u64(keys);
  }
  Bytes& key(const std::string& name, std::uint32_t type) { return text(name).u32(type); }
  Bytes& tensor(const std::string& name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
                std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  // Up to the data section, then `bytes` of data.
  Bytes& data(std::size_t bytes) {
    text_.resize((text_.size() + 31) / 32 * 32 + bytes, '\0');
    return *this;
  }
  const std::string& str() const { return text_; }

 private:
  std::string text_;
};

std::shared_ptr<const GgufFile> parse(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return GgufFile::parse(std::as_bytes(std::span(*owner)), "m.gguf", owner);
}

std::string error_of(const std::string& bytes, ErrorCategory expected = ErrorCategory::kBadData) {
  try {
    const auto file = parse(bytes);
    for (const GgufTensorInfo& info : file->tensors()) static_cast<void>(file->tensor(info.name));
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), expected) << error.what();
    return error.what();
  }
  return "no error";
}

constexpr std::uint64_t kHuge = ~std::uint64_t{0};

// Every value kind, and tensors of a plain and of a block type.
std::string small_file(const fs::path& path) {
  const auto allocator = tensor::make_host_allocator();
  GgufWriter writer;
  writer.set("general.architecture", std::string("llama"));
  writer.set("a.bool", true);
  writer.set("a.count", std::uint32_t{7});
  writer.set("a.number", 0.5F);
  writer.set("a.texts", std::vector<std::string>{"x", "", "\xE2\x96\x81y"});
  writer.set("a.ids", std::vector<std::int32_t>{-1, 2});
  writer.set("a.scores", std::vector<float>{1.5F});
  writer.set("a.count", std::uint32_t{8});  // the last one counts
  writer.add("matrix", {2, 3}, DType::kF32, [&] {
    return Tensor::from_floats(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3}, *allocator);
  });
  writer.add("blocks", {1, 32}, DType::kQ8_0, [&] { return Tensor::zeros({1, 32}, DType::kQ8_0, *allocator); });
  writer.write(path);
  return read_file(path);
}

class GgufFiles : public ::testing::Test {
 protected:
  GgufFiles() { fs::create_directories(folder_); }
  ~GgufFiles() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / fmt::format("instruct-gguf-{}", ::getpid());
};

TEST_F(GgufFiles, WhatIsWrittenIsRead) {
  small_file(folder_ / "m.gguf");
  const auto file = GgufFile::open(folder_ / "m.gguf");
  EXPECT_EQ(file->text("general.architecture"), "llama");
  EXPECT_TRUE(file->boolean_or("a.bool", false));
  EXPECT_EQ(file->integer("a.count"), 8);
  EXPECT_EQ(file->number("a.number"), 0.5);
  EXPECT_EQ(file->number("a.count"), 8.0);
  EXPECT_EQ(file->texts("a.texts"), (std::vector<std::string_view>{"x", "", "\xE2\x96\x81y"}));
  EXPECT_EQ(file->integers_or_empty("a.ids"), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(file->numbers_or_empty("a.scores"), (std::vector<double>{1.5}));
  EXPECT_EQ(file->metadata().size(), 7U);
  const Tensor matrix = file->tensor("matrix");
  EXPECT_EQ(matrix.shape(), (tensor::Shape{2, 3}));
  EXPECT_EQ(matrix.to_floats(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(file->tensor("blocks").dtype(), DType::kQ8_0);
  for (const GgufTensorInfo& info : file->tensors()) EXPECT_EQ(info.offset % 32, 0U);
}

TEST_F(GgufFiles, AFileCutAnywhereIsRefused) {
  const std::string whole = small_file(folder_ / "m.gguf");
  ASSERT_NO_THROW(parse(whole));
  // The last 30 bytes only pad the last tensor (34 bytes) to the alignment.
  for (std::size_t length = 0; length + 30 < whole.size(); ++length) {
    EXPECT_THAT(error_of(whole.substr(0, length)), HasSubstr("m.gguf: ")) << length;
  }
}

TEST_F(GgufFiles, NothingIsLeftOfAnUnfinishedFile) {
  GgufWriter writer;
  writer.add("t", {4}, DType::kF32, []() -> Tensor { raise(ErrorCategory::kNumeric, "halfway"); });
  EXPECT_THROW(writer.write(folder_ / "m.gguf"), Error);
  EXPECT_TRUE(fs::is_empty(folder_));
  request_cancel();
  EXPECT_THROW(writer.write(folder_ / "m.gguf"), Error);
  clear_cancel();
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST(Gguf, AccessSaysWhatIsWrong) {
  const auto file = parse(Bytes().head(0, 1).key("n", 8).text("x").str());
  const auto message = [](auto access) -> std::string {
    try {
      access();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message([&] { file->integer("n"); }), "m.gguf: key 'n': expected an integer");
  EXPECT_EQ(message([&] { file->number("n"); }), "m.gguf: key 'n': expected a number");
  EXPECT_EQ(message([&] { file->texts("n"); }), "m.gguf: key 'n': expected an array of texts");
  EXPECT_EQ(message([&] { file->text("k"); }), "m.gguf: key 'k' is missing");
  EXPECT_EQ(message([&] { file->tensor("t"); }), "m.gguf: tensor 't' is missing");
}

TEST(Gguf, EveryIntegerWidthIsRead) {
  Bytes bytes;
  bytes.head(0, 9);
  bytes.key("u8", 0).put<std::uint8_t>(255).key("i8", 1).put<std::int8_t>(-1).key("u16", 2).put<std::uint16_t>(65535);
  bytes.key("i16", 3).put<std::int16_t>(-2).key("i32", 5).put<std::int32_t>(-3).key("u64", 10).u64(1ULL << 62);
  bytes.key("i64", 11).put<std::int64_t>(-4).key("f64", 12).put(0.1).key("bools", 9).u32(7).u64(2).put('\1').put('\0');
  const auto file = parse(bytes.str());
  EXPECT_EQ(file->integer("u8"), 255);
  EXPECT_EQ(file->integer("i8"), -1);
  EXPECT_EQ(file->integer("u16"), 65535);
  EXPECT_EQ(file->integer("i16"), -2);
  EXPECT_EQ(file->integer("i32"), -3);
  EXPECT_EQ(file->integer("u64"), std::int64_t{1} << 62);
  EXPECT_EQ(file->integer("i64"), -4);
  EXPECT_EQ(file->number("f64"), 0.1);
  EXPECT_EQ(file->integers_or_empty("bools"), (std::vector<std::int64_t>{1, 0}));
}

struct Hostile {
  const char* what;
  std::string bytes;
  const char* message;
  ErrorCategory category = ErrorCategory::kBadData;
};

TEST(Gguf, HostileFilesAreRefusedWithTheirPlace) {
  const auto one = [](const std::vector<std::uint64_t>& dims, std::uint32_t type, std::uint64_t offset) {
    return Bytes().head(1, 0).tensor("t", dims, type, offset).data(64).str();
  };
  const auto two = [](std::uint64_t first, std::uint64_t second) {
    return Bytes().head(2, 0).tensor("s", {16}, 0, first).tensor("t", {16}, 0, second).data(128).str();
  };
  const auto aligned_to = [](std::uint32_t alignment) {
    return Bytes().head(0, 1).key("general.alignment", 4).u32(alignment).str();
  };
  const std::vector<Hostile> cases{
      {"empty", "", "the file is empty"},
      {"wrong magic", "GGML" + std::string(40, '\0'), "does not start with 'GGUF'"},
      {"version 1", Bytes().head(0, 0, 1).str(), "versions 2 and 3", ErrorCategory::kUnsupported},
      {"version 4", Bytes().head(0, 0, 4).str(), "GGUF version 4", ErrorCategory::kUnsupported},
      {"big endian", Bytes().head(0, 0, 3U << 24).str(), "big-endian", ErrorCategory::kUnsupported},
      {"tensor count", Bytes().head(kHuge, 0).str(), "byte 16: tensor count: expected at most 0"},
      {"key count", Bytes().head(0, kHuge).str(), "byte 24: key count: expected at most 0"},
      {"key length", Bytes().head(0, 1).u64(kHuge).u64(0).str(), "byte 32: key: expected a text of at most 8 bytes"},
      {"value length", Bytes().head(0, 1).key("k", 8).u64(kHuge - 7).str(), "value of 'k': expected a text of"},
      {"value type", Bytes().head(0, 1).key("k", 13).u64(0).str(), "a metadata type from 0 to 12, got 13"},
      {"u64 above i64", Bytes().head(0, 1).key("k", 10).u64(kHuge).str(), "a value below 2^63"},
      {"array of arrays", Bytes().head(0, 1).key("k", 9).u32(9).u64(1).u64(0).str(), "element type 9"},
      {"array of nothing known", Bytes().head(0, 1).key("k", 9).u32(77).u64(0).str(), "element type 77"},
      {"array length", Bytes().head(0, 1).key("k", 9).u32(10).u64(kHuge / 8 + 2).u64(0).str(), "expected at most 1"},
      {"text array length", Bytes().head(0, 1).key("k", 9).u32(8).u64(1U << 30).u64(0).str(), "expected at most 1"},
      {"array above any use",
       Bytes().head(0, 1).key("k", 9).u32(0).u64((1U << 24) + 1).str() + std::string((1U << 24) + 1, '\0'),
       "at most 16777216 elements, got 16777217"},
      {"key twice", Bytes().head(0, 2).key("k", 4).u32(1).key("k", 4).u32(2).str(), "key 'k': expected each key once"},
      {"tensor twice", Bytes().head(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).data(64).str(),
       "tensor 't': expected each name once"},
      {"no dimensions", one({}, 0, 0), "tensor 't': expected 1 to 4 dimensions, got 0"},
      {"five dimensions", one({1, 1, 1, 1, 1}, 0, 0), "1 to 4 dimensions, got 5"},
      {"dimension 0", one({4, 0}, 0, 0), "tensor 't': expected dimensions"},
      {"dimension 2^63", one({1ULL << 63}, 0, 0), "tensor 't': expected dimensions"},
      {"product 2^80", one({1ULL << 40, 1ULL << 40}, 0, 0), "product is below 2^46"},
      {"product 2^64", one({1U << 16, 1U << 16, 1U << 16, 1U << 16}, 0, 0), "product is below 2^46"},
      {"half a block", one({16}, 8, 0), "rows of a multiple of 32 elements, got 16"},
      {"unknown type", one({1}, 99, 0), "tensor 't' has ggml type 99", ErrorCategory::kUnsupported},
      {"past the end", one({17}, 0, 0), "tensor 't' needs 68 bytes from byte 0 of the data section, which has 64"},
      {"offset past the end", one({1}, 0, 1ULL << 40), "tensor 't' needs 4 bytes from byte 1099511627776"},
      {"offset that wraps", one({16}, 0, kHuge - 31), "is the file truncated?"},
      {"unaligned", one({1}, 0, 8), "tensor 't': expected an offset that is a multiple of 32, got 8"},
      {"same bytes", two(0, 0), "tensors 's' and 't' overlap at byte 0"},
      {"overlap", two(32, 0), "tensors 't' and 's' overlap at byte 32"},
      {"alignment 0", aligned_to(0), "general.alignment is 0, expected a power of two"},
      {"alignment 1", aligned_to(1), "general.alignment is 1"},
      {"alignment 48", aligned_to(48), "general.alignment is 48"},
      {"alignment 2^31", aligned_to(1U << 31), "general.alignment is 2147483648"},
      {"alignment as text", Bytes().head(0, 1).key("general.alignment", 8).text("32").str(), "expected an integer"},
  };
  for (const Hostile& hostile : cases) {
    const std::string message = error_of(hostile.bytes, hostile.category);
    EXPECT_THAT(message, HasSubstr(hostile.message)) << hostile.what;
    EXPECT_THAT(message, HasSubstr("m.gguf: ")) << hostile.what;
  }
  EXPECT_EQ(error_of(two(64, 0)), "no error");  // the order in the file is free
  EXPECT_EQ(error_of(Bytes().head(0, 0, 2).str()), "no error");
}

}  // namespace
}  // namespace instruct::formats
