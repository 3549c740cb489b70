#include <unistd.h>
#include <CLI/CLI.hpp>

#include <iostream>

#include "base/cancel.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "generate/generator.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string system;
  std::int64_t max_new_tokens = 512;
  generate::SamplingOptions sampling{.temperature = 0.7, .top_p = 0.95};
};

// Prints what is new since the last call, holding back a character that is not complete yet.
class Stream {
 public:
  void operator()(std::string_view text) {
    const std::size_t ready = text.size() - incomplete_utf8_tail(text);
    if (ready <= printed_) return;
    std::cout << text.substr(printed_, ready - printed_) << std::flush;
    printed_ = ready;
  }

 private:
  std::size_t printed_ = 0;
};

void run(const Options& options) {
  const auto session = open_session(options.model);
  generate::Generator generator(*session->engine, *session->package.model, *session->package.tokenizer);
  std::vector<instructions::Message> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system, {}});
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) std::cerr << "Type a message; an empty line or Ctrl-D ends.\n";
  std::string line;
  std::uint64_t turn = 0;
  for (;;) {
    if (terminal) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) return throw_if_cancelled("chat");
    if (terminal && trim(line).empty()) return;
    if (trim(line).empty()) continue;
    messages.push_back({"user", repair_utf8(line), {}});
    generate::Request request{.prompt = session->dialogue->encode_prompt(messages),
                              .max_new_tokens = options.max_new_tokens,
                              .sampling = options.sampling};
    request.sampling.seed = options.model.seed + turn++;
    Stream stream;
    const std::vector<generate::Request> requests{request};
    const auto answers = generator.run(requests, {}, [&](std::size_t, std::string_view text) { stream(text); });
    std::cout << std::endl;
    messages.push_back({"assistant", answers.front().text, {}});
  }
}

}  // namespace

void add_chat_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model, one line a turn");
  options->model.add_to(*command);
  command->add_option("--system", options->system, "system message");
  command->add_option("--max-new-tokens", options->max_new_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", options->sampling.temperature, "0 is greedy")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-k", options->sampling.top_k)->check(CLI::NonNegativeNumber);
  command->add_option("--top-p", options->sampling.top_p)->capture_default_str()->check(CLI::Range(0.0, 1.0));
  command->add_option("--min-p", options->sampling.min_p)->check(CLI::Range(0.0, 1.0));
  command->add_option("--repetition-penalty", options->sampling.repetition_penalty)->check(CLI::PositiveNumber);
  command->footer("\nExample:\n  instruct chat --model M.gguf --adapter runs/notes");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
