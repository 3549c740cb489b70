// GGUF files (version 2 and 3): metadata and tensors of one model or adapter in one file.
//
// The reader maps the file and trusts nothing in it: every count and offset is bounded by the bytes that remain.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace instruct::formats {

// One metadata value. Integers of every width become int64 (uint64 above its range is refused), floats double; arrays
// keep one vector, texts in arrays stay where the file has them: a vocabulary of 250,000 stays cheap.
using GgufValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>,
                               std::vector<std::string_view>>;

struct GgufTensorInfo {
  std::string name;
  tensor::Shape shape;       // outermost first (the file stores innermost first)
  std::uint32_t type = 0;    // ggml's number
  std::uint64_t offset = 0;  // bytes from the start of the data section
  std::int64_t bytes = 0;    // 0 for a type this program cannot read
};

class GgufFile {
 public:
  // Raises BadData naming file, byte and what was expected for anything malformed.
  static std::shared_ptr<const GgufFile> open(const std::filesystem::path& path);
  // The same over bytes in memory (tests, fuzzing). `origin` names them in errors.
  static std::shared_ptr<const GgufFile> parse(std::span<const std::byte> bytes, std::string origin,
                                               std::shared_ptr<const void> owner);

  const std::string& origin() const { return origin_; }
  // Lets the system start reading the tensors from disk.
  void read_ahead() const {
    if (map_ != nullptr) map_->read_ahead();
  }
  // Gives back memory that reading has filled; tensors can still be read.
  void release() const {
    if (map_ != nullptr) map_->release();
  }
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }
  const GgufValue* find(const std::string& key) const;
  // Typed access; raises NotFound when absent, BadData when of another type. The `_or` forms take a default when
  // absent.
  std::int64_t integer(const std::string& key) const;
  std::int64_t integer_or(const std::string& key, std::int64_t otherwise) const;
  double number(const std::string& key) const;
  double number_or(const std::string& key, double otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;
  const std::string& text(const std::string& key) const;
  std::string text_or(const std::string& key, std::string otherwise) const;
  // Texts as long as the file object.
  const std::vector<std::string_view>& texts(const std::string& key) const;
  // Empty when absent.
  std::vector<std::int64_t> integers_or_empty(const std::string& key) const;
  std::vector<double> numbers_or_empty(const std::string& key) const;

  const std::vector<GgufTensorInfo>& tensors() const { return tensors_; }
  bool has_tensor(const std::string& name) const { return index_.contains(name); }
  // A view into the map. Raises NotFound, or Unsupported naming the tensor's type.
  tensor::Tensor tensor(const std::string& name) const;

 private:
  GgufFile() = default;
  void parse_all();
  void place_tensors(std::size_t header_bytes);

  std::string origin_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> map_;  // when the bytes are those of a map
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::map<std::string, std::size_t> keys_;
  std::vector<GgufTensorInfo> tensors_;
  std::map<std::string, std::size_t> index_;
  std::size_t data_begin_ = 0;
};

// ggml's number of a dtype and back. dtype_of_ggml returns false for a type this program does not know.
std::uint32_t ggml_type_of(tensor::DType dtype);
bool dtype_of_ggml(std::uint32_t type, tensor::DType& dtype);

// Writes a GGUF version 3 file: set metadata, add tensors, then write() streams everything to a temporary name and puts
// it in place.
class GgufWriter {
 public:
  void set(const std::string& key, bool value);
  void set(const std::string& key, std::uint32_t value);
  void set(const std::string& key, float value);
  void set(const std::string& key, const std::string& value);
  void set(const std::string& key, const std::vector<std::string>& values);
  void set(const std::string& key, const std::vector<std::uint8_t>& values);
  void set(const std::string& key, const std::vector<std::int32_t>& values);
  void set(const std::string& key, const std::vector<float>& values);
  // `make` is called once, in order, while writing, and returns the contiguous tensor with this shape and dtype.
  void add(std::string name, const tensor::Shape& shape, tensor::DType dtype, std::function<tensor::Tensor()> make);
  void write(const std::filesystem::path& path) const;

 private:
  void put_key(const std::string& key, std::uint32_t type, std::string payload);
  struct Entry {
    std::string name;
    tensor::Shape shape;
    tensor::DType dtype;
    std::function<tensor::Tensor()> make;
  };
  std::vector<std::pair<std::string, std::string>> keys_;  // key, encoded type and payload
  std::vector<Entry> entries_;
};

}  // namespace instruct::formats
