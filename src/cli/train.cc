// `instruct train`: reads the configuration and starts a run.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/yaml.h"
#include "cli/commands.h"
#include "cli/decoder_run.h"
#include "cli/encoder_run.h"

namespace instruct::cli {
namespace {

struct Request {
  std::string config_path;
  std::vector<std::pair<std::string, std::string>> overrides;
  Results results = Results::kText;
  bool help = false;
};

// What is no key of the configuration; true when `name` was one of these.
bool take_general(Request& request, const std::string& name, const std::string& value) {
  if (name == "log_level") {
    set_log_level(log_level_from_name(value));
  } else if (name == "json") {
    request.results = value == "false" ? Results::kText : Results::kJson;
  } else if (name == "help") {
    request.help = true;
  } else {
    return false;
  }
  return true;
}

// "--key value", "--key=value", "key=value", "--key" alone for true; "-" in a key is "_". The first word that is none
// of these is the configuration file.
Request request_of(const std::vector<std::string>& arguments) {
  Request request;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool dashes = word.starts_with("--");
    const std::size_t equals = word.find('=');
    if (!dashes && equals == std::string::npos) {
      if (i > 0) raise(ErrorCategory::kInvalidArgument, "'{}' is no 'key=value' and no '--key value'", word);
      request.config_path = word;
      continue;
    }
    std::string name = word.substr(dashes ? 2 : 0, equals == std::string::npos ? equals : equals - (dashes ? 2 : 0));
    std::replace(name.begin(), name.end(), '-', '_');
    const bool flag =
        name == "json" || name == "help" || i + 1 == arguments.size() || arguments[i + 1].starts_with("--");
    const std::string value = equals != std::string::npos ? word.substr(equals + 1) : flag ? "true" : arguments[++i];
    if (!take_general(request, name, value)) request.overrides.emplace_back(name, value);
  }
  return request;
}

std::string key_table() {
  std::string text = "\nKeys (in the file, or as --key value; the command line wins):\n";
  for (const train::KeyHelp& key : train::train_key_help()) {
    text +=
        fmt::format("  {:<30} {}{}{}\n", key.key, key.meaning, key.standard.empty() ? "" : " [" + key.standard + "]",
                    key.aliases.empty() ? "" : "; also " + key.aliases);
  }
  return text +
         "\nAlso --log-level LEVEL, and --json for the results as one JSON object on standard output.\n"
         "\nExamples:\n  instruct train train.yaml --learning_rate 5e-4 --output_dir runs/notes\n"
         "  instruct train --model M.gguf --dataset rows.jsonl --output_dir runs/rows --num_train_epochs 3\n"
         "  instruct train train.yaml --output_dir runs/notes --resume_from_checkpoint auto\n";
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
    const Request request = request_of(command->remaining());
    if (request.help) {
      std::cout << command->help();
      return;
    }
    if (request.config_path.empty() && request.overrides.empty())
      raise(ErrorCategory::kInvalidArgument,
            "train needs a configuration file or --key value pairs; see instruct train --help");
    Value config;
    if (!request.config_path.empty())
      config = parse_yaml(read_file(request.config_path, 64 << 20), request.config_path);
    train::TrainConfig parsed = train::parse_train_config(config, request.config_path, request.overrides);
    if (models::is_encoder(parsed.model_name_or_path)) {
      EncoderRun(std::move(parsed), request.results).execute();
    } else {
      DecoderRun(std::move(parsed), request.results).execute();
    }
  });
}

}  // namespace instruct::cli
