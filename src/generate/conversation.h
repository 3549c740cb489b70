// A dialogue with a model, turn by turn. Keys and values stay between turns: each turn computes only what is new.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "generate/generator.h"
#include "generate/writer.h"
#include "instructions/dialogue.h"
#include "models/language_model.h"
#include "ops/engine.h"

namespace instruct::generate {

struct TurnOptions {
  std::int64_t max_new_tokens = 512;
  SamplingOptions sampling;
  std::vector<std::string> stop;
};

struct Turn {
  Answer answer;
  bool interrupted = false;           // the listener asked to stop
  std::int64_t dropped_messages = 0;  // the oldest, which no longer fitted the context
  std::int64_t computed_tokens = 0;   // of the prompt: those not computed in earlier turns
  LookupCounts counts;
};

class Conversation {
 public:
  // `system` may be empty. Of the options prompt lookup and the cache type count. All must outlive the conversation.
  Conversation(ops::Engine& engine, models::LanguageModel& model, const instructions::DialogueEncoder& dialogue,
               std::string system = {}, const GenerateOptions& options = {});

  // Gets the text that is certain after each new token; false stops the answer, which then counts as given.
  using Listener = std::function<bool(std::string_view text)>;
  // Answers a message. Where the dialogue and the answer to come (max_new_tokens, or a quarter of the context if that
  // is less) no longer fit the context, the oldest exchanges are dropped; the system message stays. Raises
  // InvalidArgument when the message alone does not fit; the dialogue is then as before.
  Turn reply(std::string message, const TurnOptions& options, const Listener& listener = {});

  // Forgets everything but the system message.
  void reset();
  // Starts anew under another system message; empty for none.
  void set_system(std::string system);
  const std::vector<instructions::Message>& messages() const { return messages_; }

 private:
  std::vector<std::int32_t> fitting_prompt(std::int64_t reserve, Turn& turn);
  void reserve_slots(std::int64_t slots);
  enum class Rows : std::uint8_t { kLast, kAll };
  tensor::Tensor extend(std::span<const std::int32_t> tokens, Rows wanted);
  void generate(const Request& request, const Listener& listener, Turn& turn);

  ops::Engine& engine_;
  models::LanguageModel& model_;
  const instructions::DialogueEncoder& dialogue_;
  std::string system_;
  GenerateOptions options_;
  std::vector<instructions::Message> messages_;
  std::uint64_t turns_ = 0;
  std::optional<nn::KeyValueCache> cache_;
  std::vector<std::int32_t> cached_;  // the token of each filled slot
};

}  // namespace instruct::generate
