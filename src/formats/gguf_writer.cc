#include <cstring>

#include "base/cancel.h"
#include "base/error.h"
#include "formats/gguf.h"

namespace instruct::formats {
namespace {

constexpr std::int64_t kAlignment = 32;

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_text(std::string& out, const std::string& text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

std::int64_t padded(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

template <typename T>
std::string array_of(std::uint32_t type, const std::vector<T>& values) {
  std::string payload;
  put<std::uint32_t>(payload, type);
  put<std::uint64_t>(payload, values.size());
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      put_text(payload, value);
    } else {
      put<T>(payload, value);
    }
  }
  return payload;
}

}  // namespace

void GgufWriter::put_key(const std::string& key, std::uint32_t type, std::string payload) {
  std::string encoded;
  put<std::uint32_t>(encoded, type);
  encoded += payload;
  for (auto& [name, value] : keys_) {
    if (name == key) {
      value = std::move(encoded);
      return;
    }
  }
  keys_.emplace_back(key, std::move(encoded));
}

void GgufWriter::set(const std::string& key, bool value) {
  put_key(key, 7, std::string(1, value ? '\1' : '\0'));
}
void GgufWriter::set(const std::string& key, std::uint32_t value) {
  std::string payload;
  put(payload, value);
  put_key(key, 4, std::move(payload));
}
void GgufWriter::set(const std::string& key, float value) {
  std::string payload;
  put(payload, value);
  put_key(key, 6, std::move(payload));
}
void GgufWriter::set(const std::string& key, const std::string& value) {
  std::string payload;
  put_text(payload, value);
  put_key(key, 8, std::move(payload));
}
void GgufWriter::set(const std::string& key, const std::vector<std::string>& values) {
  put_key(key, 9, array_of(8, values));
}
void GgufWriter::set(const std::string& key, const std::vector<std::uint8_t>& values) {
  put_key(key, 9, array_of(0, values));
}
void GgufWriter::set(const std::string& key, const std::vector<std::int32_t>& values) {
  put_key(key, 9, array_of(5, values));
}
void GgufWriter::set(const std::string& key, const std::vector<float>& values) {
  put_key(key, 9, array_of(6, values));
}

void GgufWriter::add(std::string name, const tensor::Shape& shape, tensor::DType dtype,
                     std::function<tensor::Tensor()> make) {
  entries_.push_back({std::move(name), shape, dtype, std::move(make)});
}

void GgufWriter::write(const std::filesystem::path& path) const {
  std::string header = "GGUF";
  put<std::uint32_t>(header, 3);
  put<std::uint64_t>(header, entries_.size());
  put<std::uint64_t>(header, keys_.size());
  for (const auto& [key, encoded] : keys_) {
    put_text(header, key);
    header += encoded;
  }
  std::int64_t offset = 0;
  for (const Entry& entry : entries_) {
    put_text(header, entry.name);
    put<std::uint32_t>(header, static_cast<std::uint32_t>(entry.shape.rank()));
    for (int i = entry.shape.rank() - 1; i >= 0; --i)
      put<std::uint64_t>(header, static_cast<std::uint64_t>(entry.shape[i]));
    put<std::uint32_t>(header, ggml_type_of(entry.dtype));
    put<std::uint64_t>(header, static_cast<std::uint64_t>(offset));
    offset += padded(tensor::bytes_of(entry.dtype, entry.shape.elements()));
  }
  header.resize(static_cast<std::size_t>(padded(static_cast<std::int64_t>(header.size()))), '\0');
  AtomicFile file(path);
  file.write(header);
  for (const Entry& entry : entries_) {
    throw_if_cancelled("writing " + path.string());
    const tensor::Tensor value = entry.make();
    INSTRUCT_CHECK(value.shape() == entry.shape && value.dtype() == entry.dtype && value.contiguous());
    file.write(value.raw(), static_cast<std::size_t>(value.bytes()));
    const std::int64_t rest = padded(value.bytes()) - value.bytes();
    file.write(std::string(static_cast<std::size_t>(rest), '\0'));
  }
  file.commit();
}

}  // namespace instruct::formats
