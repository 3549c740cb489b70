#include "data/rows.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/csv.h"

namespace instruct::data {
namespace {

namespace fs = std::filesystem;
using instructions::Message;

// Reads the fields of one row under the names of a column map, with errors that name file, row and field.
class RowReader {
 public:
  RowReader(const Value& row, std::int64_t number, const std::string& origin, const ColumnMap& map)
      : row_(row), number_(number), origin_(origin), map_(map) {}

  Example read(RowFormat format) {
    Example example{.row = number_, .format = format};
    switch (format) {
      case RowFormat::kInstruction: instruction(example); break;
      case RowFormat::kAlpaca: alpaca(example); break;
      case RowFormat::kShareGpt: sharegpt(example); break;
      case RowFormat::kMessages: example.messages = messages(field("messages"), "messages"); break;
      case RowFormat::kPromptCompletion: prompt_completion(example); break;
      case RowFormat::kText:
        example.plain = true;
        example.messages = {{"assistant", text("text"), {}}};
        break;
    }
    return example;
  }

  [[noreturn]] void fail(std::string_view name, std::string_view expected, std::string_view received) const {
    raise(ErrorCategory::kBadData, "{}: row {}: field '{}': expected {}, got {}", origin_, number_, name, expected, received);
  }

 private:
  std::string column(std::string_view name) const {
    if (map_.columns.is_object()) {
      if (const Value* mapped = map_.columns.find(name); mapped != nullptr && mapped->is_string()) return mapped->as_string();
    }
    return std::string(name);
  }
  std::string tag(std::string_view name, std::string_view standard) const {
    if (map_.tags.is_object()) {
      if (const Value* mapped = map_.tags.find(name); mapped != nullptr && mapped->is_string()) return mapped->as_string();
    }
    return std::string(standard);
  }
  const Value* find(std::string_view name) const {
    const Value* value = row_.find(column(name));
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  const Value& field(std::string_view name) const {
    const Value* value = find(name);
    if (value == nullptr) {
      std::vector<std::string> keys;
      for (const auto& [key, member] : row_.as_object()) keys.push_back(key);
      fail(column(name), "a value", "nothing" + did_you_mean(column(name), keys));
    }
    return *value;
  }
  std::string text_of(const Value& value, std::string_view name) const {
    if (!value.is_string()) fail(name, "text", kind_name(value.kind()));
    return value.as_string();
  }
  std::string text(std::string_view name) const { return text_of(field(name), column(name)); }
  std::string text_or_empty(std::string_view name) const {
    const Value* value = find(name);
    return value == nullptr ? std::string() : text_of(*value, column(name));
  }

  void instruction(Example& example) const {
    example.verb = text("verb");
    example.variables = Value::object();
    for (const auto& [key, value] : row_.as_object()) {
      if (key == "verb") continue;
      if (key == "output") {
        example.output = value;
      } else {
        example.variables.set(key, value);
      }
    }
  }

  void alpaca(Example& example) const {
    const std::string system = text_or_empty("system");
    if (!system.empty()) example.messages.push_back({"system", system, {}});
    if (const Value* history = find("history")) {
      if (!history->is_array()) fail("history", "a list of [question, answer] pairs", kind_name(history->kind()));
      for (const Value& turn : history->as_array()) {
        if (!turn.is_array() || turn.size() != 2) fail("history", "[question, answer] pairs", "another shape");
        example.messages.push_back({"user", text_of(turn.as_array()[0], "history"), {}});
        example.messages.push_back({"assistant", text_of(turn.as_array()[1], "history"), {}});
      }
    }
    // LLaMA-Factory's prompt/query/response, or alpaca's instruction/input/output.
    const bool mapped = map_.columns.is_object() && map_.columns.find("prompt") != nullptr;
    const std::string prompt = mapped ? text("prompt") : text("instruction");
    const std::string query = text_or_empty(mapped ? "query" : "input");
    example.messages.push_back({"user", query.empty() ? prompt : prompt + "\n" + query, {}});
    example.messages.push_back({"assistant", mapped ? text("response") : text("output"), {}});
  }

  void sharegpt(Example& example) const {
    const std::string system = text_or_empty("system");
    if (!system.empty()) example.messages.push_back({"system", system, {}});
    const Value& turns = map_.columns.is_object() && map_.columns.find("messages") != nullptr ? field("messages") : field("conversations");
    if (!turns.is_array() || turns.size() == 0) fail("conversations", "a list of turns", kind_name(turns.kind()));
    const std::pair<std::string, std::string> roles[] = {
        {tag("user_tag", "human"), "user"},         {tag("assistant_tag", "gpt"), "assistant"},
        {tag("system_tag", "system"), "system"},    {tag("observation_tag", "observation"), "tool"},
        {tag("function_tag", "function_call"), "assistant"}, {"user", "user"}, {"assistant", "assistant"}, {"tool", "tool"}};
    for (const Value& turn : turns.as_array()) {
      const Value* from = turn.find(tag("role_tag", "from"));
      const Value* value = turn.find(tag("content_tag", "value"));
      if (from == nullptr || value == nullptr || !from->is_string()) fail("conversations", "turns with 'from' and 'value'", "another shape");
      const auto role = std::find_if(std::begin(roles), std::end(roles), [&](const auto& pair) { return pair.first == from->as_string(); });
      if (role == std::end(roles)) fail("conversations", "from: human, gpt, system, observation or function_call", "'" + from->as_string() + "'");
      example.messages.push_back({role->second, text_of(*value, "conversations"), {}});
    }
  }

  std::vector<Message> messages(const Value& list, std::string_view name) const {
    if (!list.is_array() || list.size() == 0) fail(name, "a list of messages", kind_name(list.kind()));
    std::vector<Message> result;
    for (const Value& item : list.as_array()) {
      if (!item.is_object()) fail(name, "messages with role and content", kind_name(item.kind()));
      Message message;
      for (const auto& [key, value] : item.as_object()) {
        if (key == "role") {
          message.role = text_of(value, name);
        } else if (key == "content") {
          message.content = value.is_null() ? std::string() : text_of(value, name);
        } else {
          message.extra.set(key, value);
        }
      }
      const std::string& role = message.role;
      if (role == "developer") message.role = "system";
      if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
        fail(name, "role system, user, assistant or tool", role.empty() ? "none" : "'" + role + "'");
      }
      result.push_back(std::move(message));
    }
    return result;
  }

  void prompt_completion(Example& example) const {
    const Value& prompt = field("prompt");
    const Value& completion = field("completion");
    if (prompt.is_string() && completion.is_string()) {
      example.plain = true;
      example.messages = {{"user", prompt.as_string(), {}}, {"assistant", completion.as_string(), {}}};
      return;
    }
    example.messages = messages(prompt, column("prompt"));
    for (Message& message : messages(completion, column("completion"))) example.messages.push_back(std::move(message));
  }

  const Value& row_;
  std::int64_t number_;
  const std::string& origin_;
  const ColumnMap& map_;
};

RowFormat detect(const Value& row, std::int64_t number, const std::string& origin, const ColumnMap& map) {
  if (map.formatting == "alpaca") return RowFormat::kAlpaca;
  if (map.formatting == "sharegpt") return RowFormat::kShareGpt;
  const auto has = [&](const char* key) { return row.find(key) != nullptr; };
  if (has("verb")) return RowFormat::kInstruction;
  if (has("messages")) return RowFormat::kMessages;
  if (has("conversations")) return RowFormat::kShareGpt;
  if (has("prompt") && has("completion")) return RowFormat::kPromptCompletion;
  if (has("instruction")) return RowFormat::kAlpaca;
  if (has("text")) return RowFormat::kText;
  std::string keys;
  for (const auto& [key, value] : row.as_object()) keys += (keys.empty() ? "" : ", ") + key;
  raise(ErrorCategory::kBadData,
        "{}: row {}: fields {} fit no known format: expected verb, instruction/output, messages, conversations, "
        "prompt/completion or text (or give a column map)",
        origin, number, keys.empty() ? "(none)" : keys);
}

std::vector<Value> values_of(std::string_view text, std::string_view extension, const std::string& origin) {
  if (extension == ".csv") return parse_csv(text, origin);
  std::vector<Value> rows;
  if (extension == ".json") {
    Value root = parse_json(text, origin);
    if (root.is_object()) {
      for (const char* key : {"data", "rows", "train"}) {
        if (const Value* list = root.find(key); list != nullptr && list->is_array()) return list->as_array();
      }
    }
    if (!root.is_array()) raise(ErrorCategory::kBadData, "{}: expected a list of rows, got {}", origin, kind_name(root.kind()));
    return std::move(root.as_array());
  }
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (trim(line).empty()) return;
    rows.push_back(parse_json(line, fmt::format("{}: row {}", origin, number)));
    rows.back().set_mark({static_cast<int>(number), 1});
  });
  return rows;
}

}  // namespace

std::string_view format_name(RowFormat format) {
  switch (format) {
    case RowFormat::kInstruction: return "instruction";
    case RowFormat::kAlpaca: return "alpaca";
    case RowFormat::kShareGpt: return "sharegpt";
    case RowFormat::kMessages: return "messages";
    case RowFormat::kPromptCompletion: return "prompt/completion";
    case RowFormat::kText: return "text";
  }
  return "unknown";
}

Dataset parse_dataset(std::string_view text, std::string_view extension, const std::string& origin, const ColumnMap& map) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (trim(text).empty()) raise(ErrorCategory::kBadData, "{}: the file is empty", origin);
  if (extension != ".json" && extension != ".jsonl" && extension != ".csv") {
    raise(ErrorCategory::kUnsupported, "{}: rows come from .json, .jsonl or .csv files", origin);
  }
  if (extension == ".csv") {
    if (const auto bad = find_invalid_utf8(text)) raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  }
  Dataset dataset{.origin = origin};
  std::int64_t index = 0;
  for (const Value& row : values_of(text, extension, origin)) {
    ++index;
    const std::int64_t number = row.mark().line > 0 && extension == ".jsonl" ? row.mark().line : index;
    if (!row.is_object()) raise(ErrorCategory::kBadData, "{}: row {}: expected an object, got {}", origin, number, kind_name(row.kind()));
    const RowFormat format = detect(row, number, origin, map);
    if (dataset.examples.empty()) dataset.format = format;
    if (format != dataset.format) {
      raise(ErrorCategory::kBadData, "{}: row {} is of format {}, the rows before it of {}", origin, number,
            format_name(format), format_name(dataset.format));
    }
    dataset.examples.push_back(RowReader(row, number, origin, map).read(format));
  }
  if (dataset.examples.empty()) raise(ErrorCategory::kBadData, "{}: there are no rows", origin);
  return dataset;
}

Dataset read_dataset(const fs::path& path, const ColumnMap& map) {
  return parse_dataset(read_file(path), path.extension().string(), path.string(), map);
}

Dataset open_dataset(const std::string& name_or_path, const fs::path& dataset_dir) {
  if (fs::exists(name_or_path)) return read_dataset(name_or_path);
  const fs::path info_path = dataset_dir / "dataset_info.json";
  if (dataset_dir.empty() || !fs::exists(info_path)) {
    raise(ErrorCategory::kNotFound, "data set '{}' does not exist (and no dataset_info.json was given to look it up)", name_or_path);
  }
  const Value info = parse_json(read_file(info_path), info_path.string());
  const Value* entry = info.find(name_or_path);
  if (entry == nullptr) {
    std::vector<std::string> names;
    for (const auto& [name, value] : info.as_object()) names.push_back(name);
    raise(ErrorCategory::kNotFound, "{}: no data set '{}'{}", info_path.string(), name_or_path, did_you_mean(name_or_path, names));
  }
  ColumnMap map;
  if (const Value* ranking = entry->find("ranking"); ranking != nullptr && ranking->is_bool() && ranking->as_bool()) {
    raise(ErrorCategory::kUnsupported, "{}: data set '{}' is for ranking", info_path.string(), name_or_path);
  }
  if (const Value* formatting = entry->find("formatting")) map.formatting = formatting->as_string();
  if (const Value* columns = entry->find("columns")) map.columns = *columns;
  if (const Value* tags = entry->find("tags")) map.tags = *tags;
  if (map.formatting.empty() && map.columns.is_object()) map.formatting = "alpaca";
  return read_dataset(dataset_dir / entry->at("file_name").as_string(), map);
}

}  // namespace instruct::data
