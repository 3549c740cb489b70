#include "program.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "base/file.h"
#include "base/json.h"

extern char** environ;

namespace instruct::test {
namespace {

namespace fs = std::filesystem;

void must(bool held, const char* what) {
  if (!held) throw std::runtime_error(std::string("test set-up: ") + what);
}

int opened(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  must(descriptor >= 0, "open");
  return descriptor;
}

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become(char* const* arguments, char* const* environment, int input, int output, int messages,
                         const Setting& setting) {
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(messages, STDERR_FILENO);
  ::signal(SIGINT, SIG_DFL);
  if (setting.file_bytes > 0) {
    const auto limit = static_cast<rlim_t>(setting.file_bytes);
    const rlimit sizes{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &sizes);
  }
  ::execve(arguments[0], arguments, environment);
  ::_exit(99);
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

Value Outcome::json() const {
  return parse_json(out, "standard output");
}

std::vector<Value> Outcome::json_lines() const {
  std::vector<Value> lines;
  for_each_line(out,
                [&](std::string_view line, std::int64_t) { lines.push_back(parse_json(line, "standard output")); });
  return lines;
}

Process::Process(const std::vector<std::string>& arguments, const Setting& setting) {
  std::string name = (fs::temp_directory_path() / "instruct-process-XXXXXX").string();
  must(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  folder_ = name;
  int ends[2] = {-1, -1};
  if (setting.input) {
    write_file_atomic(folder_ / "in", *setting.input);
    ends[0] = opened(folder_ / "in", O_RDONLY);
  } else {
    must(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
    input_ = ends[1];
  }
  const int output = opened(folder_ / "out", O_WRONLY | O_CREAT);
  int messages = -1;
  if (setting.terminal) {
    must(::openpty(&terminal_, &messages, nullptr, nullptr, nullptr) == 0, "openpty");
    ::fcntl(terminal_, F_SETFD, FD_CLOEXEC);
  } else {
    messages = opened(folder_ / "err", O_WRONLY | O_CREAT);
  }
  std::vector<std::string> words{INSTRUCT_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  for (const auto& [key, value] : setting.environment) variables.insert(variables.begin(), key + "=" + value);
  const std::vector<char*> argument_pointers = pointers(words), variable_pointers = pointers(variables);
  child_ = ::fork();
  must(child_ >= 0, "fork");
  if (child_ == 0) become(argument_pointers.data(), variable_pointers.data(), ends[0], output, messages, setting);
  for (const int descriptor : {ends[0], output, messages}) ::close(descriptor);
}

Process::~Process() {
  if (!status_) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  for (const int descriptor : {input_, terminal_}) {
    if (descriptor >= 0) ::close(descriptor);
  }
  std::error_code code;
  fs::remove_all(folder_, code);
}

void Process::signal(int number) const {
  if (!status_) ::kill(child_, number);
}

bool Process::handles(int number) const {
  const std::string status = content_of("/proc/" + std::to_string(child_) + "/status");
  const std::size_t at = status.find("SigCgt:");
  if (at == std::string::npos) return false;
  return (std::stoull(status.substr(at + 7), nullptr, 16) >> (number - 1) & 1U) != 0;
}

bool Process::running() {
  int status = 0;
  if (!status_ && ::waitpid(child_, &status, WNOHANG) == child_) status_ = status;
  return !status_;
}

bool Process::wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (!running() || std::chrono::steady_clock::now() > end) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::string Process::messages() const {
  return content_of(folder_ / "err");
}

void Process::read_terminal() {
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(terminal_, buffer, sizeof(buffer));
    if (got <= 0) return;  // EIO: the program closed its side
    shown_.append(buffer, static_cast<std::size_t>(got));
  }
}

Outcome Process::finish() {
  if (terminal_ >= 0) read_terminal();
  int status = 0;
  if (!status_) {
    must(::waitpid(child_, &status, 0) == child_, "waitpid");
    status_ = status;
  }
  Outcome outcome;
  outcome.code = WIFEXITED(*status_) ? WEXITSTATUS(*status_) : 128 + WTERMSIG(*status_);
  outcome.out = content_of(folder_ / "out");
  outcome.err = terminal_ >= 0 ? shown_ : messages();
  return outcome;
}

Outcome run(const std::vector<std::string>& arguments, const Setting& setting) {
  return Process(arguments, setting).finish();
}

Folder::Folder() {
  std::string name = (fs::temp_directory_path() / "instruct-cli-XXXXXX").string();
  must(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  path_ = name;
}

Folder::~Folder() {
  std::error_code code;
  fs::remove_all(path_, code);
}

std::string Folder::write(const std::string& name, const std::string& content) const {
  write_file_atomic(path_ / name, content);
  return *this / name;
}

std::vector<std::string> Folder::names(const std::string& under) const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path_ / under)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string content_of(const fs::path& path) {
  return read_file(path);
}

std::string golden_model(const std::string& name) {
  return std::string(INSTRUCT_GOLDENS) + "/models/" + name;
}

std::string golden_rows() {
  return golden_model() + "/rows.jsonl";
}

std::string golden_adapter() {
  return golden_model() + "/adapter";
}

std::string write_set(const Folder& folder) {
  return folder.write("notes.iset.yaml", R"(name: notes
variables:
  text: {type: text}
instructions:
  summary:
    inputs: [text]
    templates: ["{{ text }} Summarize.", "Summarize: {{ text }}"]
    output: {type: text, max_tokens: 4}
    metrics: [rouge, bleu]
  kind:
    inputs: [text]
    templates: ["{{ text }} Which kind?"]
    output: {type: label, labels: [tool, library, game]}
    metrics: [f1, accuracy]
examples:
  summary:
    - {text: "A tool to read mail.", output: "mail tool"}
program: "[summary('1st paragraph'), ...]"
)");
}

std::string write_rows(const Folder& folder, const std::string& name, int count) {
  const char* kinds[] = {"tool", "library", "game"};
  std::string lines;
  for (int i = 0; i < count; ++i) {
    Value row = Value::object({{"verb", i % 3 == 2 ? "kind" : "summary"},
                               {"text", fmt::format("The {} number {} reads and writes files.", kinds[i % 3], i)},
                               {"output", i % 3 == 2 ? kinds[i % 3] : fmt::format("file {}", kinds[i % 3])}});
    lines += dump_json(row) + "\n";
  }
  return folder.write(name, lines);
}

}  // namespace instruct::test
