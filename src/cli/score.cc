#include <CLI/CLI.hpp>

#include <iostream>
#include <numeric>

#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/encode.h"
#include "evaluate/score.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string data;
  std::string dataset_dir;
  std::int64_t shots = 0;
  bool separate = false;
};

void run(const Options& options) {
  const data::Dataset dataset = data::open_dataset(options.data, options.dataset_dir);
  const auto session = open_session(options.model);
  const data::RowEncoder encoder(*session->dialogue, session->instruction_set());
  data::EncodeReport report;
  std::vector<std::int64_t> indices(dataset.examples.size());
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  const std::vector<data::EncodedRow> rows = encoder.encode_all(dataset, indices,
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
    const Value line = Value::object({{"row", dataset.examples[static_cast<std::size_t>(rows[i].example)].row},
                                      {"logprob", scores[i].log_probability},
                                      {"tokens", scores[i].tokens}});
    std::cout << dump_json(line) << '\n';
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
  command->add_flag("--separate", options->separate, "compute every row on its own instead of sharing prefixes");
  command->add_flag_callback(
      "--json", [] {}, "JSON lines, which this command always writes");
  command->footer(
      "\nExample:\n  instruct score --model M.gguf --data test.jsonl --dtype f32\n\n"
      "Each line: row, logprob (natural log, summed over the answer's tokens and its end token), tokens.");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
