#include "evaluate/text_task.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"

namespace instruct::evaluate {
namespace {

using instructions::FoundSpan;
using instructions::Instruction;
using instructions::OutputType;

// Precision, recall and F1 of what was chosen against what is true, 0 to 100.
std::vector<metrics::MetricValue> overlap_metrics(double both, double chosen, double right) {
  const auto share = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
  return {{"precision", share(both, chosen), {}},
          {"recall", share(both, right), {}},
          {"f1", share(2 * both, chosen + right), {}}};
}

// Over the labels or sentences of all rows together.
std::vector<metrics::MetricValue> choice_metrics(std::span<const data::TextRow* const> rows,
                                                 std::span<const TextAnswer* const> answers) {
  double both = 0;
  double chosen = 0;
  double right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < rows[i]->truth.size(); ++j) {
      const bool is = rows[i]->truth[j] > 0;
      const bool said = answers[i]->chosen[j] > 0;
      both += is && said ? 1 : 0;
      chosen += said ? 1 : 0;
      right += is ? 1 : 0;
    }
  }
  return overlap_metrics(both, chosen, right);
}

// Over whole parts of all rows together: right are those with the same field and the same ends.
std::vector<metrics::MetricValue> extraction_metrics(std::span<const TextAnswer* const> answers) {
  double both = 0;
  double chosen = 0;
  double right = 0;
  for (const TextAnswer* answer : answers) {
    chosen += static_cast<double>(answer->found.size());
    right += static_cast<double>(answer->truth.size());
    for (const FoundSpan& found : answer->found) {
      both += std::any_of(answer->truth.begin(), answer->truth.end(), [&](const FoundSpan& truth) {
        return truth.field == found.field && truth.bytes == found.bytes;
      });
    }
  }
  return overlap_metrics(both, chosen, right);
}

// Of as many first sentences as were chosen.
std::string lead_of(const data::TextRow& row, const TextAnswer& answer) {
  const auto count = static_cast<std::size_t>(std::count(answer.chosen.begin(), answer.chosen.end(), 1.0F));
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += (i == 0 ? "" : " ") + row.sentences[i];
  return text;
}

const std::vector<std::string> kRouge{"rouge1", "rouge2", "rougeL"};
const std::vector<std::string> kAnswers{"em", "f1"};

// What compares texts; sets of labels and extraction have none.
std::vector<std::string> text_metrics(const Instruction& instruction, const TaskOptions& options) {
  const bool sentences = instruction.output.type == OutputType::kSentences;
  if (!sentences && instruction.output.type != OutputType::kSpan) return {};
  const std::vector<std::string>& named = options.metrics.empty() ? instruction.metrics : options.metrics;
  return named.empty() ? (sentences ? kRouge : kAnswers) : metrics::expand_metric_names(named);
}

// What compares what was chosen; none for one label and for spans.
std::vector<metrics::MetricValue> own_metrics(const Instruction& instruction,
                                              std::span<const data::TextRow* const> rows,
                                              std::span<const TextAnswer* const> answers) {
  switch (instruction.output.type) {
    case OutputType::kLabel:
    case OutputType::kSpan:
      return {};
    case OutputType::kList:
    case OutputType::kJson:
      return extraction_metrics(answers);
    default:
      return choice_metrics(rows, answers);
  }
}

}  // namespace

TaskReport evaluate_texts(const TextAnswerer& answerer, const data::Dataset& dataset,
                          std::span<const data::TextRow> rows, const TaskOptions& options,
                          const std::function<void(std::int64_t)>& on_done) {
  const auto start = std::chrono::steady_clock::now();
  const instructions::InstructionSet& set = answerer.set;
  const std::vector<TextAnswer> answers = answer_texts(answerer, rows, on_done);
  const std::vector<std::span<const data::TextRow>> examples = data::by_example(rows);
  TaskReport report;
  std::map<std::size_t, std::vector<std::size_t>> members;  // by verb
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const data::TextRow& first = examples[i].front();
    const data::Example& example = dataset.examples[static_cast<std::size_t>(first.example)];
    const Instruction& instruction = set.instructions[first.verb];
    if (first.truth.empty())
      raise(ErrorCategory::kBadData, "{}: there is no output to compare with", dataset.where(example));
    AnsweredRow& row = report.answers.emplace_back();
    row = {.row = example.row, .verb = example.verb};
    row.prompt = instructions::render_call(set, instruction, example.variables, 0);
    row.answer = answers[i].text;
    row.reference = instructions::encode_output(instruction, example.output, &example.variables);
    row.log_probability = answers[i].log_probability;
    row.finished = true;
    if (instruction.output.type != OutputType::kSentences) {
      row.label_probabilities = answers[i].probabilities;
      row.label_log_probabilities = answers[i].log_probabilities;
    }
    if (first.source != nullptr)
      row.spans = instructions::found_spans_value(instruction, answers[i].found, *first.source);
    members[first.verb].push_back(i);
  }
  const auto by_verb = text_metrics_by_verb(set, dataset, options);
  for (const auto& [verb, numbers] : members) {
    const Instruction& instruction = set.instructions[verb];
    std::vector<const AnsweredRow*> answered;
    std::vector<const data::TextRow*> texts;
    std::vector<const TextAnswer*> said;
    std::vector<AnsweredRow> leads;
    double log_probability = 0;
    std::int64_t units = 0;
    for (const std::size_t i : numbers) {
      answered.push_back(&report.answers[i]);
      texts.push_back(&examples[i].front());
      said.push_back(&answers[i]);
      log_probability += answers[i].log_probability;
      units += answers[i].units;
    }
    const bool label = instruction.output.type == OutputType::kLabel;
    const std::vector<std::string> names = label ? by_verb.at(instruction.verb) : text_metrics(instruction, options);
    VerbReport measured = measure_answers(instruction.verb, names, answered, options);
    const std::vector<metrics::MetricValue> own = own_metrics(instruction, texts, said);
    measured.metrics.insert(measured.metrics.begin(), own.begin(), own.end());
    if (instruction.output.type == OutputType::kSentences) {
      for (const std::size_t i : numbers) {
        leads.push_back(report.answers[i]);
        leads.back().answer = lead_of(examples[i].front(), answers[i]);
      }
      std::vector<const AnsweredRow*> first;
      for (const AnsweredRow& lead : leads) first.push_back(&lead);
      for (metrics::MetricValue& value : measure_answers(instruction.verb, names, first, options).metrics) {
        value.name = "lead_" + value.name;
        measured.metrics.push_back(std::move(value));
      }
    }
    measured.tokens = units;
    measured.loss = -log_probability / static_cast<double>(std::max<std::int64_t>(1, units));
    report.verbs.push_back(std::move(measured));
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

TaskReport evaluate_masked(ops::Engine& engine, models::TextModel& model, std::size_t task,
                           std::span<const data::TextRow> rows, const std::function<void(std::int64_t)>& on_done) {
  const auto start = std::chrono::steady_clock::now();
  TaskReport report;
  VerbReport& verb = report.verbs.emplace_back();
  verb.verb = kMaskedVerb;
  verb.rows = static_cast<std::int64_t>(rows.size());
  for (const RowScore& score : score_masked(engine, model, task, rows, on_done)) {
    verb.loss -= score.log_probability;
    verb.tokens += score.tokens;
  }
  verb.loss /= static_cast<double>(std::max<std::int64_t>(1, verb.tokens));
  verb.perplexity = std::exp(verb.loss);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

std::map<std::string, std::vector<std::string>> text_metrics_by_verb(const instructions::InstructionSet& set,
                                                                     const data::Dataset& dataset,
                                                                     const TaskOptions& options) {
  std::map<std::string, std::vector<std::string>> names;
  for (const auto& [verb, general] : metrics_by_verb(&set, dataset, options)) {
    const Instruction& instruction = set.instruction(verb);
    if (instruction.output.type == OutputType::kLabel) {
      names[verb] = general;
      continue;
    }
    std::vector<std::string>& own = names[verb];
    for (const metrics::MetricValue& value : own_metrics(instruction, {}, {})) own.push_back(value.name);
    const std::vector<std::string> texts = text_metrics(instruction, options);
    own.insert(own.end(), texts.begin(), texts.end());
    if (instruction.output.type != OutputType::kSentences) continue;
    for (const std::string& name : texts) own.push_back("lead_" + name);
  }
  return names;
}

}  // namespace instruct::evaluate
