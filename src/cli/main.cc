// The `instruct` program: one subcommand a task.
#include <csignal>

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>

#include "base/cancel.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/commands.h"

namespace {

constexpr const char* kExamples = R"(
Examples:
  instruct train train.yaml --output_dir runs/notes
  instruct eval --model M.gguf --adapter runs/notes --instructions notes.iset.yaml --data test.jsonl
  instruct run --model M.gguf --adapter runs/notes --instructions notes.iset.yaml --input page.txt
  instruct COMMAND --help

Exit codes: 0 done, 2 bad arguments, 3 bad data, 4 not found, 5 input/output, 6 unsupported, 7 numeric, 70 internal,
130 stopped.)";

// The command of the words so far, as a user would type it: what a message sends them to the help of.
struct Command {
  const CLI::App* app;
  std::string words = "instruct";
};

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// Moves to the command that the next word names; raises with the nearest one where a command must stand.
bool enter_command(Command& at, const std::string& word) {
  const std::vector<std::string> known = names_of_commands(*at.app);
  if (known.empty() || word.starts_with('-')) return false;
  if (std::find(known.begin(), known.end(), word) == known.end()) {
    instruct::raise(instruct::ErrorCategory::kInvalidArgument, "unknown command '{}'{}; see {} --help", word,
                    instruct::did_you_mean(word, known), at.words);
  }
  at.app = at.app->get_subcommand(word);
  at.words += " " + word;
  return true;
}

bool knows_option(const CLI::App& app, const std::string& name) {
  return app.get_option_no_throw(name) != nullptr ||
         (app.get_parent() != nullptr && knows_option(*app.get_parent(), name));
}

std::vector<std::string> names_of_options(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  if (app.get_parent() == nullptr) return names;
  for (const std::string& name : names_of_options(*app.get_parent())) names.push_back(name);
  return names;
}

// Why the parser refused: it names what is missing before what is misspelt, and never the nearest name.
[[noreturn]] void explain(const CLI::App& app, int argc, char** argv, const CLI::ParseError& error) {
  Command at{&app};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (enter_command(at, word) || !word.starts_with("--") || word == "--") continue;
    const std::string name = word.substr(0, word.find('='));
    if (!knows_option(*at.app, name)) {
      instruct::raise(instruct::ErrorCategory::kInvalidArgument, "unknown option '{}'{}; see {} --help", name,
                      instruct::did_you_mean(name, names_of_options(*at.app)), at.words);
    }
    if (name == "--log-level" && word == name) ++i;  // its value may stand where a command would
  }
  const std::vector<std::string> commands = names_of_commands(*at.app);
  if (!commands.empty())
    instruct::raise(instruct::ErrorCategory::kInvalidArgument, "{} needs a command: {}; see {} --help", at.words,
                    fmt::format("{}", fmt::join(commands, ", ")), at.words);
  instruct::raise(instruct::ErrorCategory::kInvalidArgument, "{}; see {} --help", error.what(), at.words);
}

int failed(std::string_view message, instruct::ErrorCategory category) {
  std::fprintf(stderr, "instruct: %.*s\n", static_cast<int>(message.size()), message.data());
  return instruct::exit_code(category);
}

}  // namespace

int main(int argc, char** argv) {
  instruct::install_cancel_handlers();
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, not the end of the process
  CLI::App app{"Tune, measure and run language models on your own instruction set.", "instruct"};
  app.set_version_flag("--version", "instruct " INSTRUCT_VERSION " (" INSTRUCT_COMPILER ")");
  app.require_subcommand(1);
  app.fallthrough();
  std::string level = "info";
  app.add_option("--log-level", level, "debug, info, warning, error or off")->capture_default_str();
  app.parse_complete_callback([&level] { instruct::set_log_level(instruct::log_level_from_name(level)); });
  namespace cli = instruct::cli;
  for (const auto add :
       {cli::add_train_command, cli::add_eval_command, cli::add_score_command, cli::add_embed_command,
        cli::add_run_command, cli::add_chat_command, cli::add_data_command, cli::add_export_command,
        cli::add_inspect_command, cli::add_metrics_command, cli::add_tokenize_command, cli::add_bench_command}) {
    add(app);
  }
  app.footer(kExamples);  // after the commands, which would inherit it
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
      explain(app, argc, argv, error);
    }
    std::cout.flush();
    if (!std::cout) instruct::raise(instruct::ErrorCategory::kIo, "cannot write to standard output");
    return 0;
  } catch (const instruct::Error& error) {
    return failed(error.what(), error.category());
  } catch (const std::filesystem::filesystem_error& error) {
    return failed(fmt::format("'{}': {}", error.path1().string(), error.code().message()),
                  instruct::ErrorCategory::kIo);
  } catch (const std::bad_alloc&) {
    return failed("out of memory", instruct::ErrorCategory::kInternal);
  } catch (const std::exception& error) {
    return failed(fmt::format("internal error: {}", error.what()), instruct::ErrorCategory::kInternal);
  }
}
