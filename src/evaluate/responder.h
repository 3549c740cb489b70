// Answering questions with outputs of their type: one way for evaluation, programs and serving.
//
// A label is chosen by the likelihood of every label, all of them scored in one pass as branches behind the question;
// numbers, spans, lists and JSON are generated under a constraint, so that the answer is a value of its type; text is
// generated freely.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/layout.h"
#include "generate/generator.h"
#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"
#include "instructions/token_vocabulary.h"

namespace instruct::evaluate {

struct Question {
  std::vector<std::int32_t> prompt;                        // tokens up to where the answer starts
  std::vector<instructions::Message> messages;             // the same as messages; read for labels only
  const instructions::Instruction* instruction = nullptr;  // null for a dialogue
  Value variables;                                         // of the call; read for spans only
  std::int64_t max_new_tokens = 256;
  std::uint64_t stream = 0;  // of random numbers: what is drawn depends on seed and stream alone
};

struct Reply {
  std::string text;
  std::vector<double> label_probabilities;  // in the order of the labels, summing to 1; label outputs only
  double log_probability = 0;               // natural log of the answer and its end token
  bool finished = false;                    // ended by itself, not by max_new_tokens
};

struct ResponderOptions {
  generate::SamplingOptions sampling;  // greedy by default
  std::vector<std::string> stop;       // ends free text before any of these
  bool constrained = true;             // false: typed outputs are generated as free text
  generate::GenerateOptions generation;
};

class Responder {
 public:
  // All must outlive the responder.
  Responder(ops::Engine& engine, models::Llama& model, const instructions::DialogueEncoder& dialogue,
            const ResponderOptions& options = {});

  // Replies in the order of the questions. `on_done` gets the number answered so far. Raises InvalidArgument when a
  // prompt does not fit the context, Cancelled on Ctrl-C.
  std::vector<Reply> reply(std::span<const Question> questions, const std::function<void(std::int64_t)>& on_done = {});
  // Of all answers generated so far.
  const generate::LookupCounts& counts() const { return counts_; }

 private:
  bool chooses_label(const Question& question) const;
  void reply_labels(std::span<const Question> questions, std::span<const std::size_t> chosen,
                    std::vector<Reply>& replies, const std::function<void(std::int64_t)>& on_done);
  void choose(const instructions::Instruction& instruction, std::span<const double> log_probabilities,
              std::uint64_t stream, Reply& reply) const;
  void generate(std::span<const Question> questions, std::span<const std::size_t> chosen, std::vector<Reply>& replies,
                const std::function<void(std::int64_t)>& on_done);

  ops::Engine& engine_;
  models::Llama& model_;
  const instructions::DialogueEncoder& dialogue_;
  ResponderOptions options_;
  generate::LookupCounts counts_;
  std::shared_ptr<const instructions::TokenVocabulary> vocabulary_;  // made when first needed
};

}  // namespace instruct::evaluate
