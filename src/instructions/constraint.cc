#include "instructions/constraint.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "instructions/byte_constraint.h"
#include "instructions/json_automaton.h"
#include "instructions/number_automaton.h"
#include "instructions/span_automaton.h"

namespace instruct::instructions {
namespace {

// A trie of token sequences.
class LabelConstraint : public Constraint {
 public:
  LabelConstraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                  std::span<const std::vector<std::int32_t>> sequences)
      : vocabulary_(std::move(vocabulary)) {
    auto nodes = std::make_shared<std::vector<Node>>(1);
    if (sequences.empty()) raise(ErrorCategory::kInvalidArgument, "constrained labels: there is no label");
    for (const std::vector<std::int32_t>& sequence : sequences) {
      if (sequence.empty()) raise(ErrorCategory::kInvalidArgument, "constrained labels: a label without tokens");
      std::size_t at = 0;
      for (const std::int32_t token : sequence) {
        const auto [found, added] = (*nodes)[at].children.emplace(token, nodes->size());
        at = found->second;
        if (added) nodes->emplace_back();
      }
      (*nodes)[at].whole = true;
    }
    nodes_ = std::move(nodes);
  }

  void allowed(TokenMask& mask) const override {
    mask.clear();
    if (ended_) return;
    for (const auto& [token, child] : node().children) mask.set(token);
    if (node().whole) {
      for (const std::int32_t end : vocabulary_->ends()) mask.set(end);
    }
  }

  void advance(std::int32_t token) override {
    const auto child = node().children.find(token);
    const auto ends = vocabulary_->ends();
    if (!ended_ && child != node().children.end()) {
      at_ = child->second;
    } else if (!ended_ && node().whole && std::find(ends.begin(), ends.end(), token) != ends.end()) {
      ended_ = true;
    } else {
      raise(ErrorCategory::kInvalidArgument, "constrained labels: token {} ('{}') cannot come here", token,
            vocabulary_->tokenizer().token_bytes(token));
    }
  }

  bool may_end() const override { return ended_ || node().whole; }

  std::optional<std::string> completion() const override {
    std::string text;
    for (std::size_t at = at_; !ended_ && !(*nodes_)[at].whole;) {
      const auto& [token, child] = *(*nodes_)[at].children.begin();
      text += vocabulary_->tokenizer().token_bytes(token);
      at = child;
    }
    return text;
  }

  std::unique_ptr<Constraint> clone() const override { return std::make_unique<LabelConstraint>(*this); }

 private:
  struct Node {
    std::map<std::int32_t, std::size_t> children;
    bool whole = false;
  };
  const Node& node() const { return (*nodes_)[at_]; }

  std::shared_ptr<const TokenVocabulary> vocabulary_;
  std::shared_ptr<const std::vector<Node>> nodes_;
  std::size_t at_ = 0;
  bool ended_ = false;
};

std::vector<std::int32_t> plain_tokens(const tokenizers::Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  for (const tokenizers::Token& token : tokenizer.encode_plain(text)) ids.push_back(token.id);
  return ids;
}

}  // namespace

std::unique_ptr<Constraint> make_label_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                  std::span<const std::vector<std::int32_t>> sequences) {
  return std::make_unique<LabelConstraint>(std::move(vocabulary), sequences);
}

std::unique_ptr<Constraint> make_number_constraint(std::shared_ptr<const TokenVocabulary> vocabulary, bool integer,
                                                   std::optional<double> minimum, std::optional<double> maximum) {
  return std::make_unique<ByteConstraint<NumberAutomaton>>(
      std::move(vocabulary), std::make_shared<const NumberAutomaton>(integer, minimum, maximum));
}

std::unique_ptr<Constraint> make_span_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                 std::string_view text) {
  return std::make_unique<ByteConstraint<SpanAutomaton>>(std::move(vocabulary),
                                                         std::make_shared<const SpanAutomaton>(text));
}

std::unique_ptr<Constraint> make_json_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                 const JsonSchema& schema) {
  return std::make_unique<ByteConstraint<JsonAutomaton>>(std::move(vocabulary),
                                                         std::make_shared<const JsonAutomaton>(schema));
}

std::unique_ptr<Constraint> make_constraint(const Instruction& instruction, const Value& variables,
                                            std::shared_ptr<const TokenVocabulary> vocabulary,
                                            std::span<const std::vector<std::int32_t>> label_tokens) {
  const OutputSpec& output = instruction.output;
  switch (output.type) {
    case OutputType::kText:
    case OutputType::kSentences:
      return nullptr;
    case OutputType::kLabel: {
      if (!label_tokens.empty()) return make_label_constraint(std::move(vocabulary), label_tokens);
      std::vector<std::vector<std::int32_t>> sequences;
      for (const std::string& label : output.labels) sequences.push_back(plain_tokens(vocabulary->tokenizer(), label));
      return make_label_constraint(std::move(vocabulary), sequences);
    }
    case OutputType::kNumber:
      return make_number_constraint(std::move(vocabulary), output.integer, output.minimum, output.maximum);
    case OutputType::kSpan: {
      const Value* text = variables.find(output.from);
      if (text == nullptr || !text->is_string()) {
        raise(ErrorCategory::kInvalidArgument, "verb '{}': a span is taken from '{}', which has no text",
              instruction.verb, output.from);
      }
      return make_span_constraint(std::move(vocabulary), text->as_string());
    }
    case OutputType::kLabels:
    case OutputType::kList:
    case OutputType::kJson:
      return make_json_constraint(std::move(vocabulary), *output.form);
  }
  return nullptr;
}

std::vector<std::vector<std::int32_t>> answer_tokens(const DialogueEncoder& encoder, std::span<const Message> messages,
                                                     std::span<const std::string> answers) {
  const std::vector<std::int32_t> prompt = encoder.encode_prompt(messages);
  const std::vector<std::int32_t>& ends = encoder.tokenizer().end_of_generation();
  std::vector<std::vector<std::int32_t>> result;
  for (const std::string& answer : answers) {
    std::vector<Message> dialogue(messages.begin(), messages.end());
    dialogue.push_back({"assistant", answer, {}});
    const EncodedDialogue encoded = encoder.encode_training(dialogue, {.mask_history = true});
    std::vector<std::int32_t> tokens;
    const bool continues =
        encoded.tokens.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), encoded.tokens.begin());
    for (std::size_t i = prompt.size(); continues && i < encoded.tokens.size() && encoded.trained[i] != 0; ++i) {
      if (std::find(ends.begin(), ends.end(), encoded.tokens[i]) != ends.end()) break;
      tokens.push_back(encoded.tokens[i]);
    }
    const std::string text = encoder.tokenizer().decode(tokens);
    result.push_back(text == answer ? std::move(tokens) : plain_tokens(encoder.tokenizer(), answer));
  }
  return result;
}

}  // namespace instruct::instructions
