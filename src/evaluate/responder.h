// Answering questions with outputs of their type: one way for evaluation, programs and serving.
//
// A label is chosen by the likelihood of every label, all of them scored in one pass as branches behind the question;
// numbers, spans, lists and JSON are generated under a constraint, so that the answer is a value of its type; text is
// generated freely.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/layout.h"
#include "evaluate/score.h"
#include "generate/generator.h"
#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"
#include "instructions/token_vocabulary.h"

namespace instruct::evaluate {

// What labels are compared by: log P(label | question); the same a token of the label, which takes off that longer ones
// have more to multiply; or minus log P(label | the question without its texts), which takes off what the model prefers
// whatever is asked (Holtzman et al., "Surface form competition", 2021; Zhao et al., "Calibrate before use", 2021).
enum class LabelScore : std::uint8_t { kSum, kMean, kCalibrated };

// "sum", "mean" or "calibrated"; raises InvalidArgument for another name.
LabelScore label_score_from_name(std::string_view name);

struct Question {
  std::vector<std::int32_t> prompt;                        // tokens up to where the answer starts
  std::vector<instructions::Message> messages;             // the same as messages; read for labels only
  std::vector<instructions::Message> content_free;         // without its texts; read for calibrated labels only
  const instructions::Instruction* instruction = nullptr;  // null for a dialogue
  Value variables;                                         // of the call; read for spans only
  std::int64_t max_new_tokens = 256;
  std::uint64_t stream = 0;   // of random numbers: what is drawn depends on seed and stream alone
  std::int32_t adapter = -1;  // of the adapters::AdapterSet on the model; -1: none
};

struct Reply {
  std::string text;
  std::vector<double> label_probabilities;      // in the order of the labels, summing to 1; label outputs only
  std::vector<double> label_log_probabilities;  // of each label and its end token, as scored alone
  double log_probability = 0;                   // natural log of the answer and its end token
  bool finished = false;                        // ended by itself, not by max_new_tokens
};

struct ResponderOptions {
  generate::SamplingOptions sampling;  // greedy by default
  std::vector<std::string> stop;       // ends free text before any of these
  bool constrained = true;             // false: typed outputs are generated as free text
  generate::GenerateOptions generation;
  LabelScore label_score = LabelScore::kSum;
};

class Responder {
 public:
  // All must outlive the responder.
  Responder(ops::Engine& engine, models::LanguageModel& model, const instructions::DialogueEncoder& dialogue,
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
  // Adds a row a label, as it is scored behind the messages.
  void add_label_rows(const instructions::Instruction& instruction, std::vector<instructions::Message> messages,
                      std::vector<data::EncodedRow>& rows) const;
  std::vector<RowScore> score(std::span<const data::EncodedRow> rows, std::int32_t adapter);
  // Log-probabilities of the labels behind the question without its texts; each such question is scored once.
  const std::vector<double>& prior(const Question& question);
  void choose(const Question& question, std::span<const RowScore> scores, Reply& reply);
  void generate(std::span<const Question> questions, std::span<const std::size_t> chosen, std::vector<Reply>& replies,
                const std::function<void(std::int64_t)>& on_done);

  ops::Engine& engine_;
  models::LanguageModel& model_;
  const instructions::DialogueEncoder& dialogue_;
  ResponderOptions options_;
  generate::LookupCounts counts_;
  std::map<std::string, std::vector<double>> priors_;                // by adapter, verb and content-free question
  std::shared_ptr<const instructions::TokenVocabulary> vocabulary_;  // made when first needed
};

}  // namespace instruct::evaluate
