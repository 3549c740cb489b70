#include "evaluate/text_task.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "base/json.h"
#include "ops/rows.h"

namespace instruct::evaluate {
namespace {

using autograd::Variable;
using instructions::Instruction;
using instructions::OutputType;

double log_sigmoid(double z) {
  return std::min(z, 0.0) - std::log1p(std::exp(-std::abs(z)));
}

// Which are chosen of parts with these probabilities: those above one half, but at least and at most so many, the most
// likely ones first.
std::vector<float> choose(const std::vector<double>& probabilities, std::int64_t least, std::int64_t most) {
  std::vector<std::size_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return probabilities[a] > probabilities[b]; });
  std::vector<float> chosen(probabilities.size(), 0.0F);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto count = static_cast<std::int64_t>(i);
    if (count >= most || (count >= least && probabilities[order[i]] <= 0.5)) break;
    chosen[order[i]] = 1;
  }
  return chosen;
}

TextAnswer answer_of_label(const Instruction& instruction, const data::TextRow& row, std::span<const float> scores) {
  TextAnswer answer;
  const double most = static_cast<double>(*std::max_element(scores.begin(), scores.end()));
  double sum = 0;
  for (const float score : scores) sum += std::exp(static_cast<double>(score) - most);
  for (const float score : scores) {
    answer.log_probabilities.push_back(static_cast<double>(score) - most - std::log(sum));
    answer.probabilities.push_back(std::exp(answer.log_probabilities.back()));
  }
  const auto best = static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  answer.text = instruction.output.labels[best];
  answer.log_probability =
      answer.log_probabilities[row.truth.empty() ? best : static_cast<std::size_t>(row.truth.front())];
  return answer;
}

// Of labels or sentences that are each true or not.
TextAnswer answer_of_each(const Instruction& instruction, const data::TextRow& row, std::span<const float> scores) {
  TextAnswer answer;
  for (const float score : scores) {
    answer.log_probabilities.push_back(log_sigmoid(static_cast<double>(score)));
    answer.probabilities.push_back(std::exp(answer.log_probabilities.back()));
  }
  const bool sentences = instruction.output.type == OutputType::kSentences;
  const std::int64_t least = std::max<std::int64_t>(sentences ? 1 : 0, instruction.output.min_items);
  answer.chosen = choose(answer.probabilities, least, instruction.output.max_items);
  Value labels = Value::array();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool truth = (row.truth.empty() ? answer.chosen[i] : row.truth[i]) > 0;
    answer.log_probability += log_sigmoid(truth ? static_cast<double>(scores[i]) : -static_cast<double>(scores[i]));
    if (answer.chosen[i] == 0) continue;
    if (sentences) {
      answer.text += (answer.text.empty() ? "" : " ") + row.sentences[i];
    } else {
      labels.push(instruction.output.labels[i]);
    }
  }
  if (!sentences) answer.text = dump_json(labels);
  return answer;
}

// Scores of every row of a pass, by row.
std::vector<std::vector<float>> scores_of(ops::Engine& engine, models::TextModel& model,
                                          const instructions::InstructionSet& set,
                                          std::span<const data::TextRow* const> rows) {
  const data::TextBatch batch = data::make_text_batch(rows, model.encoder().config().first_position);
  const std::vector<std::int32_t> single = data::single_tokens(batch);
  const ops::Context context = engine.context();
  const Variable pooled = model.encoder().pooled(
      context,
      {.tokens = batch.tokens, .positions = batch.positions, .types = batch.types, .plan = &batch.plan, .rows = single},
      batch.parts);
  std::vector<std::vector<float>> scores(rows.size());
  for (std::size_t verb = 0; verb < set.instructions.size(); ++verb) {
    std::vector<std::int32_t> parts;
    for (std::size_t part = 0; part < batch.parts.size(); ++part) {
      if (rows[batch.part_rows[part]]->verb == verb) parts.push_back(static_cast<std::int32_t>(part));
    }
    if (parts.empty()) continue;
    const std::size_t task = model.task_of(set.instructions[verb].verb);
    const Variable own = ops::select_rows(context, pooled, parts);
    const std::vector<float> values = model.scores(context, task, own, {}).value().to_floats();
    const std::size_t columns = values.size() / parts.size();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::vector<float>& row = scores[batch.part_rows[static_cast<std::size_t>(parts[i])]];
      row.insert(row.end(), values.begin() + static_cast<std::ptrdiff_t>(i * columns),
                 values.begin() + static_cast<std::ptrdiff_t>((i + 1) * columns));
    }
  }
  return scores;
}

// Precision, recall and F1 of what was chosen against what is true, over all rows together, 0 to 100.
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
  const auto share = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
  return {{"precision", share(both, chosen), {}},
          {"recall", share(both, right), {}},
          {"f1", share(2 * both, chosen + right), {}}};
}

// Of as many first sentences as were chosen.
std::string lead_of(const data::TextRow& row, const TextAnswer& answer) {
  const auto count = static_cast<std::size_t>(std::count(answer.chosen.begin(), answer.chosen.end(), 1.0F));
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += (i == 0 ? "" : " ") + row.sentences[i];
  return text;
}

const std::vector<std::string> kRouge{"rouge1", "rouge2", "rougeL"};

// What compares texts; labels that are sets have none.
std::vector<std::string> text_metrics(const Instruction& instruction, const TaskOptions& options) {
  if (instruction.output.type == OutputType::kLabels) return {};
  if (instruction.output.type == OutputType::kSentences) {
    const std::vector<std::string>& named = options.metrics.empty() ? instruction.metrics : options.metrics;
    return named.empty() ? kRouge : metrics::expand_metric_names(named);
  }
  return {};
}

}  // namespace

std::vector<TextAnswer> answer_texts(ops::Engine& engine, models::TextModel& model,
                                     const instructions::InstructionSet& set, std::span<const data::TextRow> rows,
                                     const std::function<void(std::int64_t)>& on_done) {
  constexpr std::size_t kTokens = 4096;  // of a pass
  std::vector<TextAnswer> answers;
  std::vector<const data::TextRow*> chosen;
  std::size_t tokens = 0;
  const auto flush = [&] {
    throw_if_cancelled("answering");
    const std::vector<std::vector<float>> scores = scores_of(engine, model, set, chosen);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const Instruction& instruction = set.instructions[chosen[i]->verb];
      answers.push_back(instruction.output.type == OutputType::kLabel
                            ? answer_of_label(instruction, *chosen[i], scores[i])
                            : answer_of_each(instruction, *chosen[i], scores[i]));
    }
    if (on_done) on_done(static_cast<std::int64_t>(answers.size()));
    chosen.clear();
    tokens = 0;
  };
  for (const data::TextRow& row : rows) {
    if (!chosen.empty() && tokens + row.tokens.size() > kTokens) flush();
    chosen.push_back(&row);
    tokens += row.tokens.size();
  }
  if (!chosen.empty()) flush();
  return answers;
}

TaskReport evaluate_texts(ops::Engine& engine, models::TextModel& model, const instructions::InstructionSet& set,
                          const data::Dataset& dataset, std::span<const data::TextRow> rows, const TaskOptions& options,
                          const std::function<void(std::int64_t)>& on_done) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TextAnswer> answers = answer_texts(engine, model, set, rows, on_done);
  TaskReport report;
  std::map<std::size_t, std::vector<std::size_t>> members;  // by verb
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const data::Example& example = dataset.examples[static_cast<std::size_t>(rows[i].example)];
    const Instruction& instruction = set.instructions[rows[i].verb];
    if (rows[i].truth.empty())
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
    members[rows[i].verb].push_back(i);
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
      texts.push_back(&rows[i]);
      said.push_back(&answers[i]);
      log_probability += answers[i].log_probability;
      units += data::units_of(rows[i]);
    }
    const bool label = instruction.output.type == OutputType::kLabel;
    const std::vector<std::string> names = label ? by_verb.at(instruction.verb) : text_metrics(instruction, options);
    VerbReport measured = measure_answers(instruction.verb, names, answered, options);
    if (!label) {
      const std::vector<metrics::MetricValue> choice = choice_metrics(texts, said);
      measured.metrics.insert(measured.metrics.begin(), choice.begin(), choice.end());
    }
    if (instruction.output.type == OutputType::kSentences) {
      for (const std::size_t i : numbers) {
        leads.push_back(report.answers[i]);
        leads.back().answer = lead_of(rows[i], answers[i]);
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
    own = {"precision", "recall", "f1"};
    const std::vector<std::string> texts = text_metrics(instruction, options);
    own.insert(own.end(), texts.begin(), texts.end());
    for (const std::string& name : texts) own.push_back("lead_" + name);
  }
  return names;
}

}  // namespace instruct::evaluate
