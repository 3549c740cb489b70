#include "evaluate/responder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "evaluate/score.h"
#include "instructions/constraint.h"

namespace instruct::evaluate {

using instructions::Instruction;
using instructions::OutputType;

Responder::Responder(ops::Engine& engine, models::Llama& model, const instructions::DialogueEncoder& dialogue,
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
    while (end < chosen.size() && (end == begin || rows.size() < kRowsAtOnce)) {
      const Question& question = questions[chosen[end++]];
      for (const std::string& label : question.instruction->output.labels) {
        std::vector<instructions::Message> messages = question.messages;
        messages.push_back({"assistant", label, {}});
        instructions::EncodedDialogue encoded = dialogue_.encode_training(messages, {.mask_history = true});
        if (static_cast<std::int64_t>(encoded.tokens.size()) > model_.config().context_length) {
          raise(ErrorCategory::kInvalidArgument,
                "the question and label '{}' have {} tokens, the model's context is {}", label, encoded.tokens.size(),
                model_.config().context_length);
        }
        rows.push_back({.tokens = std::move(encoded.tokens), .trained = std::move(encoded.trained)});
      }
    }
    const std::vector<RowScore> scores = score_rows(engine_, model_, rows, dialogue_.tokenizer().vocabulary_size());
    std::size_t row = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const Instruction& instruction = *questions[chosen[i]].instruction;
      std::vector<double> log_probabilities;
      for (std::size_t l = 0; l < instruction.output.labels.size(); ++l)
        log_probabilities.push_back(scores[row++].log_probability);
      choose(instruction, log_probabilities, questions[chosen[i]].stream, replies[chosen[i]]);
    }
    begin = end;
    if (on_done) on_done(static_cast<std::int64_t>(end));
  }
}

void Responder::choose(const Instruction& instruction, std::span<const double> log_probabilities, std::uint64_t stream,
                       Reply& reply) const {
  const auto normalised = [&](double temperature) {
    const double largest = *std::max_element(log_probabilities.begin(), log_probabilities.end());
    std::vector<double> probabilities;
    double sum = 0;
    for (const double value : log_probabilities)
      sum += probabilities.emplace_back(std::exp((value - largest) / temperature));
    for (double& probability : probabilities) probability /= sum;
    return probabilities;
  };
  reply.label_probabilities = normalised(1.0);
  auto label = static_cast<std::size_t>(std::max_element(log_probabilities.begin(), log_probabilities.end()) -
                                        log_probabilities.begin());
  if (options_.sampling.temperature > 0) {
    RandomStream random(options_.sampling.seed, RandomPurpose::kSample, stream);
    double rest = random.next_uniform();
    const std::vector<double> probabilities = normalised(options_.sampling.temperature);
    for (label = 0; label + 1 < probabilities.size() && rest >= probabilities[label]; ++label)
      rest -= probabilities[label];
  }
  reply.text = instruction.output.labels[label];
  reply.log_probability = log_probabilities[label];
  reply.finished = true;
}

void Responder::generate(std::span<const Question> questions, std::span<const std::size_t> chosen,
                         std::vector<Reply>& replies, const std::function<void(std::int64_t)>& on_done) {
  std::vector<generate::Request> requests;
  for (const std::size_t index : chosen) {
    const Question& question = questions[index];
    requests.push_back({.prompt = question.prompt,
                        .max_new_tokens = question.max_new_tokens,
                        .sampling = options_.sampling,
                        .stream = question.stream});
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
