// Runs the built `instruct` program as its users do: a process with arguments, input, output, messages and exit code.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/value.h"

namespace instruct::test {

struct Outcome {
  int code = -1;                          // exit code; 128 + signal where one ended it, as a shell reports it
  std::string out;                        // standard output
  std::string err;                        // standard error, or what a terminal showed
  Value json() const;                     // all of `out` as one document
  std::vector<Value> json_lines() const;  // one document a line
};

struct Setting {
  std::optional<std::string> input = "";  // standard input; none: a pipe that nobody writes to
  std::vector<std::pair<std::string, std::string>> environment;
  std::int64_t file_bytes = 0;  // largest file it may write (a full disk, as far as writing goes); 0: no limit
  bool terminal = false;        // standard error is a terminal
};

// A running program. The destructor kills it.
class Process {
 public:
  Process(const std::vector<std::string>& arguments, const Setting& setting);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const;
  // Whether the program handles this signal by now, rather than ending at once.
  bool handles(int number) const;
  bool running();
  // Waits until `condition` holds; false where the program ended or a minute passed before.
  bool wait_until(const std::function<bool()>& condition);
  // What it has said on standard error so far (not for a terminal).
  std::string messages() const;
  Outcome finish();

 private:
  void read_terminal();
  std::filesystem::path folder_;
  pid_t child_ = -1;
  int input_ = -1, terminal_ = -1;
  std::string shown_;
  std::optional<int> status_;
};

Outcome run(const std::vector<std::string>& arguments, const Setting& setting = {});

// A folder of a test's own, removed with it.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::filesystem::path path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& content) const;
  // Names of the files and folders in `under`, sorted.
  std::vector<std::string> names(const std::string& under = "") const;

 private:
  std::filesystem::path path_;
};

std::string content_of(const std::filesystem::path& path);

// A tiny model, by its folder in tests/goldens/models.
std::string golden_model(const std::string& name = "llama-tied");
std::string golden_rows();     // seven dialogues in a format of OpenAI
std::string golden_adapter();  // of llama-tied

// An instruction set with the verbs summary (two templates, text) and kind (label), and rows of both.
std::string write_set(const Folder& folder);
std::string write_rows(const Folder& folder, const std::string& name, int count);

}  // namespace instruct::test
