#include "formats/zip.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace instruct::formats {
namespace {

constexpr std::uint32_t kLocal = 0x04034b50;
constexpr std::uint32_t kCentral = 0x02014b50;
constexpr std::uint32_t kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50;
constexpr std::uint32_t kLocator64 = 0x07064b50;
constexpr std::size_t kEndBytes = 22;
constexpr std::size_t kLocatorBytes = 20;
constexpr std::uint64_t kMostEntries = 1U << 20;

class Archive {
 public:
  Archive(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  std::map<std::string, std::span<const std::byte>> entries() const {
    const Directory directory = find_directory();
    std::map<std::string, std::span<const std::byte>> found;
    std::uint64_t at = directory.begin;
    for (std::uint64_t i = 0; i < directory.entries; ++i) at = add_entry(at, found);
    return found;
  }

 private:
  struct Directory {
    std::uint64_t begin = 0;
    std::uint64_t entries = 0;
  };

  template <typename T>
  T read(std::uint64_t at) const {
    T value{};
    if (at > bytes_.size() || bytes_.size() - at < sizeof(T)) fail(at, "the archive ends within a header");
    std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }

  [[noreturn]] void fail(std::uint64_t at, const char* what) const {
    raise(ErrorCategory::kBadData, "{}: byte {}: {}: was the download complete?", origin_, at, what);
  }

  void expect(std::uint64_t at, std::uint32_t signature) const {
    if (read<std::uint32_t>(at) != signature) fail(at, "a ZIP header is expected here");
  }

  // The end of an archive is found from behind: a comment of any content may follow it.
  Directory find_directory() const {
    constexpr std::size_t kMostComment = 0xffff;
    if (bytes_.size() < kEndBytes) fail(0, "no ZIP archive");
    const std::size_t last = bytes_.size() - kEndBytes;
    const std::size_t first = last - std::min(last, kMostComment);
    for (std::size_t at = last + 1; at-- > first;) {
      if (read<std::uint32_t>(at) == kEnd) return directory_at(at);
    }
    fail(0, "no ZIP archive");
  }

  Directory directory_at(std::uint64_t end) const {
    Directory directory{.begin = read<std::uint32_t>(end + 16), .entries = read<std::uint16_t>(end + 10)};
    if (end >= kLocatorBytes && read<std::uint32_t>(end - kLocatorBytes) == kLocator64) {
      const auto end64 = read<std::uint64_t>(end - kLocatorBytes + 8);
      expect(end64, kEnd64);
      directory = {.begin = read<std::uint64_t>(end64 + 48), .entries = read<std::uint64_t>(end64 + 32)};
    }
    if (directory.entries > kMostEntries) fail(end, "more entries than any model has");
    return directory;
  }

  // Returns where the next header of the directory begins.
  std::uint64_t add_entry(std::uint64_t at, std::map<std::string, std::span<const std::byte>>& found) const {
    expect(at, kCentral);
    const auto flags = read<std::uint16_t>(at + 8);
    const auto method = read<std::uint16_t>(at + 10);
    std::uint64_t stored = read<std::uint32_t>(at + 20);
    std::uint64_t size = read<std::uint32_t>(at + 24);
    const auto name_bytes = read<std::uint16_t>(at + 28);
    const auto extra_bytes = read<std::uint16_t>(at + 30);
    const auto comment_bytes = read<std::uint16_t>(at + 32);
    std::uint64_t local = read<std::uint32_t>(at + 42);
    const std::uint64_t name_at = at + 46;
    const std::uint64_t extra_at = name_at + name_bytes;
    const std::uint64_t next = extra_at + extra_bytes + comment_bytes;
    if (next > bytes_.size()) fail(at, "the archive ends within a header");
    std::string name(reinterpret_cast<const char*>(bytes_.data()) + name_at, name_bytes);
    read_sizes64(extra_at, extra_at + extra_bytes, size, stored, local);
    if (method != 0 || (flags & 1U) != 0 || stored != size)
      raise(ErrorCategory::kUnsupported, "{}: entry '{}' is compressed or encrypted, which torch.save never writes",
            origin_, name);
    expect(local, kLocal);
    const std::uint64_t data = local + 30 + read<std::uint16_t>(local + 26) + read<std::uint16_t>(local + 28);
    if (data > bytes_.size() || bytes_.size() - data < size) fail(local, "an entry ends behind the archive");
    found.insert_or_assign(std::move(name), bytes_.subspan(data, size));
    return next;
  }

  // Numbers that do not fit in 32 bits are in an extra field of their own, in this order, and only those.
  void read_sizes64(std::uint64_t at, std::uint64_t end, std::uint64_t& size, std::uint64_t& stored,
                    std::uint64_t& local) const {
    while (end - at >= 4) {
      const auto kind = read<std::uint16_t>(at);
      const std::uint64_t next = at + 4 + read<std::uint16_t>(at + 2);
      if (next > end) fail(at, "an extra field ends behind its header");
      std::uint64_t from = at + 4;
      for (std::uint64_t* number : {&size, &stored, &local}) {
        if (kind != 1 || *number != 0xffffffff || next - from < 8) continue;
        *number = read<std::uint64_t>(from);
        from += 8;
      }
      at = next;
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& origin_;
};

}  // namespace

std::map<std::string, std::span<const std::byte>> zip_entries(std::span<const std::byte> archive,
                                                              const std::string& origin) {
  return Archive(archive, origin).entries();
}

}  // namespace instruct::formats
