#include "data/convert.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/sampler.h"

namespace instruct::data {
namespace {

using instructions::Message;

// One dialogue to one format.
class Converter {
 public:
  Converter(std::string where, const std::vector<Message>& messages, const Example& example)
      : where_(std::move(where)), messages_(messages), example_(example) {}

  Value to(RowFormat target) const {
    Value row = dialogue(target);
    if (example_.context.is_object() && target != RowFormat::kText) {
      for (const auto& [key, value] : example_.context.as_object()) row.set(key, value);
    }
    return row;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const { raise(ErrorCategory::kUnsupported, "{}: {}", where_, why); }

  Value dialogue(RowFormat target) const {
    switch (target) {
      case RowFormat::kMessages:
        return Value::object({{"messages", list(0, messages_.size())}});
      case RowFormat::kShareGpt:
        return sharegpt();
      case RowFormat::kAlpaca:
        return alpaca();
      case RowFormat::kPromptCompletion:
        return prompt_completion();
      case RowFormat::kText:
        if (example_.format != RowFormat::kText) fail("a dialogue becomes text through a chat template only");
        return Value::object({{"text", messages_.front().content}});
      case RowFormat::kInstruction:
        break;
    }
    fail(
        "which verb a row calls is not known: give the file a dataset_info.json entry with 'verb' and 'columns' "
        "instead");
  }

  Value list(std::size_t begin, std::size_t end) const {
    Value messages = Value::array();
    for (std::size_t i = begin; i < end; ++i) {
      Value message = Value::object({{"role", messages_[i].role}, {"content", messages_[i].content}});
      if (messages_[i].extra.is_object()) {
        for (const auto& [key, value] : messages_[i].extra.as_object()) message.set(key, value);
      }
      messages.push(std::move(message));
    }
    return messages;
  }

  void refuse_extras() const {
    for (const Message& message : messages_) {
      if (message.extra.size() > 0)
        fail(fmt::format("the format has no place for a message's '{}'", message.extra.as_object().front().first));
    }
  }

  Value sharegpt() const {
    refuse_extras();
    Value turns = Value::array();
    for (const Message& message : messages_) {
      const std::string& role = message.role;
      const char* from = role == "user"        ? "human"
                         : role == "assistant" ? "gpt"
                         : role == "tool"      ? "observation"
                                               : "system";
      turns.push(Value::object({{"from", from}, {"value", message.content}}));
    }
    return Value::object({{"conversations", std::move(turns)}});
  }

  // instruction, input (empty), output, and system and history when there are any.
  Value alpaca() const {
    refuse_extras();
    std::size_t first = messages_.front().role == "system" ? 1 : 0;
    const std::size_t turns = messages_.size() - first;
    for (std::size_t i = 0; i < turns; ++i) {
      if (messages_[first + i].role != (i % 2 == 0 ? "user" : "assistant"))
        fail("alpaca rows need questions and answers in turn");
    }
    if (turns < 2 || turns % 2 != 0) fail("alpaca rows end with an answer");
    const std::size_t last = messages_.size() - 2;
    Value row = Value::object(
        {{"instruction", messages_[last].content}, {"input", ""}, {"output", messages_[last + 1].content}});
    if (first == 1) row.set("system", messages_.front().content);
    Value history = Value::array();
    for (; first < last; first += 2)
      history.push(Value(Value::Array{messages_[first].content, messages_[first + 1].content}));
    if (history.size() > 0) row.set("history", std::move(history));
    return row;
  }

  Value prompt_completion() const {
    if (messages_.back().role != "assistant" || messages_.size() < 2)
      fail("prompt and completion need a question and, last, its answer");
    if (example_.plain) return Value::object({{"prompt", messages_[0].content}, {"completion", messages_[1].content}});
    return Value::object(
        {{"prompt", list(0, messages_.size() - 1)}, {"completion", list(messages_.size() - 1, messages_.size())}});
  }

  std::string where_;
  const std::vector<Message>& messages_;
  const Example& example_;
};

Value instruction_row(const Example& example) {
  Value row = Value::object({{"verb", example.verb}});
  for (const auto& [key, value] : example.variables.as_object()) row.set(key, value);
  if (!example.output.is_null()) row.set("output", example.output);
  return row;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos && trim(text) == text && !text.empty()) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_text(std::span<const Value> rows) {
  std::string text;
  const Value::Object& first = rows.front().as_object();
  for (std::size_t i = 0; i < first.size(); ++i) text += (i > 0 ? "," : "") + csv_field(first[i].first);
  text += "\r\n";
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].size() != first.size())
      raise(ErrorCategory::kUnsupported, "row {}: CSV needs the same fields in every row", r + 1);
    for (std::size_t i = 0; i < first.size(); ++i) {
      const Value* value = rows[r].find(first[i].first);
      if (value == nullptr)
        raise(ErrorCategory::kUnsupported, "row {}: CSV needs the same fields in every row; '{}' is missing", r + 1,
              first[i].first);
      if (value->is_array() || value->is_object()) {
        raise(ErrorCategory::kUnsupported, "row {}: field '{}' is {}: CSV holds texts; write .jsonl instead", r + 1,
              first[i].first, kind_name(value->kind()));
      }
      text += (i > 0 ? "," : "") + csv_field(value->is_string() ? value->as_string()
                                             : value->is_null() ? ""
                                                                : dump_json(*value));
    }
    text += "\r\n";
  }
  return text;
}

}  // namespace

RowFormat format_from_option(std::string_view name) {
  const std::vector<std::string> known{"instruction", "alpaca", "sharegpt", "messages", "prompt_completion", "text"};
  const auto found = std::find(known.begin(), known.end(), name);
  if (found == known.end())
    raise(ErrorCategory::kInvalidArgument, "unknown row format '{}'{}", name, did_you_mean(name, known));
  return static_cast<RowFormat>(found - known.begin());
}

std::vector<Value> convert_rows(const Dataset& dataset, RowFormat target, const instructions::InstructionSet* set) {
  std::vector<Value> rows;
  for (const Example& example : dataset.examples) {
    if (target == RowFormat::kInstruction && example.format == RowFormat::kInstruction) {
      rows.push_back(instruction_row(example));
      continue;
    }
    const std::vector<Message> messages = row_messages(dataset, example, set, {});
    rows.push_back(Converter(dataset.where(example), messages, example).to(target));
  }
  return rows;
}

void write_rows(const std::filesystem::path& path, std::span<const Value> rows) {
  if (rows.empty()) raise(ErrorCategory::kInvalidArgument, "'{}': there are no rows to write", path.string());
  const std::string extension = to_lower_ascii(path.extension().string());
  std::string text;
  if (extension == ".csv") {
    text = csv_text(rows);
  } else if (extension == ".json") {
    text = dump_json(Value(Value::Array(rows.begin(), rows.end())), {.indent = 1}) + "\n";
  } else if (extension == ".jsonl") {
    for (const Value& row : rows) text += dump_json(row) + "\n";
  } else {
    raise(ErrorCategory::kUnsupported, "'{}': rows are written as .jsonl, .json or .csv", path.string());
  }
  write_file_atomic(path, text);
}

std::vector<Part> parts_from_option(std::string_view text) {
  std::vector<Part> parts;
  double shares = 0;
  for (const std::string_view item : split(text, ',')) {
    const std::size_t equals = item.find('=');
    const std::string_view number =
        equals == std::string_view::npos ? std::string_view() : trim(item.substr(equals + 1));
    Part part{.name = std::string(trim(item.substr(0, equals)))};
    const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), part.size);
    const bool whole = part.size < 1 || part.size == std::floor(part.size);
    if (part.name.empty() || status != std::errc() || end != number.data() + number.size() || !(part.size > 0) ||
        !whole || part.size > 1e15) {
      raise(ErrorCategory::kInvalidArgument,
            "part '{}': expected NAME=SHARE below 1 or NAME=COUNT, as in train=0.8,test=200", item);
    }
    for (const Part& other : parts) {
      if (other.name == part.name) raise(ErrorCategory::kInvalidArgument, "part '{}' appears twice", part.name);
    }
    if (part.size < 1) shares += part.size;
    parts.push_back(std::move(part));
  }
  constexpr double kRounding = 1e-9;
  if (shares > 1 + kRounding)
    raise(ErrorCategory::kInvalidArgument, "parts '{}': the shares add up to {:.3g}", text, shares);
  return parts;
}

std::vector<std::vector<std::int64_t>> split_rows(std::span<const std::string> keys, std::span<const Part> parts,
                                                  std::uint64_t seed) {
  std::unordered_map<std::string_view, std::int64_t> number;
  std::vector<std::vector<std::int64_t>> members;
  for (std::size_t row = 0; row < keys.size(); ++row) {
    const auto [found, is_new] = number.try_emplace(keys[row], static_cast<std::int64_t>(members.size()));
    if (is_new) members.emplace_back();
    members[static_cast<std::size_t>(found->second)].push_back(static_cast<std::int64_t>(row));
  }
  const std::vector<std::int64_t> order = epoch_order(static_cast<std::int64_t>(members.size()), true, seed, 0);
  std::vector<std::vector<std::int64_t>> result(parts.size());
  std::size_t next = 0;
  const auto total = static_cast<double>(keys.size());
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto wanted =
        static_cast<std::size_t>(parts[p].size < 1 ? std::llround(parts[p].size * total) : std::llround(parts[p].size));
    while (result[p].size() < std::max<std::size_t>(1, wanted) && next < order.size()) {
      const std::vector<std::int64_t>& rows = members[static_cast<std::size_t>(order[next++])];
      result[p].insert(result[p].end(), rows.begin(), rows.end());
    }
    const bool last_share =
        p + 1 == parts.size() && parts[p].size < 1 && !result[p].empty();  // groups made the others larger
    if (result[p].size() < wanted && !last_share) {
      raise(ErrorCategory::kInvalidArgument, "part '{}' wants {} of {} rows, {} are left", parts[p].name, wanted,
            keys.size(), result[p].size());
    }
    std::sort(result[p].begin(), result[p].end());
  }
  return result;
}

}  // namespace instruct::data
