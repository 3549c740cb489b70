#include "base/file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/cancel.h"
#include "base/error.h"

namespace instruct {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void raise_errno(std::string_view action, const fs::path& path, int code) {
  const ErrorCategory category = code == ENOENT   ? ErrorCategory::kNotFound
                                 : code == EISDIR ? ErrorCategory::kInvalidArgument
                                                  : ErrorCategory::kIo;
  raise(category, "cannot {} '{}': {}", action, path.string(), std::strerror(code));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

std::int64_t open_size(const Descriptor& file, const fs::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) raise_errno("read", path, errno);
  if (S_ISDIR(status.st_mode))
    raise(ErrorCategory::kInvalidArgument, "'{}' is a folder, expected a file", path.string());
  return status.st_size;
}

// Waits in short turns, so that a stop asked for just before a read that would wait forever is seen.
void wait_for_bytes(int descriptor) {
  constexpr int kTurnMilliseconds = 100;
  pollfd ready{.fd = descriptor, .events = POLLIN, .revents = 0};
  do {
    throw_if_cancelled("reading");
  } while (::poll(&ready, 1, kTurnMilliseconds) <= 0);
}

// Reads to the end; works for pipes too.
std::string read_all(int descriptor, const fs::path& path, std::int64_t expected, std::int64_t max_bytes) {
  std::string content;
  content.reserve(static_cast<std::size_t>(std::min(expected, max_bytes)) + 1);
  char buffer[1 << 16];
  struct stat status {};
  const bool may_wait = ::fstat(descriptor, &status) == 0 && !S_ISREG(status.st_mode);
  for (;;) {
    if (may_wait) wait_for_bytes(descriptor);
    const ssize_t got = ::read(descriptor, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) raise_errno("read", path, errno);
    if (got == 0) return content;
    content.append(buffer, static_cast<std::size_t>(got));
    if (static_cast<std::int64_t>(content.size()) > max_bytes) {
      raise(ErrorCategory::kBadData, "'{}' is larger than the {} bytes allowed here", path.string(), max_bytes);
    }
  }
}

// A rename is durable once its folder is synced. Failing to sync a folder is no reason to fail the write.
void sync_folder(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() >= 0) ::fsync(descriptor.get());
}

fs::path temporary_name(const fs::path& path) {
  fs::path result = path;
  result += fmt::format(".{}.tmp", ::getpid());
  return result;
}

fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() || path == path.root_path() ? path : path.parent_path();
}

}  // namespace

std::string read_file(const fs::path& path, std::int64_t max_bytes) {
  if (path == "-") return read_all(STDIN_FILENO, "standard input", 0, max_bytes);
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) raise_errno("open", path, errno);
  return read_all(file.get(), path, open_size(file, path), max_bytes);
}

void for_each_line(std::string_view text, const std::function<void(std::string_view, std::int64_t)>& on_line) {
  std::int64_t number = 1;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    on_line(line, number++);
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  if (fs::is_directory(path_)) {
    raise(ErrorCategory::kInvalidArgument, "cannot write '{}': it is a folder", path_.string());
  }
  // A rename would replace a device or pipe by a file.
  if (fs::exists(path_) && !fs::is_regular_file(path_)) {
    raise(ErrorCategory::kInvalidArgument, "cannot write '{}': it is no regular file", path_.string());
  }
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) raise_errno("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::string_view bytes) {
  write(bytes.data(), bytes.size());
}

void AtomicFile::write(const void* bytes, std::size_t count) {
  const auto* data = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::write(descriptor_, data, std::min<std::size_t>(count, 1U << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) raise_errno("write", path_, errno);
    data += done;
    count -= static_cast<std::size_t>(done);
    bytes_written_ += done;
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) raise_errno("write", path_, errno);
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    raise_errno("write", path_, code);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    raise_errno("write", path_, code);
  }
  sync_folder(path_);
}

AtomicFolder::AtomicFolder(fs::path target, Existing existing)
    : target_(without_trailing_slash(std::move(target))), temporary_(temporary_name(target_)), existing_(existing) {
  if (existing_ == Existing::kRefuse && fs::exists(target_)) {
    raise(ErrorCategory::kInvalidArgument, "'{}' exists already: choose another name or ask to overwrite it",
          target_.string());
  }
  std::error_code code;
  fs::remove_all(temporary_, code);
  fs::create_directories(temporary_, code);
  if (code) raise(ErrorCategory::kIo, "cannot create folder '{}': {}", temporary_.string(), code.message());
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  std::error_code code;
  fs::remove_all(temporary_, code);
}

void AtomicFolder::commit() {
  std::error_code code;
  fs::path old;
  if (fs::exists(target_)) {
    if (existing_ == Existing::kRefuse) {
      raise(ErrorCategory::kInvalidArgument, "'{}' appeared while it was being written", target_.string());
    }
    // Both names change hands at once, where the file system can do that; else there is a moment without a target.
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
      committed_ = true;
      fs::remove_all(temporary_, code);
      sync_folder(target_);
      return;
    }
    old = target_;
    old += fmt::format(".{}.old", ::getpid());
    fs::rename(target_, old, code);
    if (code) raise(ErrorCategory::kIo, "cannot replace '{}': {}", target_.string(), code.message());
  }
  fs::rename(temporary_, target_, code);
  if (code) {
    const std::string reason = code.message();
    if (!old.empty()) fs::rename(old, target_, code);
    raise(ErrorCategory::kIo, "cannot put '{}' in place: {}", target_.string(), reason);
  }
  committed_ = true;
  if (!old.empty()) fs::remove_all(old, code);
  sync_folder(target_);
}

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) raise_errno("open", path, errno);
  const std::int64_t size = open_size(file, path);
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  if (size > 0) {
    void* data = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) raise_errno("map", path, errno);
    mapped->bytes_ = {static_cast<const std::byte*>(data), static_cast<std::size_t>(size)};
  }
  return mapped;
}

void MappedFile::read_ahead() const {
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_WILLNEED);
}

void MappedFile::release() const {
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace instruct
