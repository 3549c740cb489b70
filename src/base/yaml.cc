#include "base/yaml.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace instruct {
namespace {

constexpr int kMaxDepth = 200;
constexpr std::int64_t kMaxNodes = 1'000'000;

Mark mark_of(const YAML::Node& node) {
  return {node.Mark().line + 1, node.Mark().column + 1};
}

std::optional<Value> as_number(const std::string& text) {
  std::string_view digits = text;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || digits.starts_with('+')) return std::nullopt;
  std::int64_t integer = 0;
  const char* end = digits.data() + digits.size();
  if (const auto [stop, status] = std::from_chars(digits.data(), end, integer); status == std::errc() && stop == end) {
    return Value(integer);
  }
  const bool plausible = digits.find_first_not_of("0123456789+-.eE") == std::string_view::npos &&
                         digits.find_first_of("0123456789") != std::string_view::npos;
  double number = 0;
  if (const auto [stop, status] = std::from_chars(digits.data(), end, number);
      plausible && status == std::errc() && stop == end) {
    return Value(number);
  }
  return std::nullopt;
}

// Core schema: only plain (unquoted) scalars get a type.
Value scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return Value(text);  // quoted, or said to be text
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return Value();
  if (text == "true" || text == "True" || text == "TRUE") return Value(true);
  if (text == "false" || text == "False" || text == "FALSE") return Value(false);
  if (auto number = as_number(text)) return *number;
  return Value(text);
}

class Converter {
 public:
  explicit Converter(std::string_view origin) : origin_(origin) {}

  Value convert(const YAML::Node& node, int depth) {
    if (depth > kMaxDepth) fail(node, fmt::format("nested deeper than {}", kMaxDepth));
    if (++nodes_ > kMaxNodes) fail(node, "too many nodes (aliases that expand without end?)");
    Value value;
    if (node.IsScalar()) {
      value = scalar(node);
    } else if (node.IsSequence()) {
      value = Value::array();
      for (const YAML::Node& item : node) value.push(convert(item, depth + 1));
    } else if (node.IsMap()) {
      value = map(node, depth);
    }
    value.set_mark(mark_of(node));
    return value;
  }

 private:
  Value map(const YAML::Node& node, int depth) {
    Value::Object object;
    std::unordered_set<std::string> seen;
    for (const auto& member : node) {
      if (!member.first.IsScalar()) fail(member.first, "a key must be plain text");
      const std::string key = member.first.Scalar();
      if (!seen.insert(key).second) fail(member.first, fmt::format("key '{}' appears twice", key));
      object.emplace_back(key, convert(member.second, depth + 1));
      // An empty value has no place of its own: it gets its key's.
      if (object.back().second.mark().line <= 0) object.back().second.set_mark(mark_of(member.first));
    }
    return Value(std::move(object));
  }
  [[noreturn]] void fail(const YAML::Node& node, const std::string& what) {
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: {}", origin_, mark_of(node).line, mark_of(node).column,
          what);
  }

  std::string_view origin_;
  std::int64_t nodes_ = 0;
};

}  // namespace

Value parse_yaml(std::string_view text, std::string_view origin) {
  if (const auto bad = find_invalid_utf8(text)) {
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.empty()) return Value();
    if (documents.size() > 1) {
      raise(ErrorCategory::kBadData, "{}: line {}: a second document, expected one", origin,
            mark_of(documents[1]).line);
    }
    return Converter(origin).convert(documents.front(), 0);
  } catch (const YAML::Exception& error) {
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: malformed YAML: {}", origin, error.mark.line + 1,
          error.mark.column + 1, error.msg);
  }
}

}  // namespace instruct
