#include "instructions/dialogue.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "instructions/dialogue_mask.h"

namespace instruct::instructions {
namespace {

using templates::Data;
using templates::Rendered;
using tokenizers::TextRange;
using tokenizers::Token;

// Members of an assistant message besides its content that the model itself produces.
constexpr std::string_view kProduced[] = {"tool_calls", "function_call", "reasoning_content", "thinking", "reasoning"};
// Names for reasoning, the preferred one first.
constexpr std::string_view kReasoning[] = {"reasoning_content", "thinking", "reasoning"};

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

// What the model thought, under whatever name; nullptr when there is nothing.
const Value* reasoning_of(const Message& message) {
  for (const std::string_view name : kReasoning) {
    const Value* value = message.extra.is_object() ? message.extra.find(std::string(name)) : nullptr;
    if (value != nullptr && !value->is_null()) return value;
  }
  return nullptr;
}

Data content_data(const Message& message, int own, ContentForm form) {
  Data text = Data::from_value(Value(message.content), own);
  if (form == ContentForm::kText) return text;
  Data part = Data::object();
  part.set("type", Data("text"));
  part.set("text", std::move(text));
  return Data::array().push(std::move(part));
}

// Content and what the model produces have source `own`; names and ids, which users give too, have source `other`.
// Reasoning gets the names by which templates ask for it, as transformers does (_alias_reasoning_fields, 5.24).
Data message_data(const Message& message, int own, int other, ContentForm form) {
  check_role(message);
  Data data = Data::object();
  const Value* reasoning = reasoning_of(message);
  if (reasoning != nullptr) data.set("thinking", Data::from_value(*reasoning, own));
  data.set("role", Data::from_value(Value(message.role)));
  data.set("content", content_data(message, own, form));
  if (message.extra.is_object()) {
    for (const auto& [key, value] : message.extra.as_object()) {
      const bool produced = std::find(std::begin(kProduced), std::end(kProduced), key) != std::end(kProduced);
      if (key != "role" && key != "content") data.set(key, Data::from_value(value, produced ? own : other));
    }
  }
  if (reasoning != nullptr) data.set("reasoning_content", Data::from_value(*reasoning, own));
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

// Contents on lines of their own, as an encoder-decoder reads them.
Rendered join_lines(std::span<const Message> messages) {
  Rendered rendered;
  for (std::size_t k = 0; k < messages.size(); ++k) {
    if (k > 0) rendered.text += '\n';
    const std::size_t begin = rendered.text.size();
    rendered.text += messages[k].content;
    if (k > 0) rendered.spans.push_back({begin - 1, begin, 0});
    rendered.spans.push_back({begin, rendered.text.size(), static_cast<int>(k) + 1});
  }
  return rendered;
}

}  // namespace

std::string_view plain_chat_template() {
  return "{% for message in messages %}{{ message['content'] }}"
         "{% if message['role'] == 'assistant' %}{{ eos_token }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
         "{% elif message['role'] == 'system' %}{{ '\\n\\n' }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}";
}

DialogueEncoder::DialogueEncoder(const tokenizers::Tokenizer& tokenizer, std::string chat_template,
                                 const std::string& origin)
    : tokenizer_(tokenizer), source_(std::move(chat_template)) {
  if (source_.empty()) return;
  template_ = templates::Template::parse(source_, origin + " (chat template)");
  content_form_ = form_of_content();
  missing_end_ = find_missing_end();
}

DialogueEncoder::DialogueEncoder(const tokenizers::Tokenizer& tokenizer, const TextToText& form)
    : tokenizer_(tokenizer), text_to_text_(form) {
  if (text_to_text_->source == nullptr) text_to_text_->source = &tokenizer;
}

// Templates of models that see pictures may read content as a list of parts only: a text is lost on them.
ContentForm DialogueEncoder::form_of_content() {
  const Message probe{"user", "probe", {}};
  for (const ContentForm form : {ContentForm::kText, ContentForm::kParts}) {
    content_form_ = form;
    try {
      if (render({&probe, 1}, false).text.find(probe.content) != std::string::npos) return form;
    } catch (const Error&) {  // a template may ask for more than one message, or for tools
    }
  }
  return ContentForm::kText;
}

// Some templates leave the end of an answer to the turn that follows it (GLM's <|user|>, which its models generate to
// end a turn). An answer that comes last would never end; what the next turn writes up to the end-of-turn token ends
// it.
std::string DialogueEncoder::find_missing_end() const {
  const std::vector<Message> probe{{"user", "probe", {}}, {"assistant", "probed", {}}, {"user", "next", {}}};
  try {
    const std::string last = render(std::span(probe).first(2), false).text;
    const Rendered followed = render(probe, false);
    const std::size_t answer = last.rfind(probe[1].content);
    if (answer == std::string::npos || !followed.text.starts_with(last)) return {};
    const std::vector<std::int32_t>& ends = tokenizer_.end_of_generation();
    const std::size_t answer_end = answer + probe[1].content.size();
    for (const Token& token : tokenizer_.encode(followed.text, template_ranges(followed))) {
      if (token.begin < answer_end) continue;
      if (std::find(ends.begin(), ends.end(), token.id) == ends.end()) continue;
      if (token.begin < last.size() || token.end > followed.text.rfind(probe[2].content)) return {};
      return followed.text.substr(last.size(), token.end - last.size());
    }
  } catch (const Error&) {
  }
  return {};
}

// The render that is trained: with the end of the last answer.
Rendered DialogueEncoder::render_answered(std::span<const Message> messages, const Value& variables) const {
  Rendered rendered = render(messages, false, variables);
  if (missing_end_.empty() || messages.empty() || messages.back().role != "assistant") return rendered;
  if (messages.back().extra.is_object() && messages.back().extra.find("tool_calls") != nullptr) return rendered;
  const std::size_t end = rendered.text.size();
  rendered.text += missing_end_;
  rendered.spans.push_back({end, rendered.text.size(), 0});
  if (!rendered.generation.empty() && rendered.generation.back().second == end)
    rendered.generation.back().second = rendered.text.size();
  return rendered;
}

Rendered DialogueEncoder::render(std::span<const Message> messages, bool add_generation_prompt,
                                 const Value& variables) const {
  const auto text_of = [&](std::optional<std::int32_t> id) {
    return id ? std::string(tokenizer_.token_bytes(*id)) : std::string();
  };
  if (text_to_text_) return join_lines(messages);
  if (!template_) return join(messages, text_of(tokenizer_.eos()));
  const int other = static_cast<int>(messages.size()) + 1;
  Data list = Data::array();
  for (std::size_t k = 0; k < messages.size(); ++k)
    list.push(message_data(messages[k], static_cast<int>(k) + 1, other, content_form_));
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

// The prompt that the last answer is served with.
ServedPrompt DialogueEncoder::served_prompt(std::span<const Message> messages, const Value& variables) const {
  std::size_t last = messages.size();
  for (std::size_t k = 0; k < messages.size(); ++k) {
    if (messages[k].role == "assistant") last = k;
  }
  ServedPrompt served;
  if (last == 0 || last == messages.size()) return served;
  served.text = render(messages.first(last), true, variables).text;
  if (!template_) return served;
  const std::string without = render(messages.first(last), false, variables).text;
  if (served.text.starts_with(without)) served.opening = served.text.substr(without.size());
  return served;
}

EncodedDialogue DialogueEncoder::encode_training(std::span<const Message> messages, const MaskOptions& options,
                                                 const Value& variables) const {
  if (text_to_text_) return encode_text_to_text(messages);
  const Rendered rendered = render_answered(messages, variables);
  const ServedPrompt served = served_prompt(messages, variables);
  const std::vector<Token> tokens = tokens_of(rendered);
  EncodedDialogue result;
  result.follows_prompt = rendered.text.starts_with(served.text);
  for (const Token& token : tokens) {
    result.tokens.push_back(token.id);
    result.ranges.push_back({token.begin, token.end});
  }
  result.trained.assign(tokens.size(), 0);
  std::vector<TextRange> answers = answer_ranges(rendered, messages, served);
  if (options.mask_history && answers.size() > 1) answers.erase(answers.begin(), answers.end() - 1);
  mark_answers(answers, tokens, tokenizer_, rendered, served, result);
  if (options.train_on_prompt) std::fill(result.trained.begin(), result.trained.end(), std::uint8_t{1});
  if (!result.trained.empty()) result.trained.front() = 0;  // nothing comes before the first token
  if (std::find(result.trained.begin(), result.trained.end(), 1) == result.trained.end()) {
    raise(ErrorCategory::kInvalidArgument, "the row has no trained token: no assistant message with text in it");
  }
  result.text = rendered.text;
  return result;
}

// The last message is the answer, all of whose tokens are trained: those that the tokenizer puts around it too, as the
// models were trained.
EncodedDialogue DialogueEncoder::encode_text_to_text(std::span<const Message> messages) const {
  if (messages.empty() || messages.back().role != "assistant")
    raise(ErrorCategory::kInvalidArgument, "the row has no trained token: its last message is not the assistant's");
  EncodedDialogue result;
  result.text = join_lines(messages).text;
  const std::size_t answer_begin = result.text.size() - messages.back().content.size();
  const auto add = [&](const tokenizers::Token& token, std::size_t offset, bool trained) {
    result.tokens.push_back(token.id);
    result.trained.push_back(trained ? 1 : 0);
    result.ranges.push_back({token.begin + offset, token.end + offset});
  };
  const std::string read = join_lines(messages.first(messages.size() - 1)).text;
  for (const tokenizers::Token& token : text_to_text_->source->encode_input(read).tokens) add(token, 0, false);
  result.source = static_cast<std::int64_t>(result.tokens.size());
  add({text_to_text_->start, 0, 0}, answer_begin, false);
  for (const tokenizers::Token& token : tokenizer_.encode_input(messages.back().content).tokens)
    add(token, answer_begin, true);
  const auto& ends = tokenizer_.end_of_generation();
  result.end_trained = std::find(ends.begin(), ends.end(), result.tokens.back()) != ends.end();
  return result;
}

std::vector<std::int32_t> DialogueEncoder::source_text(std::string_view text) const {
  std::vector<std::int32_t> ids;
  for (const tokenizers::Token& token : text_to_text_->source->encode_plain(text)) ids.push_back(token.id);
  return ids;
}

std::int64_t DialogueEncoder::source_tokens(std::span<const std::int32_t> prompt) const {
  if (!text_to_text_) return 0;
  return static_cast<std::int64_t>(prompt.size()) - (text_to_text_->forced_first ? 2 : 1);
}

std::vector<std::int32_t> DialogueEncoder::encode_prompt(std::span<const Message> messages,
                                                         const Value& variables) const {
  std::vector<std::int32_t> ids;
  if (text_to_text_) {
    for (const tokenizers::Token& token : text_to_text_->source->encode_input(join_lines(messages).text).tokens)
      ids.push_back(token.id);
    ids.push_back(text_to_text_->start);
    if (text_to_text_->forced_first) ids.push_back(*text_to_text_->forced_first);
    return ids;
  }
  for (const Token& token : tokens_of(render(messages, true, variables))) ids.push_back(token.id);
  return ids;
}

std::string DialogueEncoder::fingerprint() const {
  return sha256_hex(source_ + '\0' + tokenizer_.fingerprint());
}

}  // namespace instruct::instructions
