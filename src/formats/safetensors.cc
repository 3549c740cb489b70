// Layout: header length u64, header JSON {name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {...}},
// then the data.
#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>

#include "base/cancel.h"
#include "base/error.h"
#include "base/json.h"

namespace instruct::formats {
namespace {

using tensor::DType;

constexpr std::size_t kMaxHeader = 100U << 20;

struct NamedType {
  std::string_view name;
  std::int64_t bytes;
  int dtype;  // DType, or -1 when this program cannot compute with it
};
constexpr NamedType kTypes[] = {
    {"F32", 4, static_cast<int>(DType::kF32)},
    {"F16", 2, static_cast<int>(DType::kF16)},
    {"BF16", 2, static_cast<int>(DType::kBF16)},
    {"I32", 4, static_cast<int>(DType::kI32)},
    {"I64", 8, static_cast<int>(DType::kI64)},
    {"U8", 1, static_cast<int>(DType::kU8)},
    {"I8", 1, static_cast<int>(DType::kI8)},
    {"BOOL", 1, static_cast<int>(DType::kU8)},
    {"F64", 8, -1},
    {"I16", 2, -1},
    {"U16", 2, -1},
    {"U32", 4, -1},
    {"U64", 8, -1},
    {"F8_E4M3", 1, -1},
    {"F8_E5M2", 1, -1},
};

const NamedType* find_type(std::string_view name) {
  for (const NamedType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

std::string_view name_of(DType dtype) {
  for (const NamedType& type : kTypes) {
    if (type.dtype == static_cast<int>(dtype)) return type.name;
  }
  raise(ErrorCategory::kUnsupported, "safetensors has no type for {}", tensor::info(dtype).name);
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  const auto file = std::const_pointer_cast<SafetensorsFile>(parse(mapped->bytes(), path.string(), mapped));
  file->map_ = mapped;
  return file;
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, std::string origin,
                                                              std::shared_ptr<const void> owner) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->origin_ = std::move(origin);
  file->bytes_ = bytes;
  file->owner_ = std::move(owner);
  std::uint64_t length = 0;
  if (bytes.size() >= 8) std::memcpy(&length, bytes.data(), 8);
  if (bytes.size() < 8 || length > std::min<std::uint64_t>(bytes.size() - 8, kMaxHeader)) {
    raise(ErrorCategory::kBadData,
          "{}: byte 0: not a safetensors file, or truncated: a header of {} bytes in a file of {} (at most {})",
          file->origin_, length, bytes.size(), kMaxHeader);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data() + 8), static_cast<std::size_t>(length));
  const Value root = parse_json(header, file->origin_ + " (header)");
  if (!root.is_object()) raise(ErrorCategory::kBadData, "{}: the header is no JSON object", file->origin_);
  file->data_begin_ = 8 + static_cast<std::size_t>(length);
  const auto data_bytes = static_cast<std::int64_t>(bytes.size() - file->data_begin_);
  for (const auto& [name, description] : root.as_object()) {
    if (name == "__metadata__") {
      if (description.is_null()) continue;  // as mlx writes where there is none
      if (!description.is_object())
        raise(ErrorCategory::kBadData, "{}: '__metadata__': expected an object, got {}", file->origin_,
              kind_name(description.kind()));
      file->metadata_ = description;
      continue;
    }
    try {
      file->entries_.emplace(name, entry_from(description));
    } catch (const Error& error) {
      const bool unsupported = error.category() == ErrorCategory::kUnsupported;
      raise(unsupported ? ErrorCategory::kUnsupported : ErrorCategory::kBadData, "{}: tensor '{}': {}", file->origin_,
            name, error.what());
    }
  }
  file->check_layout(data_bytes);
  return file;
}

// All tensors lie in the file, and the format leaves no byte to two of them or to none: a hole could hide data from
// everyone who checks the tensors.
void SafetensorsFile::check_layout(std::int64_t data_bytes) const {
  std::int64_t described = 0;
  for (const auto& [name, entry] : entries_) described = std::max(described, entry.end);
  if (described > data_bytes) {
    raise(ErrorCategory::kBadData,
          "{}: the file has {} bytes, its header describes {}: it is truncated; was the download complete?", origin_,
          bytes_.size(), data_begin_ + static_cast<std::uint64_t>(described));
  }
  std::vector<std::pair<const std::string*, const Entry*>> ordered;
  for (const auto& [name, entry] : entries_) ordered.emplace_back(&name, &entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::int64_t next = 0;
  for (const auto& [name, entry] : ordered) {
    if (entry->begin != next) {
      raise(ErrorCategory::kBadData, "{}: tensor '{}' begins at data byte {}, expected {}: {}", origin_, *name,
            entry->begin, next, entry->begin < next ? "tensors overlap" : "there is a hole before it");
    }
    next = entry->end;
  }
  if (next != data_bytes) {
    raise(ErrorCategory::kBadData, "{}: the tensors end at data byte {}, the file has {} bytes of data", origin_, next,
          data_bytes);
  }
}

SafetensorsFile::Entry SafetensorsFile::entry_from(const Value& description) {
  const auto fail = [](const std::string& what) { raise(ErrorCategory::kBadData, "{}", what); };
  if (!description.is_object()) fail("expected an object with dtype, shape and data_offsets");
  Entry entry;
  entry.dtype = description.at("dtype").as_string();
  const NamedType* type = find_type(entry.dtype);
  if (type == nullptr) raise(ErrorCategory::kUnsupported, "unknown dtype '{}'", entry.dtype);
  std::vector<std::int64_t> dims;
  std::int64_t bytes = type->bytes;
  for (const Value& dim : description.at("shape").as_array()) {
    const std::int64_t size = dim.as_integer();
    // Shape promises that the product overflows nowhere, not even beside a dimension of 0.
    if (size < 0 || __builtin_mul_overflow(bytes, std::max<std::int64_t>(size, 1), &bytes))
      fail(fmt::format("dimension {} is out of range", size));
    dims.push_back(size);
  }
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) bytes = 0;
  if (dims.size() > tensor::kMaxRank)
    fail(fmt::format("has {} dimensions, at most {} are supported", dims.size(), tensor::kMaxRank));
  if (dims.empty()) dims.push_back(1);
  entry.shape = tensor::Shape(std::span<const std::int64_t>(dims));
  const Value::Array& offsets = description.at("data_offsets").as_array();
  if (offsets.size() != 2) fail(fmt::format("data_offsets: expected 2 numbers, got {}", offsets.size()));
  entry.begin = offsets[0].as_integer();
  entry.end = offsets[1].as_integer();
  if (entry.begin < 0 || entry.end < entry.begin)
    fail(fmt::format("data_offsets {} to {} are no range", entry.begin, entry.end));
  if (entry.end - entry.begin != bytes) {
    fail(fmt::format("{} bytes for {} {}, expected {}", entry.end - entry.begin, entry.dtype, entry.shape.text(),
                     bytes));
  }
  return entry;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

tensor::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing", origin_, name);
  const NamedType* type = find_type(found->second.dtype);
  if (type->dtype < 0) {
    raise(ErrorCategory::kUnsupported, "{}: tensor '{}' has type {}, which this program cannot compute with", origin_,
          name, type->name);
  }
  const Entry& entry = found->second;
  const std::byte* data = bytes_.data() + data_begin_ + entry.begin;
  if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(type->bytes) == 0)
    return tensor::Tensor::borrow(data, entry.shape, static_cast<DType>(type->dtype), owner_);
  // The format does not promise alignment; a copy has it.
  const auto copy = std::make_shared<const std::vector<std::byte>>(data, data + (entry.end - entry.begin));
  return tensor::Tensor::borrow(copy->data(), entry.shape, static_cast<DType>(type->dtype), copy);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const Value& metadata) {
  Value header = Value::object();
  if (metadata.size() > 0) header.set("__metadata__", metadata);
  std::int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    Value shape = Value::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push(tensor.shape[i]);
    const std::int64_t bytes = tensor::bytes_of(tensor.dtype, tensor.shape.elements());
    Value offsets = Value::array();
    offsets.push(offset);
    offsets.push(offset + bytes);
    header.set(tensor.name,
               Value::object({{"dtype", Value(name_of(tensor.dtype))}, {"shape", shape}, {"data_offsets", offsets}}));
    offset += bytes;
  }
  std::string text = dump_json(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(&length, 8);
  file.write(text);
  for (const TensorToWrite& tensor : tensors) {
    throw_if_cancelled("writing " + path.string());
    const tensor::Tensor value = tensor.make();
    INSTRUCT_CHECK(value.shape() == tensor.shape && value.dtype() == tensor.dtype && value.contiguous());
    file.write(value.raw(), static_cast<std::size_t>(value.bytes()));
  }
  file.commit();
}

}  // namespace instruct::formats
