#include <CLI/CLI.hpp>

#include <iostream>

#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "models/package.h"

namespace instruct::cli {
namespace {

struct Options {
  std::string model;
  std::string file = "-";
  bool ids = false;
  bool specials = false;
  bool json = false;
};

// {"ids": [...], "tokens": [...]}.
Value tokens_value(const tokenizers::Tokenizer& tokenizer, const std::vector<tokenizers::Token>& tokens) {
  Value ids = Value::array(), names = Value::array();
  for (const tokenizers::Token& token : tokens) {
    ids.push(token.id);
    names.push(tokenizer.spec().tokens[static_cast<std::size_t>(token.id)]);
  }
  return Value::object({{"ids", ids}, {"tokens", names}});
}

void run(const Options& options) {
  const auto allocator = tensor::make_host_allocator();
  const models::Package package = models::open_package(options.model, models::PackageParts::kTokenizer, {}, *allocator);
  const std::string text = read_file(options.file);
  for_each_line(text, [&](std::string_view line, std::int64_t) {
    const auto tokens =
        options.specials ? package.tokenizer->encode_with_specials(line) : package.tokenizer->encode_plain(line);
    if (options.json) {
      std::cout << dump_json(tokens_value(*package.tokenizer, tokens)) << '\n';
      return;
    }
    std::string out;
    for (const tokenizers::Token& token : tokens) {
      if (!out.empty()) out += ' ';
      out +=
          options.ids ? std::to_string(token.id) : package.tokenizer->spec().tokens[static_cast<std::size_t>(token.id)];
    }
    std::cout << out << '\n';
  });
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Tokens of a text, one line in, one line out");
  command->add_option("--model,-m", options->model, "GGUF file or Hugging Face folder")->required();
  command->add_flag("--ids", options->ids, "print ids instead of tokens");
  command->add_flag("--json", options->json, "print ids and tokens of each line as JSON");
  command->add_flag("--special", options->specials, "recognise special tokens in the text");
  command->add_option("file", options->file, "text file; - for standard input")->capture_default_str();
  command->footer("\nExample:\n  echo 'Hello world' | instruct tokenize --model M.gguf --ids");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
