// Dialogues to tokens: one renderer for training, scoring and generation, with the loss mask read off the render.
//
// The chat template is rendered over the whole dialogue; the renderer says which characters came from which message. Of
// an assistant turn everything the model has to produce is trained: what follows the prompt it is served with (for most
// templates that is the content itself), up to and including the end-of-turn token. What the template writes behind
// that (a newline) is not. Where the served prompt is no start of the render (templates that open an answer with
// <think> and forget the thoughts of a finished one), the answer starts with its own words, and `follows_prompt` says
// so. A token that holds characters from both sides of an answer's start or end is a seam: it is trained, since it
// holds answer characters, and reported, since the model will not see that same token when it generates. Special tokens
// are recognised in the template's own text only, never in what users wrote.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "templates/template.h"
#include "tokenizers/tokenizer.h"

namespace instruct::instructions {

struct Message {
  std::string role;  // system, user, assistant, tool
  std::string content;
  Value extra;  // further fields of the row (tool_calls, name), or null
};

struct MaskOptions {
  bool train_on_prompt = false;  // every token is trained
  bool mask_history = false;     // only the last assistant turn is trained
};

struct EncodedDialogue {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> trained;  // 1: this token is predicted and counts in the loss
  std::vector<std::size_t> seams;     // trained tokens that also hold characters from outside the answer
  bool end_trained = false;           // the last trained answer's end-of-turn token is trained too
  bool follows_prompt = true;         // the text starts with the prompt the last answer is served with
  std::int64_t source = 0;            // tokens at the start that an encoder reads; 0 for decoders
  // The longer one of source and answer; all of it for decoders.
  std::int64_t longest_part() const { return std::max(source, static_cast<std::int64_t>(tokens.size()) - source); }
  std::string text;                           // what was encoded
  std::vector<tokenizers::TextRange> ranges;  // bytes of `text` of each token; empty for an added bos
};

// How a template reads the content of a message: as a text, or as a list of parts of which some are texts.
enum class ContentForm : std::uint8_t { kText, kParts };

struct ServedPrompt {
  std::string text;
  std::string opening;  // its end, which opens the answer; empty when the template writes nothing for that
};

// How an encoder-decoder is asked: its encoder reads everything up to the answer as one text, as its tokenizer frames
// it; the answer starts from a token of its own and ends as a framed text does.
struct TextToText {
  std::int32_t start = 0;                         // decoder_start_token_id
  std::optional<std::int32_t> forced_first;       // what generation puts behind it (forced_bos_token_id)
  const tokenizers::Tokenizer* source = nullptr;  // of what is read, where it is another than the answer's
};

// A chat template for base models, which have none: system and question on lines of their own, then the answer and the
// end-of-text token.
std::string_view plain_chat_template();

class DialogueEncoder {
 public:
  // An empty template joins the contents as they are (prompt and completion rows of base models); eos ends an answer.
  // The tokenizer must outlive the encoder. Raises BadData for a template that does not parse.
  DialogueEncoder(const tokenizers::Tokenizer& tokenizer, std::string chat_template, const std::string& origin);

  // For encoder-decoders: contents are joined by line breaks. The tokenizers must outlive the encoder.
  DialogueEncoder(const tokenizers::Tokenizer& tokenizer, const TextToText& form);

  // `variables`: an object of further template variables (tools, documents, enable_thinking), or null. Raises
  // InvalidArgument when nothing would be trained, BadData for a role that is no plain word or a template that fails.
  EncodedDialogue encode_training(std::span<const Message> messages, const MaskOptions& options = {},
                                  const Value& variables = {}) const;
  // Tokens up to where the assistant's next answer starts; of an encoder-decoder what is read, then source_tokens()
  // further on what the answer starts from.
  std::vector<std::int32_t> encode_prompt(std::span<const Message> messages, const Value& variables = {}) const;
  // Of an encoder-decoder: the token that answers start from, and the tokens of a text that it reads without what the
  // tokenizer puts around it.
  std::int32_t answer_start() const { return text_to_text_->start; }
  std::vector<std::int32_t> source_text(std::string_view text) const;
  // How many tokens of such a prompt an encoder reads; 0 for decoders.
  std::int64_t source_tokens(std::span<const std::int32_t> prompt) const;
  // What the template makes of the messages, for display. Message k's own words have source k + 1.
  templates::Rendered render(std::span<const Message> messages, bool add_generation_prompt,
                             const Value& variables = {}) const;

  const tokenizers::Tokenizer& tokenizer() const { return tokenizer_; }
  bool is_text_to_text() const { return text_to_text_.has_value(); }
  bool has_template() const { return template_.has_value(); }
  const std::string& template_source() const { return source_; }
  // SHA-256 over template and tokenizer: what an adapter was trained with.
  std::string fingerprint() const;

 private:
  EncodedDialogue encode_text_to_text(std::span<const Message> messages) const;
  std::vector<tokenizers::Token> tokens_of(const templates::Rendered& rendered) const;
  ContentForm form_of_content();
  std::string find_missing_end() const;
  templates::Rendered render_answered(std::span<const Message> messages, const Value& variables) const;
  ServedPrompt served_prompt(std::span<const Message> messages, const Value& variables) const;

  const tokenizers::Tokenizer& tokenizer_;
  std::string source_;
  std::optional<templates::Template> template_;
  std::optional<TextToText> text_to_text_;
  ContentForm content_form_ = ContentForm::kText;
  std::string missing_end_;  // what ends an answer that comes last, where the template writes nothing
};

}  // namespace instruct::instructions
