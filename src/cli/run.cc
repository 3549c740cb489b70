#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/session.h"
#include "evaluate/program.h"
#include "instructions/program_check.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string program, input = "-";
  std::vector<std::string> variables;
  evaluate::ProgramOptions run;
  GenerationOptions generation;
  bool json = false;
};

// The document variable gets the input; --set name=value the others.
Value variables_of(const Options& options, const instructions::InstructionSet& set) {
  std::vector<std::string> known;
  for (const instructions::Variable& variable : set.variables) known.push_back(variable.name);
  Value variables = Value::object();
  for (const std::string& assignment : options.variables) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos)
      raise(ErrorCategory::kInvalidArgument, "--set '{}': expected name=value", assignment);
    const std::string name = assignment.substr(0, equals);
    if (set.find_variable(name) == nullptr) {
      raise(ErrorCategory::kInvalidArgument, "--set '{}': {} has no variable '{}'{}", assignment, set.origin, name,
            did_you_mean(name, known));
    }
    variables.set(name, assignment.substr(equals + 1));
  }
  const instructions::Variable* document = set.document_variable();
  if (document == nullptr)
    raise(ErrorCategory::kInvalidArgument, "{}: there is no text variable to read the input into", set.origin);
  std::string text = read_file(options.input);
  if (const auto byte = find_invalid_utf8(text))
    raise(ErrorCategory::kBadData, "{}: byte {} is not UTF-8", options.input == "-" ? "standard input" : options.input,
          *byte);
  variables.set(document->name, std::move(text));
  return variables;
}

void run(Options& options) {
  if (options.model.instructions.empty())
    raise(ErrorCategory::kInvalidArgument, "run needs an instruction set: --instructions FILE.iset.yaml");
  const instructions::InstructionSet set = instructions::load_instruction_set(options.model.instructions);
  const std::string source = options.program.empty() ? set.program : options.program;
  if (source.empty()) raise(ErrorCategory::kInvalidArgument, "no program: give one, or 'program:' in {}", set.origin);
  const instructions::Program program = instructions::parse_checked_program(source, set, "program");
  const instructions::Plan plan = instructions::make_plan(program, set, variables_of(options, set));
  const auto session = open_session(options.model, {.integers = ops::IntegerUse::kForward16});
  options.generation.sampling.seed = options.model.seed;
  options.run.max_new_tokens = options.generation.max_new_tokens;
  evaluate::Responder responder(*session->engine, *session->package.model, *session->dialogue,
                                {.sampling = options.generation.sampling,
                                 .stop = options.generation.stop,
                                 .generation = options.generation.engine});
  Progress progress("Running", static_cast<std::int64_t>(plan.calls.size()), "calls");
  const evaluate::ProgramResult result = evaluate::run_plan(responder, *session->dialogue, set, plan, options.run,
                                                            [&](std::int64_t done) { progress.update(done); });
  progress.finish();
  std::cout << evaluate::result_text(plan, set, options.json ? instructions::Combine::kJson : set.combine, result)
            << '\n';
}

}  // namespace

void add_run_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "Run a program of an instruction set over a document");
  options->model.add_to(*command);
  command->add_option("program", options->program,
                      "calls, for instance \"[summary('1st paragraph'), ...]\"; default: the set's own");
  command->add_option("--input", options->input, "document; - for standard input")->capture_default_str();
  command->add_option("--set", options->variables, "further variables, name=value");
  command->add_option("--shots", options->run.shots, "examples of the set before each call, as far as a verb has any")
      ->check(CLI::NonNegativeNumber);
  options->generation.add_to(*command);
  options->generation.add_beams_to(*command);
  command->add_flag("--json", options->json, "every call with its output, and the probabilities of labels, as JSON");
  command->footer(
      "\nExample:\n  instruct run --model M.gguf --instructions notes.iset.yaml \"[summary('1st paragraph'), "
      "summary('2nd paragraph'), ...]\" --input page.txt");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
