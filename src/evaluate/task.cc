#include "evaluate/task.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include <fmt/core.h>

#include "base/error.h"
#include "base/text.h"

namespace instruct::evaluate {
namespace {

std::vector<std::string> metrics_of(const instructions::InstructionSet* set, const std::string& verb,
                                    const TaskOptions& options) {
  if (!options.generate) return {};
  if (!options.metrics.empty()) return options.metrics;
  const instructions::Instruction* instruction = set != nullptr && !verb.empty() ? &set->instruction(verb) : nullptr;
  const bool label = instruction != nullptr && instruction->output.type == instructions::OutputType::kLabel;
  if (instruction == nullptr || instruction->metrics.empty()) {
    if (label) return {"accuracy", "precision", "recall", "macro_f1"};
    return {"rouge1", "rouge2", "rougeL", "bleu"};
  }
  std::vector<std::string> names = metrics::expand_metric_names(instruction->metrics);
  // Precision, recall and F1 of labels are macro averages; a verb's "f1" means those for labels.
  if (label) std::replace(names.begin(), names.end(), std::string("f1"), std::string("macro_f1"));
  return names;
}

std::int64_t length_of(const instructions::InstructionSet* set, const std::string& verb, const TaskOptions& options) {
  if (options.max_new_tokens > 0) return options.max_new_tokens;
  return set != nullptr && !verb.empty() ? set->instruction(verb).output.max_tokens : 256;
}

// An answer as references are written, where it can be read as a value of its type.
std::string canonical(const instructions::Instruction* instruction, std::string_view text) {
  if (instruction == nullptr || instruction->output.type == instructions::OutputType::kText)
    return std::string(trim(text));
  try {
    return instructions::encode_output(*instruction, instructions::decode_output(*instruction, text));
  } catch (const Error&) {
    return std::string(trim(text));
  }
}

// The example with nothing in its texts.
data::Example content_free(data::Example example, const instructions::InstructionSet& set) {
  for (const std::string& input : set.instruction(example.verb).inputs) {
    const instructions::Variable* variable = set.find_variable(input);
    if (variable != nullptr && variable->type == instructions::VariableType::kText) example.variables.set(input, "N/A");
  }
  return example;
}

// Test files come without outputs. A row that lacks one among others that have theirs is a mistake.
bool has_outputs(const data::Dataset& dataset) {
  return std::any_of(dataset.examples.begin(), dataset.examples.end(), [](const data::Example& example) {
    return example.format != data::RowFormat::kInstruction || !example.output.is_null();
  });
}

void add_likelihood(ops::Engine& engine, models::LanguageModel& model, const data::RowEncoder& encoder,
                    const data::Dataset& dataset, const std::vector<std::size_t>& rows, const TaskOptions& options,
                    std::int64_t vocabulary, std::int32_t adapter, VerbReport& report) {
  std::vector<data::EncodedRow> encoded;
  for (const std::size_t row : rows)
    encoded.push_back(encoder.encode(dataset, row, {.shots = options.shots, .seed = options.seed}));
  double sum = 0;
  std::int64_t tokens = 0;
  for (const RowScore& score : score_rows(engine, model, encoded, vocabulary,
                                          {.layout = options.responder.generation.layout, .adapter = adapter})) {
    sum -= score.log_probability;
    tokens += score.tokens;
  }
  report.tokens = tokens;
  report.loss = sum / static_cast<double>(std::max<std::int64_t>(1, tokens));
  report.perplexity = std::exp(report.loss);
}

}  // namespace

VerbReport measure_answers(const std::string& verb, const std::vector<std::string>& names,
                           const std::vector<const AnsweredRow*>& rows, const TaskOptions& options) {
  VerbReport report{.verb = verb, .rows = static_cast<std::int64_t>(rows.size())};
  if (names.empty()) return report;
  std::vector<std::string> answers;
  std::vector<std::vector<std::string>> references;
  for (const AnsweredRow* row : rows) {
    answers.push_back(row->answer);
    references.push_back({row->reference});
  }
  metrics::MetricOptions metric = options.metric;
  metric.bootstrap = options.bootstrap;
  metric.seed = options.seed;
  report.metrics = metrics::evaluate_metrics(names, answers, references, metric);
  return report;
}

TaskReport evaluate_rows(ops::Engine& engine, models::LanguageModel& model,
                         const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set,
                         const data::Dataset& dataset, const TaskOptions& options,
                         const std::function<void(std::int64_t)>& on_done) {
  const auto start = std::chrono::steady_clock::now();
  const data::RowEncoder encoder(dialogue, set);
  std::size_t count = dataset.examples.size();
  if (options.limit > 0) count = std::min(count, static_cast<std::size_t>(options.limit));
  const std::size_t adapters = std::max<std::size_t>(1, options.adapters.size());
  // Rows under the first adapter, then under the next.
  std::vector<Question> questions(count * adapters);
  TaskReport report;
  report.answers.resize(questions.size());
  const bool has_reference = has_outputs(dataset);
  const data::EncodeOptions encode{.shots = options.shots, .seed = options.seed};
  for (std::size_t i = 0; i < count; ++i) {
    const data::Example& example = dataset.examples[i];
    const bool call = example.format == data::RowFormat::kInstruction && set != nullptr;
    questions[i] = {.prompt = encoder.encode_prompt(dataset, i, encode),
                    .messages = data::row_question(dataset, example, set, encode),
                    .instruction = call ? &set->instruction(example.verb) : nullptr,
                    .variables = example.variables,
                    .max_new_tokens = length_of(set, example.verb, options),
                    .stream = static_cast<std::uint64_t>(example.row)};
    if (options.responder.label_score == LabelScore::kCalibrated && call)
      questions[i].content_free = data::row_question(dataset, content_free(example, *set), set, encode);
    const std::int64_t source = dialogue.source_tokens(questions[i].prompt);
    const auto length = static_cast<std::int64_t>(questions[i].prompt.size()) - source;
    if (length >= model.sizes().context_length || source > model.sizes().context_length) {
      raise(ErrorCategory::kBadData, "{}: the question has {} tokens, the model's context is {}",
            dataset.where(example), std::max(length, source), model.sizes().context_length);
    }
    report.answers[i] = {.row = example.row,
                         .verb = example.verb,
                         .prompt = dialogue.tokenizer().decode(questions[i].prompt),
                         .reference = has_reference ? encoder.reference(dataset, i) : std::string(),
                         .has_reference = has_reference};
  }
  for (std::size_t a = options.adapters.size(); a-- > 0;) {  // the first last: its rows are what is copied
    for (std::size_t i = 0; i < count; ++i) {
      Question& question = questions[a * count + i] = questions[i];
      question.adapter = static_cast<std::int32_t>(a);
      AnsweredRow& answer = report.answers[a * count + i] = report.answers[i];
      answer.adapter = options.adapters[a];
    }
  }
  std::vector<Reply> replies(questions.size());
  if (options.generate) {
    Responder responder(engine, model, dialogue, options.responder);
    replies = responder.reply(questions, on_done);
    report.counts = responder.counts();
  }
  std::map<std::pair<std::size_t, std::string>, std::vector<std::size_t>> groups;  // by adapter and verb
  for (std::size_t i = 0; i < questions.size(); ++i) {
    report.answers[i].answer = canonical(questions[i].instruction, replies[i].text);
    report.answers[i].log_probability = replies[i].log_probability;
    report.answers[i].finished = replies[i].finished;
    report.answers[i].label_probabilities = replies[i].label_probabilities;
    report.answers[i].label_log_probabilities = replies[i].label_log_probabilities;
    if (report.answers[i].has_reference) groups[{i / count, report.answers[i].verb}].push_back(i);
  }
  for (const auto& [group, members] : groups) {
    const auto& [adapter, verb] = group;
    std::vector<const AnsweredRow*> answered;
    std::vector<std::size_t> rows;
    for (const std::size_t member : members) {
      answered.push_back(&report.answers[member]);
      rows.push_back(member % count);
    }
    VerbReport& measured =
        report.verbs.emplace_back(measure_answers(verb, metrics_of(set, verb, options), answered, options));
    measured.adapter = answered.front()->adapter;
    if (options.likelihood)
      add_likelihood(engine, model, encoder, dataset, rows, options, dialogue.tokenizer().vocabulary_size(),
                     questions[members.front()].adapter, measured);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

double mean_loss(const TaskReport& report) {
  double sum = 0;
  std::int64_t tokens = 0;
  for (const VerbReport& verb : report.verbs) {
    sum += verb.loss * static_cast<double>(verb.tokens);
    tokens += verb.tokens;
  }
  return sum / static_cast<double>(std::max<std::int64_t>(1, tokens));
}

std::map<std::string, std::vector<std::string>> metrics_by_verb(const instructions::InstructionSet* set,
                                                                const data::Dataset& dataset,
                                                                const TaskOptions& options) {
  std::map<std::string, std::vector<std::string>> names;
  for (const data::Example& example : dataset.examples) {
    if (!names.contains(example.verb)) names[example.verb] = metrics_of(set, example.verb, options);
  }
  return names;
}

std::string report_table(const TaskReport& report) {
  std::string table;
  for (const VerbReport& verb : report.verbs) {
    table += fmt::format("{}{}{} ({} rows)\n", verb.adapter, verb.adapter.empty() ? "" : ": ",
                         verb.verb.empty() ? "dialogue" : verb.verb, verb.rows);
    for (const metrics::MetricValue& metric : verb.metrics) {
      table += fmt::format("  {:<12} {:6.2f}", metric.name, metric.value);
      if (metric.interval)
        table += fmt::format("   95% {:.2f} to {:.2f}", metric.interval->first, metric.interval->second);
      table += '\n';
    }
    if (verb.tokens > 0) table += fmt::format("  {:<12} {:6.4f}\n", "loss", verb.loss);
    if (verb.perplexity > 0) table += fmt::format("  {:<12} {:6.2f}\n", "perplexity", verb.perplexity);
  }
  return table;
}

Value report_value(const TaskReport& report) {
  Value root = Value::object();
  for (const VerbReport& verb : report.verbs) {
    Value values = Value::object({{"rows", verb.rows}});
    for (const metrics::MetricValue& metric : verb.metrics) {
      values.set(metric.name, metric.value);
      if (!metric.interval) continue;
      values.set(metric.name + "_low", metric.interval->first);
      values.set(metric.name + "_high", metric.interval->second);
    }
    if (verb.tokens > 0) values.set("loss", verb.loss);
    if (verb.perplexity > 0) values.set("perplexity", verb.perplexity);
    const std::string name = verb.verb.empty() ? "dialogue" : verb.verb;
    Value* verbs = &root;
    if (!verb.adapter.empty()) {
      if (root.find(verb.adapter) == nullptr) root.set(verb.adapter, Value::object());
      verbs = root.find(verb.adapter);
    }
    verbs->set(name, values);
  }
  return root;
}

}  // namespace instruct::evaluate
