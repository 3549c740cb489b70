// Layout: magic "GGUF", version u32, tensor count u64, key count u64, the keys (string, type u32, value), the tensor
// infos (string, rank u32, dims u64 innermost first, type u32, offset u64), padding to the alignment, tensor data.
#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace instruct::formats {
namespace {

using tensor::DType;

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

constexpr std::size_t kMaxString = 64U << 20;
// Far above any vocabulary: what an array claims must not become memory before its elements were seen.
constexpr std::uint64_t kMaxArray = 1U << 24;

enum ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

struct GgmlType {
  std::uint32_t number;
  DType dtype;
};
constexpr GgmlType kTypes[] = {
    {0, DType::kF32},   {1, DType::kF16},   {2, DType::kQ4_0},   {3, DType::kQ4_1},   {6, DType::kQ5_0},
    {7, DType::kQ5_1},  {8, DType::kQ8_0},  {10, DType::kQ2_K},  {11, DType::kQ3_K},  {12, DType::kQ4_K},
    {13, DType::kQ5_K}, {14, DType::kQ6_K}, {20, DType::kIQ4NL}, {23, DType::kIQ4XS}, {24, DType::kI8},
    {26, DType::kI32},  {27, DType::kI64},  {30, DType::kBF16},  {39, DType::kMXFP4},
};

class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}
  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  T read(std::string_view what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  std::string_view read_string(std::string_view what) {
    const auto length = read<std::uint64_t>(what);
    if (length > left() || length > kMaxString) {
      fail(what, fmt::format("a text of at most {} bytes", std::min(left(), kMaxString)),
           fmt::format("length {}", length));
    }
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + position_),
                                static_cast<std::size_t>(length));
    position_ += static_cast<std::size_t>(length);
    return text;
  }
  // A count of things that take at least `least_bytes` each.
  std::uint64_t read_count(std::string_view what, std::size_t least_bytes) {
    const auto count = read<std::uint64_t>(what);
    if (count > left() / least_bytes) {
      fail(what, fmt::format("at most {} (the file has {} bytes left)", left() / least_bytes, left()),
           fmt::format("{}", count));
    }
    return count;
  }
  [[noreturn]] void fail(std::string_view what, std::string_view expected, std::string_view received) const {
    raise(ErrorCategory::kBadData, "{}: byte {}: {}: expected {}, got {}", origin_, position_, what, expected,
          received);
  }

 private:
  void need(std::size_t count, std::string_view what) const {
    if (count > left())
      fail(what, fmt::format("{} more bytes", count), fmt::format("{}: is the file truncated?", left()));
  }
  std::span<const std::byte> bytes_;
  const std::string& origin_;
  std::size_t position_ = 0;
};

// One number of a metadata type as int64 or double.
using Number = std::variant<std::int64_t, double, bool>;
Number read_number(Cursor& cursor, std::uint32_t type, std::string_view what) {
  const auto integer = [](auto value) { return Number(static_cast<std::int64_t>(value)); };
  switch (type) {
    case kUint8:
      return integer(cursor.read<std::uint8_t>(what));
    case kInt8:
      return integer(cursor.read<std::int8_t>(what));
    case kUint16:
      return integer(cursor.read<std::uint16_t>(what));
    case kInt16:
      return integer(cursor.read<std::int16_t>(what));
    case kUint32:
      return integer(cursor.read<std::uint32_t>(what));
    case kInt32:
      return integer(cursor.read<std::int32_t>(what));
    case kInt64:
      return integer(cursor.read<std::int64_t>(what));
    case kUint64: {
      const auto value = cursor.read<std::uint64_t>(what);
      if (value > static_cast<std::uint64_t>(INT64_MAX))
        cursor.fail(what, "a value below 2^63", fmt::format("{}", value));
      return integer(value);
    }
    case kFloat32:
      return static_cast<double>(cursor.read<float>(what));
    case kFloat64:
      return cursor.read<double>(what);
    case kBool:
      return cursor.read<std::uint8_t>(what) != 0;
    default:
      cursor.fail(what, "a metadata type from 0 to 12", fmt::format("{}", type));
  }
}

std::size_t size_of_type(std::uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint64:
    case kInt64:
    case kFloat64:
    case kString:
      return 8;
    default:
      return 4;
  }
}

GgufValue read_array(Cursor& cursor, std::string_view what) {
  const auto type = cursor.read<std::uint32_t>(what);
  if (type == kArray || type > kFloat64)
    cursor.fail(what, "an array of numbers or texts", fmt::format("element type {}", type));
  const std::uint64_t count = cursor.read_count(what, size_of_type(type));
  if (count > kMaxArray) cursor.fail(what, fmt::format("at most {} elements", kMaxArray), fmt::format("{}", count));
  if (type == kString) {
    std::vector<std::string_view> texts;
    texts.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) texts.push_back(cursor.read_string(what));
    return texts;
  }
  if (type == kFloat32 || type == kFloat64) {
    std::vector<double> numbers;
    numbers.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) numbers.push_back(std::get<double>(read_number(cursor, type, what)));
    return numbers;
  }
  std::vector<std::int64_t> integers;
  integers.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i) {
    const Number number = read_number(cursor, type, what);
    integers.push_back(type == kBool ? static_cast<std::int64_t>(std::get<bool>(number))
                                     : std::get<std::int64_t>(number));
  }
  return integers;
}

GgufValue read_value(Cursor& cursor, std::string_view what) {
  const auto type = cursor.read<std::uint32_t>(what);
  if (type == kString) return std::string(cursor.read_string(what));
  if (type == kArray) return read_array(cursor, what);
  return std::visit([](auto number) { return GgufValue(number); }, read_number(cursor, type, what));
}

GgufTensorInfo read_tensor_info(Cursor& cursor) {
  GgufTensorInfo entry;
  entry.name = cursor.read_string("tensor name");
  const auto rank = cursor.read<std::uint32_t>("tensor rank");
  if (rank < 1 || rank > tensor::kMaxRank)
    cursor.fail("tensor '" + entry.name + "'", "1 to 4 dimensions", fmt::format("{}", rank));
  std::int64_t dims[tensor::kMaxRank] = {};
  std::int64_t elements = 1;
  for (std::uint32_t i = 0; i < rank; ++i) {
    const auto dim = cursor.read<std::uint64_t>("tensor dimension");
    if (dim == 0 || dim > (std::uint64_t{1} << 40) ||
        __builtin_mul_overflow(elements, static_cast<std::int64_t>(dim), &elements) ||
        elements > (std::int64_t{1} << 46)) {
      cursor.fail("tensor '" + entry.name + "'", "dimensions whose product is below 2^46", fmt::format("{}", dim));
    }
    dims[rank - 1 - i] = static_cast<std::int64_t>(dim);
  }
  entry.shape = tensor::Shape(std::span<const std::int64_t>(dims, rank));
  entry.type = cursor.read<std::uint32_t>("tensor type");
  entry.offset = cursor.read<std::uint64_t>("tensor offset");
  DType dtype{};
  if (dtype_of_ggml(entry.type, dtype)) {
    const std::int64_t block = tensor::info(dtype).block_elements;
    if (dims[rank - 1] % block != 0) {
      cursor.fail("tensor '" + entry.name + "'", fmt::format("rows of a multiple of {} elements", block),
                  fmt::format("{}", dims[rank - 1]));
    }
    entry.bytes = tensor::bytes_of(dtype, elements);
  }
  return entry;
}

}  // namespace

std::uint32_t ggml_type_of(DType dtype) {
  for (const GgmlType& type : kTypes) {
    if (type.dtype == dtype) return type.number;
  }
  raise(ErrorCategory::kUnsupported, "GGUF has no tensor type for {}", tensor::info(dtype).name);
}

bool dtype_of_ggml(std::uint32_t number, DType& dtype) {
  for (const GgmlType& type : kTypes) {
    if (type.number == number) {
      dtype = type.dtype;
      return true;
    }
  }
  return false;
}

std::shared_ptr<const GgufFile> GgufFile::open(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  const auto file = std::const_pointer_cast<GgufFile>(parse(mapped->bytes(), path.string(), mapped));
  file->map_ = mapped;
  return file;
}

std::shared_ptr<const GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string origin,
                                                std::shared_ptr<const void> owner) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  file->origin_ = std::move(origin);
  file->bytes_ = bytes;
  file->owner_ = std::move(owner);
  file->parse_all();
  return file;
}

void GgufFile::parse_all() {
  Cursor cursor(bytes_, origin_);
  if (bytes_.empty()) raise(ErrorCategory::kBadData, "{}: the file is empty", origin_);
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    raise(ErrorCategory::kBadData, "{}: not a GGUF file: it does not start with 'GGUF'", origin_);
  }
  cursor.read<std::uint32_t>("magic");
  const auto version = cursor.read<std::uint32_t>("version");
  if (version == 2U << 24 || version == 3U << 24) {
    raise(ErrorCategory::kUnsupported, "{}: a big-endian GGUF file: this program reads little-endian ones", origin_);
  }
  if (version < 2 || version > 3) {
    raise(ErrorCategory::kUnsupported, "{}: GGUF version {}: this program reads versions 2 and 3", origin_, version);
  }
  const std::uint64_t tensor_count = cursor.read_count("tensor count", 24);
  const std::uint64_t key_count = cursor.read_count("key count", 13);
  for (std::uint64_t i = 0; i < key_count; ++i) {
    std::string key(cursor.read_string("key"));
    if (!keys_.emplace(key, metadata_.size()).second) cursor.fail("key '" + key + "'", "each key once", "a repeat");
    GgufValue value = read_value(cursor, "value of '" + key + "'");
    metadata_.emplace_back(std::move(key), std::move(value));
  }
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensorInfo entry = read_tensor_info(cursor);
    if (!index_.emplace(entry.name, tensors_.size()).second) {
      cursor.fail("tensor '" + entry.name + "'", "each name once", "a repeat");
    }
    tensors_.push_back(std::move(entry));
  }
  place_tensors(cursor.position());
}

// Where the data section begins, and that every tensor lies inside it, aligned and alone.
void GgufFile::place_tensors(std::size_t header_bytes) {
  const std::int64_t alignment = integer_or("general.alignment", 32);
  if (alignment < 8 || alignment > (1 << 20) || !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
    raise(ErrorCategory::kBadData, "{}: general.alignment is {}, expected a power of two from 8 to 1048576", origin_,
          alignment);
  }
  const auto unit = static_cast<std::size_t>(alignment);
  data_begin_ = (header_bytes + unit - 1) / unit * unit;
  const std::size_t data_bytes = bytes_.size() - std::min(bytes_.size(), data_begin_);
  std::vector<const GgufTensorInfo*> ordered;
  for (const GgufTensorInfo& entry : tensors_) {
    if (entry.offset > data_bytes || static_cast<std::uint64_t>(entry.bytes) > data_bytes - entry.offset) {
      raise(ErrorCategory::kBadData,
            "{}: tensor '{}' needs {} bytes from byte {} of the data section, which has {}: is the file truncated?",
            origin_, entry.name, entry.bytes, entry.offset, data_bytes);
    }
    if (entry.offset % unit != 0) {
      raise(ErrorCategory::kBadData, "{}: tensor '{}': expected an offset that is a multiple of {}, got {}", origin_,
            entry.name, unit, entry.offset);
    }
    ordered.push_back(&entry);
  }
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (std::size_t i = 1; i < ordered.size(); ++i) {
    const GgufTensorInfo& before = *ordered[i - 1];
    if (before.offset + static_cast<std::uint64_t>(before.bytes) > ordered[i]->offset) {
      raise(ErrorCategory::kBadData, "{}: tensors '{}' and '{}' overlap at byte {} of the data section", origin_,
            before.name, ordered[i]->name, ordered[i]->offset);
    }
  }
}

const GgufValue* GgufFile::find(const std::string& key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : &metadata_[found->second].second;
}

namespace {

template <typename T>
const T* typed(const GgufFile& file, const std::string& key, const char* expected) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return nullptr;
  if (const T* found = std::get_if<T>(value)) return found;
  raise(ErrorCategory::kBadData, "{}: key '{}': expected {}", file.origin(), key, expected);
}

[[noreturn]] void missing(const GgufFile& file, const std::string& key) {
  raise(ErrorCategory::kNotFound, "{}: key '{}' is missing", file.origin(), key);
}

std::optional<double> number_of(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* integer = std::get_if<std::int64_t>(value)) return static_cast<double>(*integer);
  return *typed<double>(file, key, "a number");
}

}  // namespace

std::int64_t GgufFile::integer(const std::string& key) const {
  const auto* value = typed<std::int64_t>(*this, key, "an integer");
  if (value == nullptr) missing(*this, key);
  return *value;
}
std::int64_t GgufFile::integer_or(const std::string& key, std::int64_t otherwise) const {
  const auto* value = typed<std::int64_t>(*this, key, "an integer");
  return value == nullptr ? otherwise : *value;
}
double GgufFile::number(const std::string& key) const {
  const auto value = number_of(*this, key);
  if (!value) missing(*this, key);
  return *value;
}
double GgufFile::number_or(const std::string& key, double otherwise) const {
  return number_of(*this, key).value_or(otherwise);
}
bool GgufFile::boolean_or(const std::string& key, bool otherwise) const {
  const auto* value = typed<bool>(*this, key, "true or false");
  return value == nullptr ? otherwise : *value;
}
const std::string& GgufFile::text(const std::string& key) const {
  const auto* value = typed<std::string>(*this, key, "a text");
  if (value == nullptr) missing(*this, key);
  return *value;
}
std::string GgufFile::text_or(const std::string& key, std::string otherwise) const {
  const auto* value = typed<std::string>(*this, key, "a text");
  return value == nullptr ? otherwise : *value;
}
const std::vector<std::string_view>& GgufFile::texts(const std::string& key) const {
  const auto* value = typed<std::vector<std::string_view>>(*this, key, "an array of texts");
  if (value == nullptr) missing(*this, key);
  return *value;
}
std::vector<std::int64_t> GgufFile::integers_or_empty(const std::string& key) const {
  const auto* value = typed<std::vector<std::int64_t>>(*this, key, "an array of integers");
  return value == nullptr ? std::vector<std::int64_t>() : *value;
}
std::vector<double> GgufFile::numbers_or_empty(const std::string& key) const {
  const auto* value = typed<std::vector<double>>(*this, key, "an array of numbers");
  return value == nullptr ? std::vector<double>() : *value;
}

tensor::Tensor GgufFile::tensor(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing", origin_, name);
  const GgufTensorInfo& entry = tensors_[found->second];
  DType dtype{};
  if (!dtype_of_ggml(entry.type, dtype)) {
    raise(ErrorCategory::kUnsupported, "{}: tensor '{}' has ggml type {}, which this program cannot read yet", origin_,
          name, entry.type);
  }
  return tensor::Tensor::borrow(bytes_.data() + data_begin_ + entry.offset, entry.shape, dtype, owner_);
}

}  // namespace instruct::formats
