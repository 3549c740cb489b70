// `instruct chat`: a dialogue in the terminal or over pipes.
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <csignal>

#include <iostream>

#include "base/cancel.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/session.h"
#include "generate/conversation.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string system;
  GenerationOptions generation{
      .sampling = {.temperature = 0.7, .top_p = 0.95}, .stop = {}, .max_new_tokens = 512, .engine = {}};
};

constexpr const char* kHelp =
    "/help          this list\n"
    "/reset         forget the dialogue\n"
    "/system TEXT   start anew under another system message; without TEXT under none\n"
    "/exit          leave, as Ctrl-D does\n"
    "Ctrl-C stops an answer, at the prompt it leaves. A line that starts with // is a message that starts with /.\n";

class Chat {
 public:
  Chat(Session& session, const Options& options)
      : conversation_(*session.engine, *session.package.model, *session.dialogue, options.system,
                      options.generation.engine),
        turn_{.max_new_tokens = options.generation.max_new_tokens,
              .sampling = options.generation.sampling,
              .stop = options.generation.stop},
        terminal_(isatty(STDIN_FILENO) == 1) {
    turn_.sampling.seed = options.model.seed;
  }

  void run() {
    if (terminal_) std::cerr << "Type a message, /help for commands; Ctrl-D ends.\n";
    std::string line;
    for (;;) {
      if (terminal_) std::cerr << "> " << std::flush;
      if (!std::getline(std::cin, line)) break;
      if (line.ends_with('\r')) line.pop_back();
      if (trim(line).empty()) continue;
      if (line.starts_with("//")) {
        answer(line.substr(1));
      } else if (line.front() == '/') {
        if (!command(line)) return;
      } else {
        answer(line);
      }
    }
    if (terminal_) std::cerr << '\n';
    throw_if_cancelled("the chat");
  }

 private:
  // Carries out a command; false to leave.
  bool command(std::string_view line) {
    static const std::vector<std::string> names{"/help", "/reset", "/system", "/exit"};
    const std::string name(line.substr(0, line.find_first_of(" \t")));
    const std::string_view rest = trim(line.substr(name.size()));
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help") {
      std::cerr << kHelp;
    } else if (name == "/reset" || name == "/clear") {
      conversation_.reset();
      std::cerr << "The dialogue starts anew.\n";
    } else if (name == "/system") {
      conversation_.set_system(repair_utf8(rest));
      std::cerr << "The dialogue starts anew " << (rest.empty() ? "without a" : "under this") << " system message.\n";
    } else {
      std::cerr << "Unknown command " << repair_utf8(name) << did_you_mean(name, names)
                << " (// starts a message with /)\n";
    }
    return true;
  }

  void answer(const std::string& message) {
    std::size_t printed = 0;
    const auto print = [&](std::string_view text) {
      std::cout << text.substr(printed) << std::flush;
      printed = text.size();
      return !cancel_requested();
    };
    try {
      const generate::Turn turn = conversation_.reply(repair_utf8(message), turn_, print);
      std::cout << std::endl;
      if (turn.dropped_messages > 0)
        std::cerr << "(the context is full: the oldest " << turn.dropped_messages << " messages were dropped)\n";
      if (!turn.interrupted && turn.answer.finish == generate::Finish::kLength)
        std::cerr << "(cut: the answer reached --max-new-tokens or the end of the context)\n";
    } catch (const Error& error) {
      // A dialogue in a terminal survives a message that is too long; a script should hear of it.
      if (!terminal_ || error.category() != ErrorCategory::kInvalidArgument) throw;
      std::cerr << error.what() << '\n';
    }
    // Ctrl-C in a terminal is for the answer only; over pipes, and SIGTERM, for the program.
    if (!terminal_ || cancel_signal() != SIGINT) throw_if_cancelled("the chat");
    if (cancel_requested()) {
      clear_cancel();
      install_cancel_handlers();
    }
  }

  generate::Conversation conversation_;
  generate::TurnOptions turn_;
  bool terminal_;
};

void run(const Options& options) {
  const auto session = open_session(options.model, {.integers = ops::IntegerUse::kForward16});
  require_decoder(*session, "chat");
  Chat(*session, options).run();
}

}  // namespace

void add_chat_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model, one line a turn");
  options->model.add_to(*command);
  command->add_option("--system", options->system, "system message");
  options->generation.add_to(*command);
  command->footer(std::string("\nCommands while talking:\n") + kHelp +
                  "\nExample:\n  instruct chat --model M.gguf --adapter runs/notes");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
