#include "instructions/dialogue.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"

namespace instruct::instructions {
namespace {

using templates::Data;
using templates::Rendered;
using tokenizers::TextRange;
using tokenizers::Token;

// Members of an assistant message besides its content that the model itself produces.
constexpr std::string_view kProduced[] = {"tool_calls", "function_call", "reasoning_content", "thinking"};

// Roles go into the render as the template's own words, since some templates build special tokens from them. They must
// therefore be words that cannot spell one.
void check_role(const Message& message) {
  constexpr std::size_t kLongestRole = 32;
  const bool plain = std::all_of(message.role.begin(), message.role.end(),
                                 [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; });
  if (!plain || message.role.empty() || message.role.size() > kLongestRole) {
    raise(ErrorCategory::kBadData, "role '{}' of a message: expected a word such as system, user, assistant or tool",
          message.role);
  }
}

// Content and what the model produces have source `own`; names and ids, which users give too, have source `other`.
Data message_data(const Message& message, int own, int other) {
  check_role(message);
  Data data = Data::object();
  data.set("role", Data::from_value(Value(message.role)));
  data.set("content", Data::from_value(Value(message.content), own));
  if (message.extra.is_object()) {
    for (const auto& [key, value] : message.extra.as_object()) {
      const bool produced = std::find(std::begin(kProduced), std::end(kProduced), key) != std::end(kProduced);
      if (key != "role" && key != "content") data.set(key, Data::from_value(value, produced ? own : other));
    }
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

// From the first to the last byte that came from message k.
std::optional<TextRange> content_range(const Rendered& rendered, std::size_t k) {
  std::optional<TextRange> range;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source != static_cast<int>(k) + 1 || span.begin == span.end) continue;
    if (!range) range = TextRange{span.begin, span.end};
    range->end = span.end;
  }
  return range;
}

// The template's own text; neighbours joined.
std::vector<TextRange> template_ranges(const Rendered& rendered) {
  std::vector<TextRange> ranges;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source != 0 || span.begin == span.end) continue;
    if (!ranges.empty() && ranges.back().end == span.begin)
      ranges.back().end = span.end;
    else
      ranges.push_back({span.begin, span.end});
  }
  return ranges;
}

// Marks the tokens of answers and of the end-of-turn tokens behind them.
class Marker {
 public:
  Marker(std::span<const Token> tokens, const tokenizers::Tokenizer& tokenizer, std::vector<TextRange> own_text,
         EncodedDialogue& result)
      : tokens_(tokens), tokenizer_(tokenizer), own_text_(std::move(own_text)), result_(result) {}

  void mark(TextRange answer) {
    std::size_t i = 0;
    while (i < tokens_.size() && tokens_[i].end <= answer.begin) ++i;
    std::size_t last = tokens_.size();
    for (; i < tokens_.size() && tokens_[i].begin < answer.end; ++i) {
      if (tokens_[i].begin < answer.begin || tokens_[i].end > answer.end) result_.seams.push_back(i);
      result_.trained[i] = 1;
      last = i;
    }
    result_.end_trained = last < tokens_.size() && ends_turn(tokens_[last]);
    if (!result_.end_trained) mark_end(i);
  }

 private:
  // What the template itself writes from token `from` to the end-of-turn token must be produced to end the turn.
  // Another special token, or text of a message, means there is none.
  void mark_end(std::size_t from) {
    for (std::size_t j = from; j < tokens_.size() && by_template(tokens_[j]); ++j) {
      if (ends_turn(tokens_[j])) {
        for (std::size_t t = from; t <= j; ++t) result_.trained[t] = 1;
        result_.end_trained = true;
        return;
      }
      if (tokenizer_.is_special(tokens_[j].id)) return;
    }
  }

  bool ends_turn(const Token& token) const {
    const std::vector<std::int32_t>& ends = tokenizer_.end_of_generation();
    return by_template(token) && std::find(ends.begin(), ends.end(), token.id) != ends.end();
  }
  bool by_template(const Token& token) const {
    return std::any_of(own_text_.begin(), own_text_.end(),
                       [&](const TextRange& range) { return range.begin <= token.begin && token.end <= range.end; });
  }

  std::span<const Token> tokens_;
  const tokenizers::Tokenizer& tokenizer_;
  std::vector<TextRange> own_text_;
  EncodedDialogue& result_;
};

}  // namespace

std::string_view plain_chat_template() {
  return "{% for message in messages %}{{ message['content'] }}"
         "{% if message['role'] == 'assistant' %}{{ eos_token }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
         "{% elif message['role'] == 'system' %}{{ '\\n\\n' }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}";
}

DialogueEncoder::DialogueEncoder(const tokenizers::Tokenizer& tokenizer, std::string chat_template,
                                 const std::string& origin)
    : tokenizer_(tokenizer), source_(std::move(chat_template)) {
  if (!source_.empty()) template_ = templates::Template::parse(source_, origin + " (chat template)");
}

Rendered DialogueEncoder::render(std::span<const Message> messages, bool add_generation_prompt,
                                 const Value& variables) const {
  const auto text_of = [&](std::optional<std::int32_t> id) {
    return id ? std::string(tokenizer_.token_bytes(*id)) : std::string();
  };
  if (!template_) return join(messages, text_of(tokenizer_.eos()));
  const int other = static_cast<int>(messages.size()) + 1;
  Data list = Data::array();
  for (std::size_t k = 0; k < messages.size(); ++k)
    list.push(message_data(messages[k], static_cast<int>(k) + 1, other));
  Data data = Data::object();
  // Always there, as in transformers: templates ask whether they are none.
  for (const char* name : {"tools", "documents"}) data.set(name, Data());
  if (variables.is_object()) {
    for (const auto& [key, value] : variables.as_object()) data.set(key, Data::from_value(value, other));
  }
  data.set("messages", std::move(list));
  data.set("add_generation_prompt", Data(add_generation_prompt));
  data.set("bos_token", Data(text_of(tokenizer_.bos())));
  data.set("eos_token", Data(text_of(tokenizer_.eos())));
  return template_->render(data);
}

std::vector<Token> DialogueEncoder::tokens_of(const Rendered& rendered) const {
  std::vector<Token> tokens = tokenizer_.encode(rendered.text, template_ranges(rendered));
  if (!tokenizer_.bos()) return tokens;
  // Exactly one bos: added when the tokenizer asks for it and the template wrote none, and never twice.
  const std::int32_t bos = *tokenizer_.bos();
  std::size_t written = 0;
  while (written < tokens.size() && tokens[written].id == bos) ++written;
  if (written > 1) tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(written) - 1);
  if (written == 0 && tokenizer_.add_bos()) tokens.insert(tokens.begin(), Token{bos, 0, 0});
  return tokens;
}

// What the template writes to open the last assistant turn; empty when it writes nothing.
std::string DialogueEncoder::generation_prompt(std::span<const Message> messages, const Value& variables) const {
  if (!template_) return {};
  std::size_t last = messages.size();
  for (std::size_t k = 0; k < messages.size(); ++k) {
    if (messages[k].role == "assistant") last = k;
  }
  if (last == 0 || last == messages.size()) return {};
  const std::string without = render(messages.first(last), false, variables).text;
  const std::string with = render(messages.first(last), true, variables).text;
  return with.starts_with(without) ? with.substr(without.size()) : std::string();
}

std::vector<TextRange> DialogueEncoder::answer_ranges(const Rendered& rendered, std::span<const Message> messages,
                                                      const MaskOptions& options, const Value& variables) const {
  std::vector<TextRange> ranges;
  if (!rendered.generation.empty()) {  // the template marks its answers itself
    for (const auto& [begin, end] : rendered.generation) ranges.push_back({begin, end});
  } else {
    const std::string opening = generation_prompt(messages, variables);
    std::size_t done = 0;  // bytes of earlier messages
    for (std::size_t k = 0; k < messages.size(); ++k) {
      std::optional<TextRange> range = content_range(rendered, k);
      if (!range) continue;
      const std::size_t content_end = range->end;
      if (messages[k].role == "assistant") {
        const std::size_t at = opening.empty() || range->begin < opening.size()
                                   ? std::string::npos
                                   : rendered.text.rfind(opening, range->begin - opening.size());
        if (at != std::string::npos && at >= done) range->begin = at + opening.size();
        ranges.push_back(*range);
      }
      done = std::max(done, content_end);
    }
  }
  if (options.mask_history && ranges.size() > 1) ranges.erase(ranges.begin(), ranges.end() - 1);
  return ranges;
}

EncodedDialogue DialogueEncoder::encode_training(std::span<const Message> messages, const MaskOptions& options,
                                                 const Value& variables) const {
  const Rendered rendered = render(messages, false, variables);
  const std::vector<Token> tokens = tokens_of(rendered);
  EncodedDialogue result;
  for (const Token& token : tokens) {
    result.tokens.push_back(token.id);
    result.ranges.push_back({token.begin, token.end});
  }
  result.trained.assign(tokens.size(), 0);
  Marker marker(tokens, tokenizer_, template_ranges(rendered), result);
  for (const TextRange& answer : answer_ranges(rendered, messages, options, variables)) marker.mark(answer);
  if (options.train_on_prompt) std::fill(result.trained.begin(), result.trained.end(), std::uint8_t{1});
  if (!result.trained.empty()) result.trained.front() = 0;  // nothing comes before the first token
  if (std::find(result.trained.begin(), result.trained.end(), 1) == result.trained.end()) {
    raise(ErrorCategory::kInvalidArgument, "the row has no trained token: no assistant message with text in it");
  }
  result.text = rendered.text;
  return result;
}

std::vector<std::int32_t> DialogueEncoder::encode_prompt(std::span<const Message> messages,
                                                         const Value& variables) const {
  std::vector<std::int32_t> ids;
  for (const Token& token : tokens_of(render(messages, true, variables))) ids.push_back(token.id);
  return ids;
}

std::string DialogueEncoder::fingerprint() const {
  return sha256_hex(source_ + '\0' + tokenizer_.fingerprint());
}

}  // namespace instruct::instructions
