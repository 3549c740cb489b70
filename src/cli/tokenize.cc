#include <CLI/CLI.hpp>

#include <fmt/format.h>

#include <iostream>

#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "models/tokenizer_files.h"

namespace instruct::cli {
namespace {

struct Options {
  std::string model;
  std::string file = "-";
  bool ids = false;
  bool specials = false;
  bool json = false;
  bool offsets = false;
  bool framed = false;
};

// {"ids": [...], "tokens": [...], "offsets": [[begin, end], ...]}.
Value tokens_value(const tokenizers::Tokenizer& tokenizer, const std::vector<tokenizers::Token>& tokens) {
  Value ids = Value::array(), names = Value::array(), offsets = Value::array();
  for (const tokenizers::Token& token : tokens) {
    ids.push(token.id);
    names.push(tokenizer.spec().tokens[static_cast<std::size_t>(token.id)]);
    offsets.push(Value(Value::Array{Value(std::int64_t{token.begin}), Value(std::int64_t{token.end})}));
  }
  return Value::object({{"ids", ids}, {"tokens", names}, {"offsets", offsets}});
}

void run(const Options& options) {
  const tokenizers::Tokenizer tokenizer = models::open_tokenizer(options.model);
  const std::string text = read_file(options.file);
  for_each_line(text, [&](std::string_view line, std::int64_t) {
    auto tokens = options.specials ? tokenizer.encode_with_specials(line) : tokenizer.encode_plain(line);
    if (options.framed) tokens = tokenizer.frame(tokens).tokens;
    if (options.json) {
      std::cout << dump_json(tokens_value(tokenizer, tokens)) << '\n';
      return;
    }
    std::string out;
    for (const tokenizers::Token& token : tokens) {
      if (!out.empty()) out += ' ';
      out += options.ids ? std::to_string(token.id) : tokenizer.spec().tokens[static_cast<std::size_t>(token.id)];
      if (options.offsets) out += fmt::format(":{}:{}", token.begin, token.end);
    }
    std::cout << out << '\n';
  });
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Tokens of a text, one line in, one line out");
  command->add_option("--model,-m", options->model, "GGUF file, or a folder with the tokenizer of a Hugging Face model")
      ->required();
  command->add_flag("--ids", options->ids, "print ids instead of tokens");
  command->add_flag("--json", options->json, "print ids, tokens and offsets of each line as JSON");
  command->add_flag("--offsets", options->offsets,
                    "print behind each token :BEGIN:END, the bytes of the line it stands for");
  command->add_flag("--framed", options->framed, "with the special tokens that the model wants around a text");
  command->add_flag("--special", options->specials, "recognise special tokens in the text");
  command->add_option("file", options->file, "text file; - for standard input")->capture_default_str();
  command->footer("\nExample:\n  echo 'Hello world' | instruct tokenize --model M.gguf --ids");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
