#include "templates/data.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "templates/strings.h"

namespace instruct::templates {

Text::Text(std::string chars, int source) : chars_(std::move(chars)) {
  if (!chars_.empty()) runs_.push_back({chars_.size(), source});
}

void Text::append(std::string_view chars, int source) {
  if (chars.empty()) return;
  chars_ += chars;
  if (!runs_.empty() && runs_.back().source == source) {
    runs_.back().length += chars.size();
  } else {
    runs_.push_back({chars.size(), source});
  }
}

void Text::append(const Text& other) {
  std::size_t position = 0;
  for (const Run& run : other.runs_) {
    append(std::string_view(other.chars_).substr(position, run.length), run.source);
    position += run.length;
  }
}

Text Text::marked_safe() const {
  Text result = *this;
  result.safe_ = true;
  return result;
}

Text Text::slice(std::size_t begin, std::size_t end) const {
  Text result;
  result.safe_ = safe_;
  std::size_t position = 0;
  for (const Run& run : runs_) {
    const std::size_t from = std::max(begin, position);
    const std::size_t to = std::min(end, position + run.length);
    if (from < to) result.append(std::string_view(chars_).substr(from, to - from), run.source);
    position += run.length;
  }
  return result;
}

int Text::single_source() const {
  return runs_.size() == 1 ? runs_.front().source : 0;
}

Text Text::with_chars(std::string chars) const {
  if (chars.size() != chars_.size()) return Text(std::move(chars), single_source());
  Text result = *this;
  result.chars_ = std::move(chars);
  return result;
}

namespace {

constexpr int kMaxNesting = 250;

}  // namespace

// Takes `depth` of something within into account.
void Data::contain(int depth) {
  depth_ = std::max(depth_, depth + 1);
  if (depth_ > kMaxNesting) raise(ErrorCategory::kBadData, "a value nests deeper than {}", kMaxNesting);
}

Data::Data(List value) {
  for (const Data& item : value) contain(item.depth());
  value_ = std::make_shared<List>(std::move(value));
}
Data::Data(Dict value) {
  for (const auto& [key, member] : value) contain(std::max(key.depth(), member.depth()));
  value_ = std::make_shared<Dict>(std::move(value));
}
Data::Data(std::shared_ptr<Callable> value) {
  contain(value->depth);
  value_ = std::move(value);
}
Data::Data(std::shared_ptr<Namespace> value) {
  contain(value->depth);
  value_ = std::move(value);
}
Data Data::tuple(List items) {
  Data result(std::move(items));
  result.list_kind_ = ListKind::kTuple;
  return result;
}
Data Data::generator(List items) {
  Data result(std::move(items));
  result.list_kind_ = ListKind::kGenerator;
  return result;
}

Data Data::from_value(const Value& value, int source) {
  switch (value.kind()) {
    case Value::Kind::kNull:
      return {};
    case Value::Kind::kBool:
      return value.as_bool();
    case Value::Kind::kInteger:
      return value.as_integer();
    case Value::Kind::kFloat:
      return value.as_double();
    case Value::Kind::kString:
      return Text(value.as_string(), source);
    case Value::Kind::kArray: {
      List list;
      for (const Value& item : value.as_array()) list.push_back(from_value(item, source));
      return list;
    }
    case Value::Kind::kObject: {
      Dict dict;
      for (const auto& [key, item] : value.as_object()) dict.emplace_back(Text(key, source), from_value(item, source));
      return dict;
    }
  }
  return {};
}

Data& Data::set(std::string key, Data value) {
  contain(value.depth());
  set_member(*std::get<std::shared_ptr<Dict>>(value_), Data(std::move(key)), std::move(value));
  return *this;
}

Data& Data::push(Data value) {
  contain(value.depth());
  std::get<std::shared_ptr<List>>(value_)->push_back(std::move(value));
  return *this;
}

void set_member(Dict& dict, Data key, Data value) {
  for (auto& [name, member] : dict) {
    if (equal(name, key)) {
      member = std::move(value);
      return;
    }
  }
  dict.emplace_back(std::move(key), std::move(value));
}

void set_member(Namespace& space, const std::string& name, Data value) {
  for (auto& [existing, member] : space.members) {
    if (existing == name) {
      member = std::move(value);
      return;
    }
  }
  space.members.emplace_back(name, std::move(value));
}

const List* Data::list() const {
  const auto* list = get<std::shared_ptr<List>>();
  return list == nullptr ? nullptr : list->get();
}
const Dict* Data::dict() const {
  const auto* dict = get<std::shared_ptr<Dict>>();
  return dict == nullptr ? nullptr : dict->get();
}

const Data* Data::find(std::string_view key) const {
  if (const auto* space = get<std::shared_ptr<Namespace>>()) {
    for (const auto& [name, member] : (*space)->members) {
      if (name == key) return &member;
    }
    return nullptr;
  }
  if (const Dict* members = dict()) {
    for (const auto& [name, member] : *members) {
      if (name.get<Text>() != nullptr && name.get<Text>()->chars() == key) return &member;
    }
  }
  return nullptr;
}

bool truth(const Data& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto* flag = value.get<bool>()) return *flag;
  if (const auto* integer = value.get<std::int64_t>()) return *integer != 0;
  if (const auto* number = value.get<double>()) return *number != 0;
  if (const auto* text = value.get<Text>()) return text->size() > 0;
  if (const List* list = value.list()) return value.is_generator() || !list->empty();
  if (const Dict* dict = value.dict()) return !dict->empty();
  return true;
}

double as_double(const Data& number) {
  if (const auto* flag = number.get<bool>()) return *flag ? 1 : 0;
  if (const auto* integer = number.get<std::int64_t>()) return static_cast<double>(*integer);
  return *number.get<double>();
}

bool equal(const Data& a, const Data& b) {
  if (a.is_number() && b.is_number()) {
    const auto* x = a.get<std::int64_t>();
    const auto* y = b.get<std::int64_t>();
    return x != nullptr && y != nullptr ? *x == *y : as_double(a) == as_double(b);
  }
  if (a.variant().index() != b.variant().index()) return false;
  if (const auto* text = a.get<Text>()) return text->chars() == b.get<Text>()->chars();
  if (a.is_tuple() != b.is_tuple()) return false;
  if (const List* x = a.list()) return std::equal(x->begin(), x->end(), b.list()->begin(), b.list()->end(), equal);
  if (const Dict* x = a.dict()) {
    return x->size() == b.dict()->size() && std::all_of(x->begin(), x->end(), [&](const auto& member) {
             return std::any_of(b.dict()->begin(), b.dict()->end(), [&](const auto& other) {
               return equal(member.first, other.first) && equal(member.second, other.second);
             });
           });
  }
  if (const auto* x = a.get<std::shared_ptr<Callable>>()) return *x == *b.get<std::shared_ptr<Callable>>();
  if (const auto* x = a.get<std::shared_ptr<Namespace>>()) return *x == *b.get<std::shared_ptr<Namespace>>();
  return true;  // undefined or none
}

namespace {

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Python writes exponents below 1e-4 and from 1e16, always with a sign and two digits.
  char buffer[64];
  const double size = std::abs(value);
  const bool scientific = value != 0 && (size < 1e-4 || size >= 1e16);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto [end, status] = std::to_chars(buffer, buffer + sizeof(buffer), value, format);
  std::string text(buffer, end);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append_repr(Text& out, const Data& value);

// How Python's repr writes a character; nothing when it stands for itself.
std::string escape_of(const std::string& character, char quote) {
  const std::u32string codes = decode_utf8(character);
  const char32_t code = codes.empty() ? U'\0' : codes.front();
  if (code == static_cast<char32_t>(quote) || code == U'\\') return {'\\', static_cast<char>(code)};
  if (code == U'\n') return "\\n";
  if (code == U'\t') return "\\t";
  if (code == U'\r') return "\\r";
  if (code == U' ' || is_printable(code)) return {};
  const auto number = static_cast<std::uint32_t>(code);
  return code < 0x100     ? fmt::format("\\x{:02x}", number)
         : code < 0x10000 ? fmt::format("\\u{:04x}", number)
                          : fmt::format("\\U{:08x}", number);
}

void append_quoted(Text& out, const Text& text) {
  const bool has_single = text.chars().find('\'') != std::string::npos;
  const char quote = has_single && text.chars().find('"') == std::string::npos ? '"' : '\'';
  out.append(std::string(1, quote), 0);
  for (const auto& [begin, end] : characters(text)) {
    const Text character = text.slice(begin, end);
    const std::string escaped = escape_of(character.chars(), quote);
    if (escaped.empty()) {
      out.append(character);
    } else {
      out.append(escaped, character.single_source());
    }
  }
  out.append(std::string(1, quote), 0);
}

void append_items(Text& out, const List& list) {
  bool first = true;
  for (const Data& item : list) {
    if (!first) out.append(", ", 0);
    first = false;
    append_repr(out, item);
  }
}

void append_repr(Text& out, const Data& value) {
  if (const auto* text = value.get<Text>()) {
    append_quoted(out, *text);
  } else if (const List* list = value.list()) {
    out.append(value.is_tuple() ? "(" : "[", 0);
    append_items(out, *list);
    out.append(value.is_tuple() ? (list->size() == 1 ? ",)" : ")") : "]", 0);
  } else if (const Dict* dict = value.dict()) {
    out.append("{", 0);
    bool first = true;
    for (const auto& [key, member] : *dict) {
      if (!first) out.append(", ", 0);
      first = false;
      append_repr(out, key);
      out.append(": ", 0);
      append_repr(out, member);
    }
    out.append("}", 0);
  } else {
    out.append(to_text(value));
  }
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonForm& form) : form_(form) {}
  Text out;

  void write(const Data& value, int depth) {
    if (const auto* text = value.get<Text>()) {
      quoted(*text);
    } else if (const List* list = value.list(); list != nullptr && !value.is_generator()) {
      sequence('[', ']', list->size(), depth, [&](std::size_t i) { write((*list)[i], depth + 1); });
    } else if (const Dict* dict = value.dict()) {
      Dict members = *dict;
      if (form_.sort_keys) {
        std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
          return to_text(a.first).chars() < to_text(b.first).chars();
        });
      }
      sequence('{', '}', members.size(), depth, [&](std::size_t i) {
        const Data& name = members[i].first;
        if (name.get<Text>() != nullptr) {
          quoted(*name.get<Text>());
        } else {  // numbers, flags and none as JSON would write them
          out.append("\"", 0);
          write(name, depth);
          out.append("\"", 0);
        }
        out.append(form_.after_key, 0);
        write(members[i].second, depth + 1);
      });
    } else if (const auto* flag = value.get<bool>()) {
      out.append(*flag ? "true" : "false", 0);
    } else if (value.is_none()) {
      out.append("null", 0);
    } else if (value.is_number()) {
      out.append(to_text(value));
    } else {
      raise(ErrorCategory::kBadData, "tojson: a value of type {} has no JSON form", type_of(value));
    }
  }

 private:
  // A text in quotes; what needs no escape keeps its origin.
  void quoted(const Text& text) {
    std::string json = dump_json(Value(text.chars()), {.ascii_only = form_.ascii_only});
    json = json.substr(1, json.size() - 2);
    out.append("\"", 0);
    out.append(text.with_chars(std::move(json)));
    out.append("\"", 0);
  }
  template <typename Body>
  void sequence(char open, char close, std::size_t count, int depth, const Body& body) {
    out.append(std::string(1, open), 0);
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out.append(form_.between_items, 0);
      newline(depth + 1);
      body(i);
    }
    if (count > 0) newline(depth);
    out.append(std::string(1, close), 0);
  }
  void newline(int depth) {
    if (form_.indent >= 0) out.append("\n" + std::string(static_cast<std::size_t>(form_.indent * depth), ' '), 0);
  }
  const JsonForm& form_;
};

}  // namespace

Text to_text(const Data& value) {
  if (const auto* text = value.get<Text>()) return *text;
  if (value.is_undefined()) return {};
  if (value.is_none()) return Text("None");
  if (const auto* flag = value.get<bool>()) return Text(*flag ? "True" : "False");
  if (const auto* integer = value.get<std::int64_t>()) return Text(fmt::format("{}", *integer));
  if (const auto* number = value.get<double>()) return Text(number_text(*number));
  if (value.list() != nullptr || value.dict() != nullptr) return to_repr(value);
  return Text("<" + type_of(value) + ">");
}

Text to_repr(const Data& value) {
  Text out;
  append_repr(out, value);
  return out;
}

std::string type_of(const Data& value) {
  constexpr const char* kNames[] = {"undefined", "none", "bool", "int",      "float",
                                    "str",       "list", "dict", "function", "namespace"};
  if (value.is_tuple()) return "tuple";
  if (value.is_generator()) return "generator";
  return kNames[value.variant().index()];
}

Text to_json(const Data& value, const JsonForm& form) {
  JsonWriter writer(form);
  writer.write(value, 0);
  return std::move(writer.out);
}

std::optional<std::int64_t> as_integer(const Data& value) {
  if (const auto* integer = value.get<std::int64_t>()) return *integer;
  if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
  return std::nullopt;
}

void fail(const std::string& message) {
  raise(ErrorCategory::kBadData, "{}", message);
}

}  // namespace instruct::templates
