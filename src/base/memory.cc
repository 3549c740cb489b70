#include "base/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <string>

#include "base/text.h"

namespace instruct {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

// A field of /proc/meminfo, in bytes; 0 when it is not there.
std::int64_t meminfo(std::string_view field) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::int64_t kilobytes = 0;
  while (file >> name >> kilobytes) {
    std::getline(file, unit);
    if (std::string_view(name).substr(0, name.size() - 1) == field) return kilobytes * 1024;
  }
  return 0;
}

// A number in a file of one; `otherwise` where there is no such file or it says "max".
std::int64_t number_in(const char* path, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return file >> value ? value : otherwise;
}

// The limit of the control group as its members see it (versions 2 and 1).
std::int64_t group_limit() {
  return std::min(number_in("/sys/fs/cgroup/memory.max", kUnlimited),
                  number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", kUnlimited));
}
std::int64_t group_use() {
  return number_in("/sys/fs/cgroup/memory.current", number_in("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0));
}

}  // namespace

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::int64_t machine_bytes() {
  return std::min(meminfo("MemTotal") + meminfo("SwapTotal"), group_limit());
}

std::int64_t available_bytes() {
  const std::int64_t limit = group_limit();
  const std::int64_t machine = meminfo("MemAvailable") + meminfo("SwapFree");
  return limit == kUnlimited ? machine : std::min(machine, std::max<std::int64_t>(0, limit - group_use()));
}

std::optional<std::int64_t> bytes_from_text(std::string_view text) {
  const std::string lower = to_lower_ascii(trim(text));
  double value = 0;
  const char* end = lower.data() + lower.size();
  const auto [stop, status] = std::from_chars(lower.data(), end, value);
  if (status != std::errc()) return std::nullopt;
  const std::string_view unit = trim(std::string_view(stop, static_cast<std::size_t>(end - stop)));
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    constexpr std::string_view kLetters = "kmgt";
    const std::size_t power = kLetters.find(unit[0]);
    const std::string_view rest = unit.substr(1);
    if (power == std::string_view::npos || (rest != "" && rest != "b" && rest != "i" && rest != "ib"))
      return std::nullopt;
    for (std::size_t i = 0; i <= power; ++i) factor *= rest.starts_with('i') ? 1024 : 1000;
  }
  const double bytes = value * factor;
  if (!(bytes >= 1 && bytes < 9e18)) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

}  // namespace instruct
