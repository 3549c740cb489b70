// The part of pickle, Python's format of objects, that torch.save writes a dict of tensors with, read as data: nothing
// is imported or called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace instruct::formats {

// A type of torch's storages.
struct StorageType {
  std::string_view name;               // "FloatStorage"
  std::int64_t bytes;                  // of an element
  std::optional<tensor::DType> dtype;  // none when this program cannot compute with it
};
// Null for another name.
const StorageType* find_storage(std::string_view name);

// What a pickle makes, all of it in one list: objects name others by their place, so that no nesting and no cycle of a
// hostile file costs more than its bytes.
struct PickleObject {
  enum class Kind : std::uint8_t { kOther, kInteger, kText, kTuple, kDict, kCallable, kStorage, kTensor };
  Kind kind = Kind::kOther;
  std::int64_t integer = 0;          // or the elements of a storage
  std::string text;                  // or the callable's name, or that of a storage's type
  std::string key;                   // of a storage
  std::vector<std::uint32_t> items;  // of a tuple; of a dict keys and values in turns; of a tensor its storage
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes, strides;
};

struct Pickle {
  std::vector<PickleObject> objects;
  std::uint32_t root = 0;  // what is left at the end
};

// Raises BadData, naming `origin` and a byte, for what is malformed; Unsupported for what names a callable other than
// those of a dict of tensors.
Pickle read_pickle(std::span<const std::byte> bytes, const std::string& origin);

}  // namespace instruct::formats
