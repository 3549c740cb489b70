#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/session.h"
#include "cli/text_session.h"
#include "data/encode.h"
#include "evaluate/score.h"
#include "evaluate/task.h"
#include "evaluate/text_task.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string data;
  std::string dataset_dir;
  std::int64_t shots = 0;
  bool separate = false;
  bool labels = false;
  std::string label_score = "sum";
  data::MaskingOptions masking;
};

Value row_line(const data::Example& example, const evaluate::RowScore& score) {
  return Value::object({{"row", example.row}, {"logprob", score.log_probability}, {"tokens", score.tokens}});
}

// A row with all labels of its verb, the best first.
Value label_line(const evaluate::AnsweredRow& row, const std::vector<std::string>& labels) {
  std::vector<std::size_t> order(labels.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return row.label_probabilities[a] > row.label_probabilities[b];
  });
  Value ranking = Value::array();
  for (const std::size_t label : order) {
    ranking.push(Value::object({{"label", labels[label]},
                                {"probability", row.label_probabilities[label]},
                                {"logprob", row.label_log_probabilities[label]}}));
  }
  return Value::object({{"row", row.row}, {"label", row.reference}, {"predict", row.answer}, {"labels", ranking}});
}

void check_labels(const data::Dataset& dataset, const instructions::InstructionSet* set) {
  for (const data::Example& example : dataset.examples) {
    const bool call = set != nullptr && example.format == data::RowFormat::kInstruction;
    if (call && set->instruction(example.verb).output.type == instructions::OutputType::kLabel) continue;
    raise(ErrorCategory::kInvalidArgument,
          "{}: --labels ranks the labels of a verb whose output has type 'label', and {}; leave --labels out to score "
          "the given answers",
          dataset.where(example),
          call ? "'" + example.verb + "' has another" : "this row is no call of an instruction set");
  }
}

void rank_labels(const Options& options, const data::Dataset& dataset, Session& session) {
  check_labels(dataset, session.instruction_set());
  evaluate::TaskOptions task{
      .metrics = {"accuracy"}, .shots = options.shots, .bootstrap = 0, .seed = options.model.seed};
  task.responder.label_score = evaluate::label_score_from_name(options.label_score);
  if (options.separate) task.responder.generation.layout = data::Layout::kRows;
  Progress progress("Scoring", static_cast<std::int64_t>(dataset.examples.size()), "rows");
  const evaluate::TaskReport report =
      evaluate::evaluate_rows(*session.engine, *session.package.model, *session.dialogue, session.instruction_set(),
                              dataset, task, [&](std::int64_t done) { progress.update(done); });
  progress.finish();
  for (const evaluate::AnsweredRow& row : report.answers)
    std::cout << dump_json(label_line(row, session.instruction_set()->instruction(row.verb).output.labels)) << '\n';
}

// Rows of an encoder with heads: what is true of each, over what is true or not on its own (labels, sentences, ends of
// spans, words); of texts without verbs, the tokens that were left out.
void score_texts(const Options& options, const data::Dataset& dataset) {
  using Without = TextSessionOptions::Without;
  const bool masked = is_masked_lm(options.model.instructions, dataset);
  const auto session = open_text_session({.model = options.model.model,
                                          .adapter = options.model.adapter,
                                          .instructions = options.model.instructions,
                                          .dtype = options.model.dtype,
                                          .threads = options.model.threads,
                                          .without = masked ? Without::kMasks : Without::kRefused});
  if (options.labels) check_labels(dataset, session->set ? &*session->set : nullptr);
  data::MaskingOptions masking = options.masking;
  masking.seed = options.model.seed;
  const std::vector<data::TextRow> rows = masked ? session->encode_masked(dataset, masking) : session->encode(dataset);
  const std::vector<std::span<const data::TextRow>> examples = data::by_example(rows);
  Progress progress("Scoring", static_cast<std::int64_t>(rows.size()), "rows");
  const auto on_done = [&](std::int64_t done) { progress.update(done); };
  const auto example_of = [&](std::span<const data::TextRow> example) -> const data::Example& {
    return dataset.examples[static_cast<std::size_t>(example.front().example)];
  };
  if (masked) {
    const std::vector<evaluate::RowScore> scores =
        evaluate::score_masked(*session->engine, *session->model, session->tasks.front(), rows, on_done);
    progress.finish();
    std::size_t piece = 0;
    for (const std::span<const data::TextRow> example : examples) {
      evaluate::RowScore sum;
      for (std::size_t i = 0; i < example.size(); ++i, ++piece) {
        sum.log_probability += scores[piece].log_probability;
        sum.tokens += scores[piece].tokens;
      }
      std::cout << dump_json(row_line(example_of(example), sum)) << '\n';
    }
    return;
  }
  const std::vector<evaluate::TextAnswer> answers = evaluate::answer_texts(session->answerer(), rows, on_done);
  progress.finish();
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const data::Example& example = example_of(examples[i]);
    const data::TextRow& row = examples[i].front();
    if (options.labels) {
      const std::vector<std::string>& labels = session->set->instructions[row.verb].output.labels;
      const evaluate::AnsweredRow answered{
          .row = example.row,
          .answer = answers[i].text,
          .reference = row.truth.empty() ? "" : labels[static_cast<std::size_t>(row.truth.front())],
          .label_probabilities = answers[i].probabilities,
          .label_log_probabilities = answers[i].log_probabilities};
      std::cout << dump_json(label_line(answered, labels)) << '\n';
    } else {
      if (row.truth.empty()) raise(ErrorCategory::kBadData, "{}: there is no output to score", dataset.where(example));
      std::cout << dump_json(row_line(example, {answers[i].log_probability, answers[i].units})) << '\n';
    }
  }
}

void run(const Options& options) {
  const data::Dataset dataset = data::open_dataset(options.data, options.dataset_dir);
  if (models::is_encoder(options.model.model)) return score_texts(options, dataset);
  const auto session = open_session(options.model);
  if (options.labels) return rank_labels(options, dataset, *session);
  const data::RowEncoder encoder(*session->dialogue, session->instruction_set());
  data::EncodeReport report;
  const std::vector<data::EncodedRow> rows = encoder.encode_all(dataset, data::row_indices(dataset),
                                                                {.cutoff = session->package.config.context_length,
                                                                 .cutoff_name = "the model's context",
                                                                 .shots = options.shots,
                                                                 .seed = options.model.seed},
                                                                report);
  Progress progress("Scoring", report.rows, "rows");
  const std::vector<evaluate::RowScore> scores = evaluate::score_rows(
      *session->engine, *session->package.model, rows, session->package.tokenizer->vocabulary_size(),
      {.layout = options.separate ? data::Layout::kRows : data::Layout::kTree},
      [&](std::int64_t done) { progress.update(done); });
  progress.finish();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const data::Example& example = dataset.examples[static_cast<std::size_t>(rows[i].example)];
    std::cout << dump_json(row_line(example, scores[i])) << '\n';
  }
}

}  // namespace

void add_score_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("score", "log P(answer | instruction, input) of every row, as JSON lines");
  options->model.add_to(*command);
  command->add_option("--data,-d", options->data, "rows (.jsonl, .json, .csv)")->required();
  command->add_option("--dataset-dir", options->dataset_dir, "folder of dataset_info.json");
  command->add_option("--shots", options->shots, "examples of the instruction set before each row")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--labels", options->labels, "score every label of each row's verb, in one pass over the question");
  add_label_score(*command, options->label_score);
  add_masking_options(*command, options->masking);
  command->add_flag("--separate", options->separate, "compute every row on its own instead of sharing prefixes");
  command->add_flag_callback(
      "--json", [] {}, "JSON lines, which this command always writes");
  command->footer(
      "\nExample:\n  instruct score --model M.gguf --data test.jsonl --dtype f32\n\n"
      "Each line: row, logprob (natural log, summed over the answer's tokens and its end token), tokens.\n"
      "With --labels: row, label (the given answer), predict (the best label), and labels, a list of label,\n"
      "probability and logprob, the best first.");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
