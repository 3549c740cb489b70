// Files: whole reads, memory maps, and writes that appear complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace instruct {

// Content of a file. Raises NotFound when it does not exist, InvalidArgument when it is a folder, Io otherwise,
// BadData when it is larger than `max_bytes`. "-" reads standard input.
std::string read_file(const std::filesystem::path& path, std::int64_t max_bytes = std::int64_t{1} << 32);

// Calls `on_line(line, number)` for each line (without its line end, "\n" or "\r\n"), numbered from 1.
void for_each_line(std::string_view text,
                   const std::function<void(std::string_view line, std::int64_t number)>& on_line);

// Writes a file under a temporary name beside `path`, syncs it and renames it into place: readers see the old content
// or the new, never a part. Raises Io naming the path and the system's reason (disk full, permission).
void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// A file being written in pieces, placed at `path` by commit(); dropped when destroyed before that.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::string_view bytes);
  void write(const void* bytes, std::size_t count);
  std::int64_t bytes_written() const { return bytes_written_; }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::int64_t bytes_written_ = 0;
};

// A folder being filled at path() (a temporary sibling) and renamed to its final name by commit(). When the final
// folder exists, commit() raises InvalidArgument unless `replace` was asked for; then the old one is moved aside,
// the new one put in place and the old one removed.
enum class Existing { kRefuse, kReplace };
class AtomicFolder {
 public:
  AtomicFolder(std::filesystem::path target, Existing existing);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  Existing existing_;
  bool committed_ = false;
};

// A read-only memory map of a whole file, shared by everything that points into it.
class MappedFile {
 public:
  // Raises NotFound, InvalidArgument (a folder), or Io. An empty file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Asks the system to start reading the file, all of which will be needed soon.
  void read_ahead() const;
  // Gives the memory that reading has filled back to the system; what is read again is read from the file.
  void release() const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace instruct
