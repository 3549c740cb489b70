#include "bench/load.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/stopwatch.h"
#include "bench/limits.h"
#include "generate/generator.h"

namespace instruct::bench {
namespace {

namespace fs = std::filesystem;

std::int64_t nanoseconds_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double seconds_since(std::int64_t start) {
  return static_cast<double>(nanoseconds_now() - start) * 1e-9;
}

std::vector<fs::path> files_of(const fs::path& model) {
  if (!fs::is_directory(model)) return {model};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(model)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  return files;
}

class OpenFile {
 public:
  explicit OpenFile(const fs::path& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) raise(ErrorCategory::kIo, "cannot open '{}': {}", path.string(), std::strerror(errno));
  }
  ~OpenFile() { ::close(descriptor_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// Asks the system to forget what it has read of the files. It keeps pages that a process maps.
void drop_from_cache(const std::vector<fs::path>& files) {
  for (const fs::path& path : files) {
    const OpenFile file(path);
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

// Bytes a second of reading the files from end to end, after they were dropped.
double disk_bandwidth(const std::vector<fs::path>& files) {
  drop_from_cache(files);
  std::vector<char> buffer(std::size_t{4} << 20);
  Stopwatch watch;
  double bytes = 0;
  for (const fs::path& path : files) {
    const OpenFile file(path);
    for (;;) {
      const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
      if (count < 0) raise(ErrorCategory::kIo, "cannot read '{}': {}", path.string(), std::strerror(errno));
      if (count == 0) break;
      bytes += static_cast<double>(count);
    }
  }
  return bytes / watch.lap();
}

std::vector<std::string> own_words() {
  std::vector<std::string> words;
  const std::string all = read_file("/proc/self/cmdline");
  for (std::size_t at = 0; at < all.size(); at += words.back().size() + 1) words.emplace_back(all.c_str() + at);
  return words;
}

// Runs this program with the words of its own command line and `more`; what it prints. Its messages go where ours go.
std::string output_of_self(const std::vector<std::string>& more) {
  std::vector<std::string> words = own_words();
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) raise(ErrorCategory::kIo, "cannot make a pipe: {}", std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = -1;
  const int error = ::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t count = 0; error == 0 && (count = ::read(ends[0], buffer, sizeof(buffer))) > 0;)
    output.append(buffer, static_cast<std::size_t>(count));
  ::close(ends[0]);
  if (error != 0) raise(ErrorCategory::kIo, "cannot start another process: {}", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  throw_if_cancelled("benchmark");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    raise(WIFEXITED(status) ? category_of_exit_code(WEXITSTATUS(status)) : ErrorCategory::kInternal,
          "the process that was measured failed, as said above");
  }
  return output;
}

struct Spread {
  double median = 0, least = 0, most = 0;
};
Spread spread_of(const std::vector<Value>& runs, const std::string& key) {
  std::vector<double> values;
  for (const Value& run : runs) values.push_back(run.at(key).as_double());
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

constexpr const char* kParts[] = {"start", "files", "tokenizer", "chat_template", "weights", "first_token"};

}  // namespace

Value cold_start(const Opened& opened, const std::string& prompt, std::int64_t started_at) {
  const double open = seconds_since(started_at);
  Stopwatch watch;
  const models::LoadSeconds& load = opened.package.seconds;
  const instructions::Message message{"user", prompt, {}};
  const generate::Request request{
      .prompt = opened.dialogue.encode_prompt({&message, 1}), .max_new_tokens = 1, .stop = {}, .ignore_end = true};
  generate::Generator(opened.engine, *opened.package.model, *opened.package.tokenizer).run({&request, 1});
  const double first = watch.lap();
  return Value::object({{"start", open - load.files - load.tokenizer - load.weights - opened.chat_template_seconds},
                        {"files", load.files},
                        {"tokenizer", load.tokenizer},
                        {"chat_template", opened.chat_template_seconds},
                        {"weights", load.weights},
                        {"first_token", first},
                        {"total", seconds_since(started_at)},
                        {"prompt_tokens", static_cast<std::int64_t>(request.prompt.size())},
                        {"weight_bytes", weight_bytes(*opened.package.model)},
                        {"peak_rss_bytes", peak_resident_bytes()}});
}

Value bench_load(ops::Engine& engine, const LoadBenchOptions& options) {
  const std::vector<fs::path> files = files_of(options.model);
  std::vector<Value> runs;
  for (std::int64_t i = 0; i < options.repeats; ++i) {
    if (options.drop_file_cache) drop_from_cache(files);
    const std::int64_t start = nanoseconds_now();
    Value run = parse_json(output_of_self({"--started-at", fmt::format("{}", start)}), "a process that was measured");
    run.set("process", seconds_since(start));
    runs.push_back(std::move(run));
  }
  const std::int64_t bytes = runs.front().at("weight_bytes").as_integer();
  const double memory = read_bandwidth(engine, std::int64_t{512} << 20, 0.5);
  const double disk = options.drop_file_cache ? disk_bandwidth(files) : 0;
  Value parts = Value::array();
  for (const char* part : kParts)
    parts.push(Value::object({{"part", part}, {"seconds", spread_of(runs, part).median}}));
  const Spread total = spread_of(runs, "total");
  Value result = Value::object({{"parts", parts},
                                {"prompt_tokens", runs.front().at("prompt_tokens")},
                                {"first_token_seconds", total.median},
                                {"first_token_seconds_least", total.least},
                                {"first_token_seconds_most", total.most},
                                {"process_seconds", spread_of(runs, "process").median},
                                {"weight_bytes", bytes},
                                {"memory_bytes_per_second", memory}});
  if (options.drop_file_cache) result.set("disk_bytes_per_second", disk);
  // From memory, weights are read by what handles them; from disk, the system reads them ahead of all the rest.
  const double reading = static_cast<double>(bytes) / (options.drop_file_cache ? disk : memory);
  const double handling = spread_of(runs, "weights").median + spread_of(runs, "first_token").median;
  result.set("limit_share", reading / (options.drop_file_cache ? total.median : handling));
  result.set("peak_rss_bytes", runs.front().at("peak_rss_bytes"));
  return result;
}

}  // namespace instruct::bench
