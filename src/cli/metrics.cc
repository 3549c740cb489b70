#include <CLI/CLI.hpp>

#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "metrics/metrics.h"

namespace instruct::cli {
namespace {

struct Options {
  std::string hypotheses;
  std::vector<std::string> references;
  std::string metrics = "bleu,rouge1,rouge2,rougeL,rougeLsum,chrf,em,f1";
  std::string tokenizer = "13a";
  metrics::MetricOptions metric;
  std::int64_t bootstrap = 0;
  bool json = false;
};

std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = read_file(path);
  if (text.empty()) raise(ErrorCategory::kBadData, "{}: the file is empty", path);
  std::vector<std::string> lines;
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (const auto bad = find_invalid_utf8(line))
      raise(ErrorCategory::kBadData, "{}: line {}: invalid UTF-8 at byte {}", path, number, *bad);
    lines.emplace_back(line);
  });
  return lines;
}

void run(Options& options) {
  const std::vector<std::string> hypotheses = lines_of(options.hypotheses);
  std::vector<std::vector<std::string>> references(hypotheses.size());
  for (const std::string& path : options.references) {
    const std::vector<std::string> lines = lines_of(path);
    if (lines.size() != hypotheses.size()) {
      raise(ErrorCategory::kBadData, "{} has {} lines, {} has {}: they must be parallel", options.hypotheses,
            hypotheses.size(), path, lines.size());
    }
    for (std::size_t i = 0; i < lines.size(); ++i) references[i].push_back(lines[i]);
  }
  std::vector<std::string> names;
  for (const std::string_view name : split(options.metrics, ',')) names.emplace_back(trim(name));
  options.metric.tokenizer = metrics::bleu_tokenizer_from_name(options.tokenizer);
  options.metric.bootstrap = options.bootstrap;
  const auto values = metrics::evaluate_metrics(names, hypotheses, references, options.metric);
  if (options.json) {
    Value root = Value::object();
    for (const auto& value : values) root.set(value.name, value.value);
    std::cout << dump_json(root) << '\n';
    return;
  }
  for (const auto& value : values) {
    std::cout << fmt::format("{:<10} {:6.2f}", value.name, value.value);
    if (value.interval)
      std::cout << fmt::format("   95% {:.2f} to {:.2f}", value.interval->first, value.interval->second);
    if (value.name == "bleu") std::cout << "   " << metrics::bleu_signature(options.metric, options.references.size());
    std::cout << '\n';
  }
}

}  // namespace

void add_metrics_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("metrics", "BLEU, ROUGE, chrF, exact match and F1 of parallel text files");
  command->add_option("--hypotheses", options->hypotheses, "answers, one a line")->required();
  command
      ->add_option("--references", options->references,
                   "reference answers, one a line; several files for several references")
      ->required();
  command->add_option("--metrics", options->metrics, "comma-separated")->capture_default_str();
  command->add_option("--tokenize", options->tokenizer, "BLEU tokeniser: 13a, intl, zh, char, none")
      ->capture_default_str();
  command->add_flag("--lowercase", options->metric.lowercase, "lower case for BLEU");
  command->add_flag("--stemmer", options->metric.rouge.stemmer, "Porter stemmer in ROUGE");
  command->add_flag("--cjk", options->metric.rouge.cjk, "CJK characters as ROUGE tokens");
  command->add_option("--bootstrap", options->bootstrap, "resamples for 95% intervals")->check(CLI::Range(0, 100000));
  command->add_option("--seed", options->metric.seed, "of the resamples")->capture_default_str();
  command->add_flag("--json", options->json, "one flat object, metric name to value");
  command->footer(
      "\nExample:\n  instruct metrics --hypotheses out.txt --references ref.txt --metrics bleu,rougeL --json");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
