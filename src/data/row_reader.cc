#include "data/row_reader.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::data {
namespace {

using instructions::Message;

// "text 'abc'", "integer", ...: what was found in a field.
std::string found(const Value& value) {
  constexpr std::size_t kShown = 40;
  if (!value.is_string()) return std::string(kind_name(value.kind()));
  const std::string& text = value.as_string();
  if (text.size() <= kShown) return "text '" + text + "'";
  return "text '" + text.substr(0, kShown - incomplete_utf8_tail(std::string_view(text).substr(0, kShown))) + "...'";
}

bool is_blank(const Value& value) {
  return value.is_null() || (value.is_string() && trim(value.as_string()).empty());
}

std::optional<RowFormat> format_from_name(const std::string& name) {
  if (name.empty()) return std::nullopt;
  constexpr std::pair<const char*, RowFormat> kNames[] = {{"alpaca", RowFormat::kAlpaca},
                                                          {"sharegpt", RowFormat::kShareGpt},
                                                          {"openai", RowFormat::kMessages},
                                                          {"messages", RowFormat::kMessages},
                                                          {"text", RowFormat::kText},
                                                          {"prompt_completion", RowFormat::kPromptCompletion},
                                                          {"instruction", RowFormat::kInstruction}};
  std::vector<std::string> known;
  for (const auto& [text, format] : kNames) {
    if (name == text) return format;
    known.emplace_back(text);
  }
  raise(ErrorCategory::kInvalidArgument, "unknown row format '{}'{}", name, did_you_mean(name, known));
}

}  // namespace

RowFormat detect_format(const Value& row, const std::string& where, const ColumnMap& map) {
  if (const auto format = format_from_name(map.formatting)) return *format;
  const auto has = [&](const char* key) { return row.find(key) != nullptr; };
  if (has("chosen") || has("rejected") || has("kto_tag")) {
    raise(ErrorCategory::kUnsupported,
          "{}: this is a preference row (chosen, rejected or kto_tag): only supervised rows can be read", where);
  }
  if (has("verb") || !map.verb.empty()) return RowFormat::kInstruction;
  if (has("messages")) return RowFormat::kMessages;
  if (has("conversations")) return RowFormat::kShareGpt;
  if (has("prompt") && has("completion")) return RowFormat::kPromptCompletion;
  if (has("instruction")) return RowFormat::kAlpaca;
  if (has("text")) return RowFormat::kText;
  std::string keys;
  for (const auto& [key, value] : row.as_object()) keys += (keys.empty() ? "" : ", ") + key;
  raise(ErrorCategory::kBadData,
        "{}: fields {} fit no known format: expected verb, instruction/output, messages, conversations, "
        "prompt/completion or text (or give a column map)",
        where, keys.empty() ? "(none)" : keys);
}

Example RowReader::read(RowFormat format) const {
  Example example{.format = format};
  switch (format) {
    case RowFormat::kInstruction:
      read_instruction(example);
      break;
    case RowFormat::kAlpaca:
      read_alpaca(example);
      break;
    case RowFormat::kShareGpt:
      read_sharegpt(example);
      break;
    case RowFormat::kMessages:
      example.messages = messages(field(column("messages")), column("messages"));
      add_context(example);
      break;
    case RowFormat::kPromptCompletion:
      read_prompt_completion(example);
      break;
    case RowFormat::kText:
      example.plain = true;
      example.messages = {{"assistant", text(column("text")), {}}};
      break;
  }
  return example;
}

void RowReader::fail(std::string_view name, std::string_view expected, std::string_view received) const {
  raise(ErrorCategory::kBadData, "{}: field '{}': expected {}, got {}", where_, name, expected, received);
}

bool RowReader::is_mapped(std::string_view name) const {
  const Value* mapped = map_.columns.find(name);
  return mapped != nullptr && mapped->is_string();
}

std::string RowReader::column(std::string_view name, std::string_view standard) const {
  if (is_mapped(name)) return map_.columns.find(name)->as_string();
  return std::string(standard.empty() ? name : standard);
}

std::string RowReader::tag(std::string_view name, std::string_view standard) const {
  const Value* mapped = map_.tags.find(name);
  return mapped != nullptr && mapped->is_string() ? mapped->as_string() : std::string(standard);
}

const Value* RowReader::find(std::string_view column) const {
  const Value* value = row_.find(column);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const Value& RowReader::field(std::string_view column) const {
  if (const Value* value = find(column)) return *value;
  std::vector<std::string> keys;
  for (const auto& [key, value] : row_.as_object()) keys.push_back(key);
  fail(column, "a value", row_.find(column) != nullptr ? "null" : "nothing" + did_you_mean(column, keys));
}

std::string RowReader::text_of(const Value& value, std::string_view name) const {
  if (!value.is_string()) fail(name, "text", found(value));
  return value.as_string();
}

std::string RowReader::text_or_empty(std::string_view column) const {
  const Value* value = find(column);
  return value == nullptr ? std::string() : text_of(*value, column);
}

void RowReader::read_instruction(Example& example) const {
  const std::string verb_column = column("verb");
  const std::string output_column = column("output");
  example.verb = map_.verb.empty() || find(verb_column) != nullptr ? text(verb_column) : map_.verb;
  example.variables = Value::object();
  for (const auto& [key, value] : row_.as_object()) {
    if (key == verb_column) continue;
    if (key == output_column) {
      example.output = value;
      continue;
    }
    std::string name = key;
    if (map_.columns.is_object()) {
      for (const auto& [variable, mapped] : map_.columns.as_object()) {
        if (mapped.is_string() && mapped.as_string() == key) name = variable;
      }
    }
    example.variables.set(name, value);
  }
}

// LLaMA-Factory names the three columns prompt, query and response; without a map they are alpaca's.
void RowReader::read_alpaca(Example& example) const {
  const std::string system = text_or_empty(column("system"));
  if (!system.empty()) example.messages.push_back({"system", system, {}});
  const std::string history = column("history");
  if (const Value* turns = find(history); turns != nullptr && !is_blank(*turns)) {
    if (!turns->is_array()) fail(history, "a list of [question, answer] pairs", found(*turns));
    for (const Value& turn : turns->as_array()) {
      if (!turn.is_array() || turn.size() != 2) fail(history, "[question, answer] pairs", found(turn));
      example.messages.push_back({"user", text_of(turn.as_array()[0], history), {}});
      example.messages.push_back({"assistant", text_of(turn.as_array()[1], history), {}});
    }
  }
  const std::string prompt = text(column("prompt", "instruction"));
  const std::string query = text_or_empty(column("query", "input"));
  example.cut_from = query.empty() || prompt.empty() ? 0 : prompt.size() + 1;
  std::string question = prompt.empty() ? query : query.empty() ? prompt : prompt + "\n" + query;
  example.messages.push_back({"user", std::move(question), {}});
  example.messages.push_back({"assistant", text(column("response", "output")), {}});
  add_context(example);
}

void RowReader::read_sharegpt(Example& example) const {
  const std::string system = text_or_empty(column("system"));
  if (!system.empty()) example.messages.push_back({"system", system, {}});
  const std::string name = column("messages", "conversations");
  const Value& turns = field(name);
  if (!turns.is_array() || turns.size() == 0) fail(name, "a list of turns", found(turns));
  const std::array<std::pair<std::string, std::string>, 8> roles{{{tag("user_tag", "human"), "user"},
                                                                  {tag("assistant_tag", "gpt"), "assistant"},
                                                                  {tag("system_tag", "system"), "system"},
                                                                  {tag("observation_tag", "observation"), "tool"},
                                                                  {tag("function_tag", "function_call"), "assistant"},
                                                                  {"user", "user"},
                                                                  {"assistant", "assistant"},
                                                                  {"tool", "tool"}}};
  const std::string role_tag = tag("role_tag", "from");
  const std::string content_tag = tag("content_tag", "value");
  for (const Value& turn : turns.as_array()) {
    const Value* from = turn.find(role_tag);
    const Value* value = turn.find(content_tag);
    if (from == nullptr || value == nullptr || !from->is_string()) {
      fail(name, "turns with '" + role_tag + "' and '" + content_tag + "'",
           turn.is_object() ? "an object without them" : found(turn));
    }
    const auto role =
        std::find_if(roles.begin(), roles.end(), [&](const auto& pair) { return pair.first == from->as_string(); });
    if (role == roles.end()) {
      std::string expected = role_tag + ": ";
      for (std::size_t i = 0; i < 5; ++i) expected += (i > 0 ? ", " : "") + roles[i].first;
      fail(name, expected, found(*from));
    }
    example.messages.push_back({role->second, text_of(*value, name), {}});
  }
  add_context(example);
}

std::vector<Message> RowReader::messages(const Value& list, std::string_view name) const {
  if (!list.is_array() || list.size() == 0) fail(name, "a list of messages", found(list));
  std::vector<Message> result;
  for (const Value& item : list.as_array()) result.push_back(message(item, name));
  return result;
}

Message RowReader::message(const Value& item, std::string_view name) const {
  if (!item.is_object()) fail(name, "messages with role and content", found(item));
  const std::string role_tag = tag("role_tag", "role");
  const std::string content_tag = tag("content_tag", "content");
  Message result;
  for (const auto& [key, value] : item.as_object()) {
    if (key == role_tag) {
      result.role = text_of(value, name);
    } else if (key == content_tag) {
      result.content = content(value, name);
    } else if (key == "weight" && value.is_number() && value.as_double() == 0.0) {
      raise(ErrorCategory::kUnsupported,
            "{}: field '{}': a message of weight 0: answers are trained all, or with mask_history the last one", where_,
            name);
    } else {
      result.extra.set(key, value);
    }
  }
  if (result.role == "developer") result.role = "system";
  if (result.role != "system" && result.role != "user" && result.role != "assistant" && result.role != "tool") {
    fail(name, "role system, user, assistant or tool", result.role.empty() ? "none" : "'" + result.role + "'");
  }
  return result;
}

// A message's text; OpenAI's lists of parts are joined when all of them are text.
std::string RowReader::content(const Value& value, std::string_view name) const {
  if (value.is_null()) return {};
  if (!value.is_array()) return text_of(value, name);
  std::string joined;
  for (const Value& part : value.as_array()) {
    const Value* type = part.find("type");
    const Value* text = part.find("text");
    if (type == nullptr || !type->is_string() || type->as_string() != "text" || text == nullptr) {
      raise(ErrorCategory::kUnsupported, "{}: field '{}': a part of a message that is not text", where_, name);
    }
    joined += text_of(*text, name);
  }
  return joined;
}

void RowReader::read_prompt_completion(Example& example) const {
  const std::string prompt_column = column("prompt");
  const std::string completion_column = column("completion");
  const Value& prompt = field(prompt_column);
  const Value& completion = field(completion_column);
  if (prompt.is_array() != completion.is_array()) {
    fail(completion_column, prompt.is_array() ? "a list of messages, as the prompt is" : "text, as the prompt is",
         found(completion));
  }
  if (!prompt.is_array()) {
    example.plain = true;
    example.messages = {{"user", text_of(prompt, prompt_column), {}},
                        {"assistant", text_of(completion, completion_column), {}}};
    return;
  }
  example.messages = messages(prompt, prompt_column);
  for (Message& message : messages(completion, completion_column)) example.messages.push_back(std::move(message));
  add_context(example);
}

// `tools`: a list, or as LLaMA-Factory has it the JSON text of one.
void RowReader::add_context(Example& example) const {
  const std::string name = column("tools");
  const Value* tools = find(name);
  if (tools == nullptr || is_blank(*tools)) return;
  const Value list = tools->is_string() ? parse_json(tools->as_string(), where_ + ": field '" + name + "'") : *tools;
  if (!list.is_array()) fail(name, "a list of tools", found(*tools));
  if (list.size() > 0) example.context.set("tools", list);
}

}  // namespace instruct::data
