#include "evaluate/responder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "instructions/constraint.h"

namespace instruct::evaluate {

using instructions::Instruction;
using instructions::OutputType;

LabelScore label_score_from_name(std::string_view name) {
  if (name == "sum") return LabelScore::kSum;
  if (name == "mean") return LabelScore::kMean;
  if (name == "calibrated") return LabelScore::kCalibrated;
  raise(ErrorCategory::kInvalidArgument, "label score '{}': expected sum, mean or calibrated", name);
}

Responder::Responder(ops::Engine& engine, models::LanguageModel& model, const instructions::DialogueEncoder& dialogue,
                     const ResponderOptions& options)
    : engine_(engine), model_(model), dialogue_(dialogue), options_(options) {}

bool Responder::chooses_label(const Question& question) const {
  return options_.constrained && question.instruction != nullptr &&
         question.instruction->output.type == OutputType::kLabel;
}

std::vector<Reply> Responder::reply(std::span<const Question> questions,
                                    const std::function<void(std::int64_t)>& on_done) {
  std::vector<Reply> replies(questions.size());
  std::vector<std::size_t> labels, others;
  for (std::size_t i = 0; i < questions.size(); ++i) (chooses_label(questions[i]) ? labels : others).push_back(i);
  std::stable_sort(labels.begin(), labels.end(),
                   [&](std::size_t a, std::size_t b) { return questions[a].adapter < questions[b].adapter; });
  reply_labels(questions, labels, replies, on_done);
  const auto done = static_cast<std::int64_t>(labels.size());
  generate(questions, others, replies, [&](std::int64_t count) {
    if (on_done) on_done(done + count);
  });
  return replies;
}

void Responder::reply_labels(std::span<const Question> questions, std::span<const std::size_t> chosen,
                             std::vector<Reply>& replies, const std::function<void(std::int64_t)>& on_done) {
  // So many questions at a time that their rows are a few passes of the scorer.
  constexpr std::size_t kRowsAtOnce = 512;
  std::size_t begin = 0;
  while (begin < chosen.size()) {
    std::vector<data::EncodedRow> rows;
    std::size_t end = begin;
    const std::int32_t adapter = questions[chosen[begin]].adapter;
    while (end < chosen.size() && (end == begin || rows.size() < kRowsAtOnce) &&
           questions[chosen[end]].adapter == adapter) {
      const Question& question = questions[chosen[end++]];
      add_label_rows(*question.instruction, question.messages, rows);
    }
    const std::vector<RowScore> scores = score(rows, adapter);
    std::size_t row = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const Question& question = questions[chosen[i]];
      const std::size_t labels = question.instruction->output.labels.size();
      choose(question, std::span(scores).subspan(row, labels), replies[chosen[i]]);
      row += labels;
    }
    begin = end;
    if (on_done) on_done(static_cast<std::int64_t>(end));
  }
}

void Responder::add_label_rows(const Instruction& instruction, std::vector<instructions::Message> messages,
                               std::vector<data::EncodedRow>& rows) const {
  messages.push_back({"assistant", {}, {}});
  for (const std::string& label : instruction.output.labels) {
    messages.back().content = label;
    instructions::EncodedDialogue encoded = dialogue_.encode_training(messages, {.mask_history = true});
    const auto length = static_cast<std::int64_t>(encoded.tokens.size());
    if (std::max(length - encoded.source, encoded.source) > model_.sizes().context_length) {
      raise(ErrorCategory::kInvalidArgument, "the question and label '{}' have {} tokens, the model's context is {}",
            label, encoded.tokens.size(), model_.sizes().context_length);
    }
    rows.push_back(
        {.tokens = std::move(encoded.tokens), .trained = std::move(encoded.trained), .source = encoded.source});
  }
}

std::vector<RowScore> Responder::score(std::span<const data::EncodedRow> rows, std::int32_t adapter) {
  return score_rows(engine_, model_, rows, dialogue_.tokenizer().vocabulary_size(),
                    {.layout = options_.generation.layout, .adapter = adapter});
}

const std::vector<double>& Responder::prior(const Question& question) {
  INSTRUCT_CHECK(!question.content_free.empty());
  std::string key = fmt::format("{} {}", question.adapter, question.instruction->verb);
  for (const instructions::Message& message : question.content_free)
    key += '\0' + message.role + '\0' + message.content;
  std::vector<double>& prior = priors_[key];
  if (prior.empty()) {
    std::vector<data::EncodedRow> rows;
    add_label_rows(*question.instruction, question.content_free, rows);
    for (const RowScore& row : score(rows, question.adapter)) prior.push_back(row.log_probability);
  }
  return prior;
}

void Responder::choose(const Question& question, std::span<const RowScore> scores, Reply& reply) {
  std::vector<double> compared;
  for (const RowScore& score : scores) {
    reply.label_log_probabilities.push_back(score.log_probability);
    compared.push_back(score.log_probability);
    if (options_.label_score == LabelScore::kMean) compared.back() /= static_cast<double>(score.tokens);
    if (options_.label_score == LabelScore::kCalibrated) compared.back() -= prior(question)[compared.size() - 1];
  }
  const auto normalised = [&](double temperature) {
    const double largest = *std::max_element(compared.begin(), compared.end());
    std::vector<double> probabilities;
    double sum = 0;
    for (const double value : compared) sum += probabilities.emplace_back(std::exp((value - largest) / temperature));
    for (double& probability : probabilities) probability /= sum;
    return probabilities;
  };
  reply.label_probabilities = normalised(1.0);
  auto label = static_cast<std::size_t>(std::max_element(compared.begin(), compared.end()) - compared.begin());
  if (options_.sampling.temperature > 0) {
    RandomStream random(options_.sampling.seed, RandomPurpose::kSample, question.stream);
    double rest = random.next_uniform();
    const std::vector<double> probabilities = normalised(options_.sampling.temperature);
    for (label = 0; label + 1 < probabilities.size() && rest >= probabilities[label]; ++label)
      rest -= probabilities[label];
  }
  reply.text = question.instruction->output.labels[label];
  reply.log_probability = scores[label].log_probability;
  reply.finished = true;
}

void Responder::generate(std::span<const Question> questions, std::span<const std::size_t> chosen,
                         std::vector<Reply>& replies, const std::function<void(std::int64_t)>& on_done) {
  std::vector<generate::Request> requests;
  for (const std::size_t index : chosen) {
    const Question& question = questions[index];
    requests.push_back({.prompt = question.prompt,
                        .source = dialogue_.source_tokens(question.prompt),
                        .max_new_tokens = question.max_new_tokens,
                        .sampling = options_.sampling,
                        .stream = question.stream,
                        .adapter = question.adapter});
    if (!options_.constrained || question.instruction == nullptr ||
        question.instruction->output.type == OutputType::kText) {
      requests.back().stop = options_.stop;
      continue;
    }
    if (vocabulary_ == nullptr)
      vocabulary_ = std::make_shared<const instructions::TokenVocabulary>(dialogue_.tokenizer());
    requests.back().constraint = instructions::make_constraint(*question.instruction, question.variables, vocabulary_);
  }
  generate::Generator generator(engine_, model_, dialogue_.tokenizer(), options_.generation);
  const std::vector<generate::Answer> answers = generator.run(requests, on_done);
  counts_ += generator.counts();
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    replies[chosen[i]] = {.text = answers[i].text,
                          .log_probability = answers[i].log_probability,
                          .finished = answers[i].finish == generate::Finish::kStop};
  }
}

}  // namespace instruct::evaluate
