// Constrained decoding: which tokens may come next so that the output is a value of its type.
//
// A constraint is an automaton over tokens and knows nothing of the model: ask allowed(), pick one of those tokens,
// advance(). Labels are a trie of their canonical tokens. Numbers, spans, lists and JSON are automata over bytes; the
// tokens they allow are found by walking a trie of the vocabulary's bytes (token_vocabulary.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"
#include "instructions/token_vocabulary.h"

namespace instruct::instructions {

class Constraint {
 public:
  virtual ~Constraint() = default;
  // Sets `mask` to the tokens that may come next: those that keep a valid output in reach, and the end-of-generation
  // tokens when may_end(). Empty once an end token was taken.
  virtual void allowed(TokenMask& mask) const = 0;
  // Takes a token. Raises InvalidArgument for one that allowed() does not have.
  virtual void advance(std::int32_t token) = 0;
  // Whether what was taken so far is a whole output.
  virtual bool may_end() const = 0;
  // A short text that makes the output whole, for when max_tokens runs out; empty when it is whole already, nullopt
  // when none of at most a few thousand bytes is found.
  virtual std::optional<std::string> completion() const = 0;
  virtual std::unique_ptr<Constraint> clone() const = 0;
};

// One of several token sequences, then an end token. A sequence may be the start of another. Raises InvalidArgument for
// an empty list or an empty sequence.
std::unique_ptr<Constraint> make_label_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                  std::span<const std::vector<std::int32_t>> sequences);
// A number as outputs write it (output_encoder.h), within the bounds. Raises InvalidArgument when no number is.
std::unique_ptr<Constraint> make_number_constraint(std::shared_ptr<const TokenVocabulary> vocabulary, bool integer,
                                                   std::optional<double> minimum, std::optional<double> maximum);
// A part of `text` that is not empty and starts with no white space. Raises InvalidArgument when there is none, or for
// a text of more than 1 MiB.
std::unique_ptr<Constraint> make_span_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                 std::string_view text);
// JSON that fits a schema, in one line, with at most one space behind ',' and ':'.
std::unique_ptr<Constraint> make_json_constraint(std::shared_ptr<const TokenVocabulary> vocabulary,
                                                 const JsonSchema& schema);

// The constraint of a verb's output for one call; nullptr for text. `label_tokens` as answer_tokens() gives them, one
// per label; when empty, labels are tokenized by themselves.
std::unique_ptr<Constraint> make_constraint(const Instruction& instruction, const Value& variables,
                                            std::shared_ptr<const TokenVocabulary> vocabulary,
                                            std::span<const std::vector<std::int32_t>> label_tokens = {});

// The tokens of each answer as training has them behind the question `messages`, without the end-of-turn token. Where
// the start of an answer would melt with the end of the prompt, its tokens by itself.
std::vector<std::vector<std::int32_t>> answer_tokens(const DialogueEncoder& encoder, std::span<const Message> messages,
                                                     std::span<const std::string> answers);

}  // namespace instruct::instructions
