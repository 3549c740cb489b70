#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/results.h"
#include "cli/session.h"
#include "cli/text_session.h"
#include "evaluate/task.h"
#include "evaluate/text_task.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string data, dataset_dir, metrics, output, tokenizer = "13a", label_score = "sum";
  evaluate::TaskOptions task;
  GenerationOptions generation;
  data::MaskingOptions masking;
  bool json = false;
  bool separate = false;
};

// Refuses to overwrite, and finds out before hours of answering whether there can be a folder.
void prepare(const std::filesystem::path& folder) {
  for (const char* name : {"results.json", "generated_predictions.jsonl"}) {
    if (std::filesystem::exists(folder / name))
      raise(ErrorCategory::kInvalidArgument, "'{}' holds {} already: choose another --output", folder.string(), name);
  }
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) raise(ErrorCategory::kIo, "--output: cannot make '{}': {}", folder.string(), failure.message());
}

// The one adapter's folder, or a list of several.
Value adapters_value(const std::vector<std::string>& folders) {
  if (folders.size() < 2) return folders.empty() ? "" : folders.front();
  Value::Array list;
  for (const std::string& folder : folders) list.emplace_back(folder);
  return list;
}

void save(const evaluate::TaskReport& report, const std::filesystem::path& folder, const Options& options,
          const instructions::InstructionSet* set) {
  write_predictions(folder / "generated_predictions.jsonl", report, set);
  const generate::SamplingOptions& sampling = options.task.responder.sampling;
  Value results = Value::object({{"model", options.model.model},
                                 {"adapter", adapters_value(options.model.adapters)},
                                 {"instructions", options.model.instructions},
                                 {"data", options.data},
                                 {"rows", static_cast<std::int64_t>(report.answers.size())},
                                 {"shots", options.task.shots},
                                 {"temperature", sampling.temperature},
                                 {"label_score", options.label_score},
                                 {"seed", static_cast<std::int64_t>(sampling.seed)},
                                 {"seconds", report.seconds},
                                 {"results", evaluate::report_value(report)}});
  if (const std::int64_t most = options.generation.engine.prompt_lookup; most > 0) {
    results.set("prompt_lookup", Value::object({{"most", most},
                                                {"steps", report.counts.steps},
                                                {"proposed", report.counts.proposed},
                                                {"accepted", report.counts.accepted}}));
  }
  write_file_atomic(folder / "results.json", dump_json(results, {.indent = 2}) + "\n");
}

// Rows of an encoder with heads, or texts for the one of masked words.
void run_encoder(const Options& options, const data::Dataset& dataset) {
  if (options.model.adapters.size() > 1) raise(ErrorCategory::kUnsupported, "--adapter: encoders take one at a time");
  using Without = TextSessionOptions::Without;
  const bool masked = is_masked_lm(options.model.instructions, dataset);
  const auto session = open_text_session({.model = options.model.model,
                                          .adapter = options.model.adapters.empty() ? "" : options.model.adapters[0],
                                          .instructions = options.model.instructions,
                                          .dtype = options.model.dtype,
                                          .threads = options.model.threads,
                                          .without = masked ? Without::kMasks : Without::kRefused});
  const std::vector<data::TextRow> rows = masked ? session->encode_masked(dataset, options.masking, options.task.limit)
                                                 : session->encode(dataset, options.task.limit);
  Progress progress("Answering", static_cast<std::int64_t>(rows.size()), "rows");
  const auto on_done = [&](std::int64_t done) { progress.update(done); };
  const evaluate::TaskReport report =
      masked ? evaluate::evaluate_masked(*session->engine, *session->model, session->tasks.front(), rows, on_done)
             : evaluate::evaluate_texts(session->answerer(), dataset, rows, options.task, on_done);
  progress.finish();
  std::cout << (options.json ? dump_json(evaluate::report_value(report)) + "\n" : evaluate::report_table(report))
            << std::flush;
  if (!options.output.empty()) save(report, options.output, options, session->set ? &*session->set : nullptr);
}

void run(Options& options) {
  if (!options.output.empty()) prepare(options.output);
  if (!options.metrics.empty()) {
    for (const std::string_view name : split(options.metrics, ',')) options.task.metrics.emplace_back(trim(name));
    options.task.metrics = metrics::expand_metric_names(options.task.metrics);
  }
  options.task.metric.tokenizer = metrics::bleu_tokenizer_from_name(options.tokenizer);
  options.task.metric.rouge.cjk = options.tokenizer == "zh" || options.tokenizer == "char";
  options.task.seed = options.model.seed;
  options.masking.seed = options.model.seed;
  options.task.max_new_tokens = options.generation.max_new_tokens;
  options.task.responder.sampling = options.generation.sampling;
  options.task.responder.sampling.seed = options.model.seed;
  options.task.responder.stop = options.generation.stop;
  options.task.responder.generation = options.generation.engine;
  options.task.responder.label_score = evaluate::label_score_from_name(options.label_score);
  if (options.separate) options.task.responder.generation.layout = data::Layout::kRows;
  const data::Dataset dataset = data::open_dataset(options.data, options.dataset_dir);
  if (models::is_encoder(options.model.model)) return run_encoder(options, dataset);
  const auto session = open_session(options.model);
  auto rows = static_cast<std::int64_t>(dataset.examples.size());
  if (options.task.limit > 0) rows = std::min(rows, options.task.limit);
  if (session->adapters != nullptr) {
    options.task.adapters = options.model.adapters;
    rows *= session->adapters->size();
  }
  Progress progress("Answering", rows, "rows");
  const evaluate::TaskReport report =
      evaluate::evaluate_rows(*session->engine, *session->package.model, *session->dialogue, session->instruction_set(),
                              dataset, options.task, [&](std::int64_t done) { progress.update(done); });
  progress.finish();
  if (options.generation.engine.prompt_lookup > 0)
    std::cerr << fmt::format("prompt lookup: {:.2f} tokens a step\n", report.counts.tokens_per_step());
  const auto open = std::count_if(report.answers.begin(), report.answers.end(),
                                  [](const evaluate::AnsweredRow& row) { return !row.has_reference; });
  if (open > 0) log_warning("{} rows have no output: answered, but not judged", open);
  // Printed first: should saving fail, the results are not lost.
  std::cout << (options.json ? dump_json(evaluate::report_value(report)) + "\n" : evaluate::report_table(report))
            << std::flush;
  if (!options.output.empty()) save(report, options.output, options, session->instruction_set());
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "Answer rows and measure the answers");
  options->model.add_to(*command, true);
  command->add_option("--data,-d", options->data, "rows with answers (.jsonl, .json, .csv)")->required();
  command->add_option("--dataset-dir", options->dataset_dir, "folder of dataset_info.json");
  command->add_option("--metrics", options->metrics,
                      "comma-separated: bleu, rouge (or rouge1, rouge2, rougeL, rougeLsum), chrf, chrf++, em, f1, "
                      "accuracy, precision, recall, macro_f1");
  command
      ->add_option("--tokenize", options->tokenizer,
                   "BLEU tokeniser: 13a, intl, zh, char, none (zh and char count CJK characters in ROUGE too)")
      ->capture_default_str();
  command->add_flag("--stemmer", options->task.metric.rouge.stemmer, "Porter stemmer in ROUGE");
  command->add_option("--shots", options->task.shots, "examples of the instruction set before each row")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--limit", options->task.limit, "first rows only")->check(CLI::NonNegativeNumber);
  command->add_option("--bootstrap", options->task.bootstrap, "resamples for the 95% intervals; 0 for none")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000));
  command->add_flag("--likelihood", options->task.likelihood, "also loss and perplexity of the reference answers");
  options->generation.add_to(*command);
  options->generation.add_beams_to(*command);
  command->add_flag("!--free,!--unconstrained", options->task.responder.constrained,
                    "generate typed outputs as free text instead of allowing only values of their type");
  add_label_score(*command, options->label_score);
  command->add_flag("--separate", options->separate,
                    "compute every row and label on its own instead of sharing prefixes");
  add_masking_options(*command, options->masking);
  command->add_option("--output,-o", options->output, "folder for every answer and the results");
  command->add_flag("--json", options->json, "results as JSON");
  command->footer(
      "\nExamples:\n  instruct eval --model M.gguf --adapter runs/notes --instructions notes.iset.yaml --data "
      "test.jsonl --output runs/notes/eval\n  instruct eval --model M.gguf --adapter runs/a --adapter runs/b "
      "--instructions notes.iset.yaml --data test.jsonl");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
