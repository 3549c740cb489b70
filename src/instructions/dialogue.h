// Dialogues to tokens: one renderer for training, scoring and generation, with the loss mask read off the render.
//
// The chat template is rendered once over the whole dialogue; the renderer says which characters came from which
// message. Trained are the tokens of assistant content and of the end-of-turn token that follows it, and nothing the
// template writes after that. Special tokens are recognised in the template's own text only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/value.h"
#include "templates/template.h"
#include "tokenizers/tokenizer.h"

namespace instruct::instructions {

struct Message {
  std::string role;     // system, user, assistant, tool
  std::string content;
  Value extra;          // further fields of the row (tool_calls, name), or null
};

struct MaskOptions {
  bool train_on_prompt = false;  // every token is trained
  bool mask_history = false;     // only the last assistant turn is trained
};

struct EncodedDialogue {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> trained;  // 1: this token is predicted and counts in the loss
  std::int64_t seam_tokens = 0;       // trained tokens that also hold characters from outside the answer
  bool end_trained = false;           // the last answer's end-of-turn token is among the trained ones
};

class DialogueEncoder {
 public:
  // An empty template means a base model: contents are joined as they are, and eos ends an answer. The tokenizer must
  // outlive the encoder.
  DialogueEncoder(const tokenizers::Tokenizer& tokenizer, std::string chat_template, const std::string& origin);

  // Raises InvalidArgument when nothing would be trained.
  EncodedDialogue encode_training(std::span<const Message> messages, const MaskOptions& options = {}) const;
  // Tokens up to where the assistant's next answer starts.
  std::vector<std::int32_t> encode_prompt(std::span<const Message> messages) const;
  // What the template makes of the messages, for display.
  templates::Rendered render(std::span<const Message> messages, bool add_generation_prompt) const;

  const tokenizers::Tokenizer& tokenizer() const { return tokenizer_; }
  bool has_template() const { return template_.has_value(); }
  const std::string& template_source() const { return source_; }
  // SHA-256 over template and tokenizer: what an adapter was trained with.
  std::string fingerprint() const;

 private:
  std::vector<tokenizers::Token> tokens_of(const templates::Rendered& rendered) const;

  const tokenizers::Tokenizer& tokenizer_;
  std::string source_;
  std::optional<templates::Template> template_;
};

}  // namespace instruct::instructions
