// `instruct train`: reads the configuration and starts a run.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/yaml.h"
#include "cli/commands.h"
#include "cli/train_run.h"

namespace instruct::cli {
namespace {

// "--key value" and "--key=value" to pairs.
std::vector<std::pair<std::string, std::string>> overrides_of(const std::vector<std::string>& arguments) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    const bool dashes = name.starts_with("--");
    if (dashes) name = name.substr(2);
    const std::size_t equals = name.find('=');
    if (equals != std::string::npos) {
      pairs.emplace_back(name.substr(0, equals), name.substr(equals + 1));
    } else if (dashes && i + 1 < arguments.size()) {
      pairs.emplace_back(name, arguments[++i]);
    } else {
      raise(ErrorCategory::kInvalidArgument, "'{}' is no 'key=value' and no '--key value'", arguments[i]);
    }
  }
  return pairs;
}

std::string key_table() {
  std::string text = "\nKeys (in the file, or as --key value; the command line wins):\n";
  for (const train::KeyHelp& key : train::train_key_help()) {
    text +=
        fmt::format("  {:<30} {}{}{}\n", key.key, key.meaning, key.standard.empty() ? "" : " [" + key.standard + "]",
                    key.aliases.empty() ? "" : "; also " + key.aliases);
  }
  return text + "\nExample:\n  instruct train train.yaml --learning_rate 5e-4 --output_dir runs/notes\n";
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("train", "Tune a model on your rows, LoRA or full: train [CONFIG.yaml] [--key value ...]");
  // The keys are the configuration's, not options of the parser: everything behind the command is read here.
  command->prefix_command();
  command->fallthrough(false);
  command->footer(key_table);
  command->callback([command] {
    std::vector<std::string> arguments = command->remaining();
    if (std::find(arguments.begin(), arguments.end(), "--help") != arguments.end()) {
      std::cout << command->help();
      return;
    }
    std::string path;
    if (!arguments.empty() && !arguments.front().starts_with("--") &&
        arguments.front().find('=') == std::string::npos) {
      path = arguments.front();
      arguments.erase(arguments.begin());
    }
    if (path.empty() && arguments.empty())
      raise(ErrorCategory::kInvalidArgument,
            "train needs a configuration file or --key value pairs; see instruct train --help");
    Value config;
    if (!path.empty()) config = parse_yaml(read_file(path, 64 << 20), path);
    TrainRun(train::parse_train_config(config, path, overrides_of(arguments))).execute();
  });
}

}  // namespace instruct::cli
