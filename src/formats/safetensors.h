// safetensors: named tensors behind a JSON header; single files and sharded folders.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/value.h"
#include "formats/tensor_file.h"
#include "tensor/tensor.h"

namespace instruct::formats {

class SafetensorsFile final : public TensorFile {
 public:
  // Raises BadData naming file and tensor for anything malformed: header out of bounds, bytes that belong to two
  // tensors or none, a size that does not fit shape and type, fewer bytes than the header describes (with both
  // numbers). A dtype that is not known is Unsupported, and one this program cannot compute with when the tensor is
  // asked for.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);
  static std::shared_ptr<const SafetensorsFile> parse(std::span<const std::byte> bytes, std::string origin,
                                                      std::shared_ptr<const void> owner);

  const std::string& origin() const override { return origin_; }
  void read_ahead() const override {
    if (map_ != nullptr) map_->read_ahead();
  }
  void release() const override {
    if (map_ != nullptr) map_->release();
  }
  std::vector<std::string> names() const override;
  bool has(const std::string& name) const override { return entries_.contains(name); }
  tensor::Tensor tensor(const std::string& name) const override;
  // The "__metadata__" object, or an empty object.
  const Value& metadata() const { return metadata_; }

 private:
  struct Entry {
    std::string dtype;
    tensor::Shape shape;
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  SafetensorsFile() = default;
  static Entry entry_from(const Value& description);
  void check_layout(std::int64_t data_bytes) const;

  std::string origin_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> map_;  // when the bytes are those of a map
  std::size_t data_begin_ = 0;
  std::map<std::string, Entry> entries_;
  Value metadata_ = Value::object();
};

// One tensor to be written; `make` is called once, in order, and returns a contiguous tensor of this shape and dtype.
struct TensorToWrite {
  std::string name;
  tensor::Shape shape;
  tensor::DType dtype;
  std::function<tensor::Tensor()> make;
};
// Writes a file under a temporary name and puts it in place. `metadata` is an object of texts. Plain dtypes only.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const Value& metadata);

}  // namespace instruct::formats
