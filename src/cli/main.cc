// The `instruct` program: one subcommand a task.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>

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

// A first word that is no command gets the nearest one, which the parser would not name.
void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), argv[1]) != known.end()) return;
  instruct::raise(instruct::ErrorCategory::kInvalidArgument, "unknown command '{}'{}; see instruct --help", argv[1],
                  instruct::did_you_mean(argv[1], known));
}

}  // namespace

int main(int argc, char** argv) {
  instruct::install_cancel_handlers();
  CLI::App app{"Tune, measure and run language models on your own instruction set.", "instruct"};
  app.set_version_flag("--version", "instruct " INSTRUCT_VERSION " (" INSTRUCT_COMPILER ")");
  app.footer(kExamples);
  app.require_subcommand(1);
  app.fallthrough();
  std::string level = "info";
  app.add_option("--log-level", level, "debug, info, warning, error or off")->capture_default_str();
  app.parse_complete_callback([&level] { instruct::set_log_level(instruct::log_level_from_name(level)); });
  namespace cli = instruct::cli;
  for (const auto add :
       {cli::add_train_command, cli::add_eval_command, cli::add_score_command, cli::add_run_command,
        cli::add_chat_command, cli::add_data_command, cli::add_export_command, cli::add_inspect_command,
        cli::add_metrics_command, cli::add_tokenize_command, cli::add_bench_command}) {
    add(app);
  }
  try {
    refuse_unknown_command(app, argc, argv);
    app.parse(argc, argv);
    std::cout.flush();
    if (!std::cout) instruct::raise(instruct::ErrorCategory::kIo, "cannot write to standard output");
    return 0;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : instruct::exit_code(instruct::ErrorCategory::kInvalidArgument);
  } catch (const instruct::Error& error) {
    std::fprintf(stderr, "instruct: %s\n", error.what());
    return instruct::exit_code(error.category());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "instruct: internal error: %s\n", error.what());
    return instruct::exit_code(instruct::ErrorCategory::kInternal);
  }
}
