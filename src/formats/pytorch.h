// pytorch_model.bin: what torch.save writes of a state dict, read without executing anything.
//
// The file is a ZIP archive (APPNOTE.TXT, 6.3.10) of uncompressed entries: a pickle that rebuilds the dict, and the
// bytes of each storage. Of the pickle's language only what a dict of tensors needs is understood, as data: a callable
// that is not on the list below is never called but refused by its name.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "formats/tensor_file.h"

namespace instruct::formats {

class PytorchFile final : public TensorFile {
 public:
  // Raises BadData, naming file and byte, for anything malformed; Unsupported for a pickle with another callable
  // (named) or what is no dict of tensors.
  static std::shared_ptr<const PytorchFile> open(const std::filesystem::path& path);
  static std::shared_ptr<const PytorchFile> parse(std::span<const std::byte> bytes, std::string origin,
                                                  std::shared_ptr<const void> owner);

  const std::string& origin() const override { return origin_; }
  std::vector<std::string> names() const override;
  bool has(const std::string& name) const override { return entries_.contains(name); }
  // Raises Unsupported for f64 and other types that this program does not compute with.
  tensor::Tensor tensor(const std::string& name) const override;
  void read_ahead() const override;
  void release() const override;

  // A tensor as the pickle describes it: where its elements lie in the file.
  struct Entry {
    std::string_view type;             // of torch: "FloatStorage", ...
    std::span<const std::byte> bytes;  // of the storage
    std::int64_t offset = 0;           // elements
    std::vector<std::int64_t> sizes, strides;
  };

 private:
  PytorchFile() = default;
  std::string origin_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> map_;  // when the bytes are those of a map
  std::map<std::string, Entry> entries_;
};

}  // namespace instruct::formats
