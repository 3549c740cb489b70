#include "instructions/extraction.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

template <typename... Args>
[[noreturn]] void fail(const Instruction& instruction, fmt::format_string<Args...> format, Args&&... args) {
  raise(ErrorCategory::kBadData, "verb '{}': output: {}", instruction.verb,
        fmt::format(format, std::forward<Args>(args)...));
}

bool is_placed(const Value& part) {
  const Value* text = part.find("text");
  return text != nullptr && text->is_string() && part.find("start") != nullptr;
}

Value text_alone(const Value& part) {
  return is_placed(part) ? part.at("text") : part;
}

bool is_character_start(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
}

std::int64_t characters_before(std::string_view text, std::size_t byte) {
  return std::count_if(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(byte), is_character_start);
}

// Where the character of that number begins; the end of the text for one behind it.
std::size_t byte_of_character(std::string_view text, std::int64_t number) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_character_start(text[i]) && number-- == 0) return i;
  }
  return text.size();
}

Mention mention_of(const Instruction& instruction, const Value& part, std::size_t field, std::string_view text) {
  const Value given = text_alone(part);
  if (!given.is_string()) fail(instruction, "expected text, or text and start, got {}", kind_name(part.kind()));
  Mention mention{.field = field, .text = given.as_string(), .placed = is_placed(part)};
  if (trim(mention.text).empty()) fail(instruction, "an empty text is no part of '{}'", instruction.output.from);
  if (mention.placed) {
    const std::int64_t start = part.at("start").as_integer();
    const std::size_t byte = start < 0 ? text.size() : byte_of_character(text, start);
    if (!text.substr(byte).starts_with(mention.text))
      fail(instruction, "'{}' is not at character {} of '{}'", mention.text, start, instruction.output.from);
    mention.places.push_back({byte, byte + mention.text.size()});
    return mention;
  }
  for (std::size_t at = text.find(mention.text); at != std::string_view::npos; at = text.find(mention.text, at + 1))
    mention.places.push_back({at, at + mention.text.size()});
  if (mention.places.empty()) fail(instruction, "'{}' is not a part of '{}'", mention.text, instruction.output.from);
  return mention;
}

}  // namespace

std::vector<ExtractedField> extracted_fields(const Instruction& instruction) {
  const OutputSpec& output = instruction.output;
  if (output.from.empty()) return {};
  if (output.type == OutputType::kList) return {{instruction.verb, true, output.max_items}};
  if (output.type != OutputType::kJson || output.form->root().kind != SchemaKind::kObject ||
      output.form->root().additional)
    return {};
  std::vector<ExtractedField> fields;
  const std::vector<SchemaNode>& nodes = output.form->nodes();
  for (const SchemaNode::Property& property : output.form->root().properties) {
    const SchemaNode& node = nodes[property.node];
    const bool list = node.kind == SchemaKind::kArray && nodes[node.items].kind == SchemaKind::kString;
    if (!list && node.kind != SchemaKind::kString) return {};
    fields.push_back({property.name, list, list ? node.max_items : 1});
  }
  return fields;
}

std::vector<std::string> extraction_tags(const Instruction& instruction) {
  std::vector<std::string> tags{"O"};
  for (const ExtractedField& field : extracted_fields(instruction)) {
    tags.push_back("B-" + field.name);
    tags.push_back("I-" + field.name);
  }
  return tags;
}

std::vector<Mention> mentions_of(const Instruction& instruction, const Value& output, std::string_view text) {
  if (instruction.output.type == OutputType::kSpan) return {mention_of(instruction, output, 0, text)};
  const Value parts = output.is_string() ? parse_json(output.as_string(), "output") : output;
  const std::vector<ExtractedField> fields = extracted_fields(instruction);
  std::vector<Mention> mentions;
  const auto add = [&](const Value& part, std::size_t field) {
    const bool known = part.is_string() && std::any_of(mentions.begin(), mentions.end(), [&](const Mention& other) {
                         return !other.placed && other.field == field && other.text == part.as_string();
                       });
    if (!known) mentions.push_back(mention_of(instruction, part, field, text));
  };
  for (std::size_t field = 0; field < fields.size(); ++field) {
    const Value* own = instruction.output.type == OutputType::kList ? &parts : parts.find(fields[field].name);
    if (own == nullptr) continue;
    if (fields[field].list) {
      for (const Value& part : own->as_array()) add(part, field);
    } else {
      add(*own, field);
    }
  }
  return mentions;
}

Value extracted_value(const Instruction& instruction, std::vector<FoundSpan> found, std::string_view text) {
  const auto text_of = [&](const FoundSpan& span) {
    return std::string(text.substr(span.bytes.begin, span.bytes.end - span.bytes.begin));
  };
  std::stable_sort(found.begin(), found.end(),
                   [](const FoundSpan& a, const FoundSpan& b) { return a.probability > b.probability; });
  Value result = Value::object();
  const std::vector<ExtractedField> fields = extracted_fields(instruction);
  for (std::size_t field = 0; field < fields.size(); ++field) {
    std::vector<FoundSpan> kept;
    for (const FoundSpan& span : found) {
      const bool known = std::any_of(kept.begin(), kept.end(),
                                     [&](const FoundSpan& other) { return text_of(other) == text_of(span); });
      if (span.field == field && !known && static_cast<std::int64_t>(kept.size()) < fields[field].most)
        kept.push_back(span);
    }
    std::sort(kept.begin(), kept.end(),
              [](const FoundSpan& a, const FoundSpan& b) { return a.bytes.begin < b.bytes.begin; });
    Value texts = Value::array();
    for (const FoundSpan& span : kept) texts.push(text_of(span));
    if (instruction.output.type == OutputType::kList) return texts;
    if (fields[field].list) {
      result.set(fields[field].name, texts);
    } else if (!kept.empty()) {
      result.set(fields[field].name, text_of(kept.front()));
    }
  }
  return result;
}

Value found_spans_value(const Instruction& instruction, const std::vector<FoundSpan>& found, std::string_view text) {
  const std::vector<ExtractedField> fields = extracted_fields(instruction);
  Value list = Value::array();
  for (const FoundSpan& span : found) {
    Value entry = Value::object({{"text", text.substr(span.bytes.begin, span.bytes.end - span.bytes.begin)},
                                 {"start", characters_before(text, span.bytes.begin)},
                                 {"end", characters_before(text, span.bytes.end)},
                                 {"probability", span.probability}});
    if (!fields.empty()) entry.set("field", fields[span.field].name);
    list.push(std::move(entry));
  }
  return list;
}

Value without_places(const Instruction& instruction, const Value& output) {
  if (instruction.output.type == OutputType::kSpan) return text_alone(output);
  const std::vector<ExtractedField> fields = extracted_fields(instruction);
  if (fields.empty()) return output;
  const auto texts_alone = [](const Value& parts) {
    if (!parts.is_array()) return text_alone(parts);
    Value texts = Value::array();
    for (const Value& part : parts.as_array()) texts.push(text_alone(part));
    return texts;
  };
  if (instruction.output.type == OutputType::kList || !output.is_object()) return texts_alone(output);
  Value result = Value::object();
  for (const auto& [name, parts] : output.as_object()) result.set(name, texts_alone(parts));
  return result;
}

}  // namespace instruct::instructions
