#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace instruct {
namespace {

constexpr std::size_t kMaxDepth = 200;

Mark mark_at(std::string_view text, std::size_t offset) {
  Mark mark{1, 1};
  for (const char c : text.substr(0, std::min(offset, text.size()))) {
    if (c == '\n') {
      ++mark.line;
      mark.column = 1;
    } else {
      ++mark.column;
    }
  }
  return mark;
}

// Hands the text to nlohmann's parser and counts what it took: its events do not say where they are.
class Reader {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Reader(std::string_view text, std::size_t begin, std::size_t* read) : text_(text), at_(begin), read_(read) {}
  reference operator*() const { return text_[at_]; }
  Reader& operator++() {
    *read_ = ++at_;
    return *this;
  }
  Reader operator++(int) {
    Reader before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Reader& a, const Reader& b) { return a.at_ == b.at_; }

 private:
  std::string_view text_;
  std::size_t at_;
  std::size_t* read_;
};

// Builds the value while nlohmann's parser reads. Containers under construction sit on a stack of values, each moved
// into its parent when it ends.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view text, std::string_view origin, const std::size_t& read)
      : text_(text), origin_(origin), read_(read) {}
  Value take() { return std::move(root_); }

  bool null() override { return put(Value()); }
  bool boolean(bool value) override { return put(Value(value)); }
  bool number_integer(std::int64_t value) override { return put(Value(value)); }
  bool number_unsigned(std::uint64_t value) override {
    if (value > static_cast<std::uint64_t>(INT64_MAX)) return put(Value(static_cast<double>(value)));
    return put(Value(static_cast<std::int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override { return put(Value(value)); }
  bool string(std::string& value) override { return put(Value(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Value::object()); }
  bool start_array(std::size_t) override { return open(Value::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    Level& level = levels_.back();
    if (!level.names.insert(name).second) fail(fmt::format("key '{}' appears twice in one object", name), read_);
    level.key = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 3: reason", or without the place.
    std::string_view reason = error.what();
    reason.remove_prefix(std::min(reason.size(), reason.find("] ") + 2));
    if (reason.starts_with("parse error")) reason.remove_prefix(std::min(reason.size(), reason.find(": ") + 2));
    fail(fmt::format("malformed JSON: {}", reason), position);  // counts the end of the text too
  }

 private:
  struct Level {
    Value value;
    std::string key;
    std::unordered_set<std::string> names;
  };

  bool put(Value value) {
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (levels_.back().value.is_array()) {
      levels_.back().value.as_array().push_back(std::move(value));
    } else {
      levels_.back().value.as_object().emplace_back(std::move(levels_.back().key), std::move(value));
    }
    return true;
  }
  bool open(Value container) {
    if (levels_.size() >= kMaxDepth) fail(fmt::format("JSON nested deeper than {}", kMaxDepth), read_);
    levels_.push_back({std::move(container), {}, {}});
    return true;
  }
  bool close() {
    Value value = std::move(levels_.back().value);
    levels_.pop_back();
    return put(std::move(value));
  }

  // The place is the last of the `bytes` read when the mistake was seen.
  [[noreturn]] void fail(const std::string& what, std::size_t bytes) {
    const Mark mark = mark_at(text_, bytes > 0 ? bytes - 1 : 0);
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: {}", origin_, mark.line, mark.column, what);
  }

  std::string_view text_;
  std::string_view origin_;
  const std::size_t& read_;  // bytes the parser has taken so far
  std::vector<Level> levels_;
  Value root_;
};

void write_string(std::string& out, std::string_view raw, bool ascii_only) {
  const std::string text = find_invalid_utf8(raw) ? repair_utf8(raw) : std::string(raw);
  out += '"';
  for (const char32_t code : decode_utf8(text)) {
    switch (code) {
      case U'"':
        out += "\\\"";
        continue;
      case U'\\':
        out += "\\\\";
        continue;
      case U'\n':
        out += "\\n";
        continue;
      case U'\r':
        out += "\\r";
        continue;
      case U'\t':
        out += "\\t";
        continue;
      case U'\b':
        out += "\\b";
        continue;
      case U'\f':
        out += "\\f";
        continue;
      default:
        break;
    }
    if (code < 0x20 || (ascii_only && code > 0x7E && code < 0x10000)) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(code));
    } else if (ascii_only && code >= 0x10000) {
      const char32_t rest = code - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", static_cast<unsigned>(0xD800 + (rest >> 10)),
                         static_cast<unsigned>(0xDC00 + (rest & 0x3FF)));
    } else {
      append_utf8(out, code);
    }
  }
  out += '"';
}

void write_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char buffer[40];
  const auto [end, status] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".en") == std::string_view::npos) out += ".0";
}

class Writer {
 public:
  explicit Writer(JsonStyle style) : style_(style) {}
  std::string out;

  void write(const Value& value, int depth) {
    switch (value.kind()) {
      case Value::Kind::kNull:
        out += "null";
        break;
      case Value::Kind::kBool:
        out += value.as_bool() ? "true" : "false";
        break;
      case Value::Kind::kInteger:
        out += fmt::format("{}", value.as_integer());
        break;
      case Value::Kind::kFloat:
        write_double(out, value.as_double());
        break;
      case Value::Kind::kString:
        write_string(out, value.as_string(), style_.ascii_only);
        break;
      case Value::Kind::kArray: {
        out += '[';
        bool first = true;
        for (const Value& item : value.as_array()) {
          separate(first, depth + 1);
          write(item, depth + 1);
        }
        close(first, depth, ']');
        break;
      }
      case Value::Kind::kObject: {
        out += '{';
        bool first = true;
        for (const auto& [key, item] : value.as_object()) {
          separate(first, depth + 1);
          write_string(out, key, style_.ascii_only);
          out += ": ";
          write(item, depth + 1);
        }
        close(first, depth, '}');
        break;
      }
    }
  }

 private:
  void newline(int depth) {
    out += '\n';
    out.append(static_cast<std::size_t>(style_.indent * depth), ' ');
  }
  void separate(bool& first, int depth) {
    if (!first) out += style_.indent < 0 ? ", " : ",";
    first = false;
    if (style_.indent >= 0) newline(depth);
  }
  void close(bool empty, int depth, char bracket) {
    if (!empty && style_.indent >= 0) newline(depth);
    out += bracket;
  }

  JsonStyle style_;
};

}  // namespace

Value parse_json(std::string_view text, std::string_view origin) {
  if (const auto bad = find_invalid_utf8(text)) {
    const Mark mark = mark_at(text, *bad);
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: invalid UTF-8 at byte {}", origin, mark.line, mark.column,
          *bad);
  }
  std::size_t read = 0;
  Builder builder(text, origin, read);
  nlohmann::json::sax_parse(Reader(text, 0, &read), Reader(text, text.size(), &read), &builder);
  return builder.take();
}

std::string dump_json(const Value& value, JsonStyle style) {
  Writer writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace instruct
