#include "instructions/dialogue.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"

namespace instruct::instructions {
namespace {

using templates::Data;
using templates::Rendered;
using tokenizers::Token;
using tokenizers::TextRange;

// Message k's content has source k + 1; roles and other fields count as the template's own words.
Data message_data(const Message& message, int source) {
  Data data = Data::object();
  data.set("role", Data::from_value(Value(message.role)));
  data.set("content", Data::from_value(Value(message.content), source));
  if (message.extra.is_object()) {
    for (const auto& [key, value] : message.extra.as_object()) data.set(key, Data::from_value(value, source));
  }
  return data;
}

// Without a template: contents one after another, eos behind each answer.
Rendered join(std::span<const Message> messages, const std::string& eos) {
  Rendered rendered;
  for (std::size_t k = 0; k < messages.size(); ++k) {
    const std::size_t begin = rendered.text.size();
    rendered.text += messages[k].content;
    rendered.spans.push_back({begin, rendered.text.size(), static_cast<int>(k) + 1});
    if (messages[k].role == "assistant" && !eos.empty()) {
      const std::size_t end = rendered.text.size();
      rendered.text += eos;
      rendered.spans.push_back({end, rendered.text.size(), 0});
    }
  }
  return rendered;
}

// First and last byte that came from message k.
std::optional<TextRange> content_range(const Rendered& rendered, std::size_t k) {
  std::optional<TextRange> range;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source != static_cast<int>(k) + 1 || span.begin == span.end) continue;
    if (!range) range = TextRange{span.begin, span.end};
    range->end = span.end;
  }
  return range;
}

std::vector<TextRange> template_ranges(const Rendered& rendered) {
  std::vector<TextRange> ranges;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source == 0 && span.begin < span.end) ranges.push_back({span.begin, span.end});
  }
  return ranges;
}

// Marks the tokens of one answer and its end-of-turn token.
class Marker {
 public:
  Marker(std::span<const Token> tokens, const std::vector<std::int32_t>& ends, EncodedDialogue& result)
      : tokens_(tokens), ends_(ends), result_(result) {}

  void mark(TextRange answer) {
    result_.end_trained = false;
    std::size_t i = 0;
    while (i < tokens_.size() && tokens_[i].end <= answer.begin) ++i;
    for (; i < tokens_.size() && tokens_[i].begin < answer.end; ++i) {
      result_.trained[i] = 1;
      if (tokens_[i].begin < answer.begin || tokens_[i].end > answer.end) ++result_.seam_tokens;
    }
    // What the template writes up to the end-of-turn token must be produced by the model to end its turn.
    for (std::size_t j = i; j < tokens_.size() && j < i + 4; ++j) {
      if (std::find(ends_.begin(), ends_.end(), tokens_[j].id) == ends_.end()) continue;
      for (std::size_t t = i; t <= j; ++t) result_.trained[t] = 1;
      result_.end_trained = true;
      return;
    }
  }

 private:
  std::span<const Token> tokens_;
  const std::vector<std::int32_t>& ends_;
  EncodedDialogue& result_;
};

}  // namespace

DialogueEncoder::DialogueEncoder(const tokenizers::Tokenizer& tokenizer, std::string chat_template,
                                 const std::string& origin)
    : tokenizer_(tokenizer), source_(std::move(chat_template)) {
  if (!source_.empty()) template_ = templates::Template::parse(source_, origin + " (chat template)");
}

Rendered DialogueEncoder::render(std::span<const Message> messages, bool add_generation_prompt) const {
  const auto text_of = [&](std::optional<std::int32_t> id) { return id ? tokenizer_.token_bytes(*id) : std::string(); };
  if (!template_) return join(messages, text_of(tokenizer_.eos()));
  Data list = Data::array();
  for (std::size_t k = 0; k < messages.size(); ++k) list.push(message_data(messages[k], static_cast<int>(k) + 1));
  Data variables = Data::object();
  variables.set("messages", std::move(list));
  variables.set("add_generation_prompt", Data::from_value(Value(add_generation_prompt)));
  variables.set("bos_token", Data::from_value(Value(text_of(tokenizer_.bos()))));
  variables.set("eos_token", Data::from_value(Value(text_of(tokenizer_.eos()))));
  return template_->render(variables);
}

std::vector<Token> DialogueEncoder::tokens_of(const Rendered& rendered) const {
  std::vector<Token> tokens = tokenizer_.encode(rendered.text, template_ranges(rendered));
  // Exactly one bos: added when the tokenizer asks for it and the template wrote none.
  if (tokenizer_.add_bos() && tokenizer_.bos() && (tokens.empty() || tokens.front().id != *tokenizer_.bos())) {
    tokens.insert(tokens.begin(), Token{*tokenizer_.bos(), 0, 0});
  }
  return tokens;
}

EncodedDialogue DialogueEncoder::encode_training(std::span<const Message> messages, const MaskOptions& options) const {
  const Rendered rendered = render(messages, false);
  const std::vector<Token> tokens = tokens_of(rendered);
  EncodedDialogue result;
  for (const Token& token : tokens) result.tokens.push_back(token.id);
  result.trained.assign(tokens.size(), 0);
  Marker marker(tokens, tokenizer_.end_of_generation(), result);
  if (!rendered.generation.empty()) {
    const std::size_t first = options.mask_history ? rendered.generation.size() - 1 : 0;
    for (std::size_t i = first; i < rendered.generation.size(); ++i) {
      marker.mark({rendered.generation[i].first, rendered.generation[i].second});
    }
  } else {
    std::size_t last = messages.size();
    for (std::size_t k = 0; k < messages.size(); ++k) {
      if (messages[k].role == "assistant") last = k;
    }
    for (std::size_t k = 0; k < messages.size(); ++k) {
      if (messages[k].role != "assistant" || (options.mask_history && k != last)) continue;
      if (const auto range = content_range(rendered, k)) marker.mark(*range);
    }
  }
  if (options.train_on_prompt) std::fill(result.trained.begin(), result.trained.end(), std::uint8_t{1});
  if (!result.trained.empty()) result.trained.front() = 0;  // nothing comes before the first token
  if (std::find(result.trained.begin(), result.trained.end(), 1) == result.trained.end()) {
    raise(ErrorCategory::kInvalidArgument, "the row has no trained token: no assistant message with text in it");
  }
  return result;
}

std::vector<std::int32_t> DialogueEncoder::encode_prompt(std::span<const Message> messages) const {
  std::vector<std::int32_t> ids;
  for (const Token& token : tokens_of(render(messages, true))) ids.push_back(token.id);
  return ids;
}

std::string DialogueEncoder::fingerprint() const { return sha256_hex(source_ + '\0' + tokenizer_.fingerprint()); }

}  // namespace instruct::instructions
