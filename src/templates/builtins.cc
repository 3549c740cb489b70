// Access to values, tests, and methods of texts, lists and objects.
#include "templates/builtins.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

[[noreturn]] void fail(const std::string& message) {
  raise(ErrorCategory::kBadData, "{}", message);
}

std::optional<std::int64_t> as_integer(const Data& value) {
  if (const auto* integer = value.get<std::int64_t>()) return *integer;
  if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
  return std::nullopt;
}

}  // namespace

List iterate(const Data& value) {
  if (const List* list = value.list()) return *list;
  List items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, member] : *dict) items.push_back(key);
  } else if (const auto* text = value.get<Text>()) {
    for (const auto& [begin, end] : characters(*text)) items.emplace_back(text->slice(begin, end));
  } else if (!value.is_undefined()) {
    fail("a value of type " + type_of(value) + " cannot be looped over");
  }
  return items;
}

Data get_attribute(const Data& value, const std::string& name) {
  if (value.is_undefined())
    fail(fmt::format("'{}' is undefined, so it has no '{}'", value.get<Undefined>()->name, name));
  if (const Data* member = value.find(name)) return *member;
  return Undefined{name};
}

Data get_item(const Data& value, const Data& key) {
  if (value.is_undefined())
    fail(fmt::format("'{}' is undefined, so it has no item {}", value.get<Undefined>()->name, to_repr(key).chars()));
  if (const auto* name = key.get<Text>()) return get_attribute(value, name->chars());
  const auto index = as_integer(key);
  if (const Dict* dict = value.dict()) {
    for (const auto& [k, member] : *dict) {
      if (equal(k, key)) return member;
    }
    return Undefined{to_repr(key).chars()};
  }
  if (index && (value.list() != nullptr || value.get<Text>() != nullptr)) {
    const List items = iterate(value);
    const auto size = static_cast<std::int64_t>(items.size());
    const std::int64_t place = *index < 0 ? *index + size : *index;
    if (place >= 0 && place < size) return items[static_cast<std::size_t>(place)];
  }
  return Undefined{to_repr(key).chars()};
}

bool contains(const Data& container, const Data& item) {
  if (const auto* text = container.get<Text>()) {
    const auto* part = item.get<Text>();
    if (part == nullptr) fail("'in' a text expects a text, got " + type_of(item));
    return text->chars().find(part->chars()) != std::string::npos;
  }
  if (container.list() == nullptr && container.dict() == nullptr && !container.is_undefined()) {
    fail("'in' expects a list, an object or a text, got " + type_of(container));
  }
  const List items = iterate(container);
  return std::any_of(items.begin(), items.end(), [&](const Data& other) { return equal(item, other); });
}

int compare(const Data& a, const Data& b) {
  if (a.is_number() && b.is_number()) {
    const double x = as_double(a);
    const double y = as_double(b);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const auto* x = a.get<Text>();
  const auto* y = b.get<Text>();
  if (x != nullptr && y != nullptr) return x->chars().compare(y->chars()) < 0 ? -1 : x->chars() == y->chars() ? 0 : 1;
  if (a.list() != nullptr && b.list() != nullptr) {
    for (std::size_t i = 0; i < std::min(a.list()->size(), b.list()->size()); ++i) {
      if (const int order = compare((*a.list())[i], (*b.list())[i]); order != 0) return order;
    }
    return a.list()->size() < b.list()->size() ? -1 : a.list()->size() > b.list()->size() ? 1 : 0;
  }
  fail(fmt::format("values of type {} and {} have no order", type_of(a), type_of(b)));
}

const std::vector<std::string>& test_names() {
  static const std::vector<std::string> names{
      "defined",     "undefined", "none",     "string",   "number", "integer", "float",    "boolean",
      "mapping",     "sequence",  "iterable", "callable", "true",   "false",   "odd",      "even",
      "divisibleby", "equalto",   "eq",       "ne",       "lt",     "le",      "gt",       "ge",
      "in",          "lower",     "upper",    "sameas",   "filter", "test",    "lessthan", "greaterthan"};
  return names;
}

std::optional<bool> call_test(const std::string& name, const Data& value, const Arguments& arguments) {
  const auto argument = [&]() -> const Data& {
    if (arguments.positional.empty()) fail("test '" + name + "' needs a value to compare with");
    return arguments.positional.front();
  };
  const auto integer = [&](const Data& data) {
    const auto number = as_integer(data);
    if (!number) fail("test '" + name + "' expects a whole number, got " + type_of(data));
    return *number;
  };
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.get<Text>() != nullptr;
  if (name == "number") return value.is_number();
  if (name == "integer") return value.get<std::int64_t>() != nullptr;
  if (name == "float") return value.get<double>() != nullptr;
  if (name == "boolean") return value.get<bool>() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "sequence" || name == "iterable")
    return value.list() != nullptr || value.dict() != nullptr || value.get<Text>() != nullptr || value.is_undefined();
  if (name == "callable") return value.get<std::shared_ptr<Callable>>() != nullptr;
  if (name == "true") return value.get<bool>() != nullptr && *value.get<bool>();
  if (name == "false") return value.get<bool>() != nullptr && !*value.get<bool>();
  if (name == "odd") return integer(value) % 2 != 0;
  if (name == "even") return integer(value) % 2 == 0;
  if (name == "divisibleby") {
    if (integer(argument()) == 0) fail("test 'divisibleby': division by zero");
    return integer(value) % integer(argument()) == 0;
  }
  if (name == "equalto" || name == "eq" || name == "sameas") return equal(value, argument());
  if (name == "ne") return !equal(value, argument());
  if (name == "lt" || name == "lessthan") return compare(value, argument()) < 0;
  if (name == "le") return compare(value, argument()) <= 0;
  if (name == "gt" || name == "greaterthan") return compare(value, argument()) > 0;
  if (name == "ge") return compare(value, argument()) >= 0;
  if (name == "in") return contains(argument(), value);
  if (name == "lower") return to_text(value).chars() == change_case(to_text(value), Case::kLower).chars();
  if (name == "upper") return to_text(value).chars() == change_case(to_text(value), Case::kUpper).chars();
  if (name == "filter")
    return std::find(filter_names().begin(), filter_names().end(), to_text(value).chars()) != filter_names().end();
  if (name == "test")
    return std::find(test_names().begin(), test_names().end(), to_text(value).chars()) != test_names().end();
  return std::nullopt;
}

namespace {

using Method = std::function<Data(const Arguments&)>;

std::string text_argument(const Arguments& arguments, std::size_t index, const std::string& method) {
  if (index >= arguments.positional.size() || arguments.positional[index].get<Text>() == nullptr)
    fail("method '" + method + "' expects a text");
  return arguments.positional[index].get<Text>()->chars();
}
std::int64_t integer_argument(const Arguments& arguments, std::size_t index, const char* name, std::int64_t otherwise) {
  for (const auto& [key, value] : arguments.named) {
    if (key == name) return as_integer(value).value_or(otherwise);
  }
  if (index >= arguments.positional.size()) return otherwise;
  return as_integer(arguments.positional[index]).value_or(otherwise);
}
std::optional<std::string> strip_set(const Arguments& arguments) {
  if (arguments.positional.empty() || arguments.positional[0].is_none()) return std::nullopt;
  return to_text(arguments.positional[0]).chars();
}
bool any_affix(const Arguments& arguments, const std::string& method,
               const std::function<bool(const std::string&)>& test) {
  if (!arguments.positional.empty() && arguments.positional[0].list() != nullptr) {
    for (const Data& item : *arguments.positional[0].list()) {
      if (test(to_text(item).chars())) return true;
    }
    return false;
  }
  return test(text_argument(arguments, 0, method));
}

Method text_method(const Text& text, const std::string& name, const Services& services) {
  const std::string& chars = text.chars();
  if (name == "strip") return [text](const Arguments& a) { return Data(strip(text, strip_set(a), Side::kBoth)); };
  if (name == "lstrip") return [text](const Arguments& a) { return Data(strip(text, strip_set(a), Side::kLeft)); };
  if (name == "rstrip") return [text](const Arguments& a) { return Data(strip(text, strip_set(a), Side::kRight)); };
  if (name == "upper") return [text](const Arguments&) { return Data(change_case(text, Case::kUpper)); };
  if (name == "lower") return [text](const Arguments&) { return Data(change_case(text, Case::kLower)); };
  if (name == "title") return [text](const Arguments&) { return Data(change_case(text, Case::kTitle)); };
  if (name == "capitalize") return [text](const Arguments&) { return Data(change_case(text, Case::kCapitalise)); };
  if (name == "split" || name == "rsplit") {
    return [text, right = name == "rsplit"](const Arguments& a) {
      std::optional<std::string> separator = strip_set(a);
      for (const auto& [key, value] : a.named) {
        if (key == "sep" && !value.is_none()) separator = to_text(value).chars();
      }
      return Data(
          split_text(text, separator, integer_argument(a, 1, "maxsplit", -1), right ? Side::kRight : Side::kLeft));
    };
  }
  if (name == "splitlines") return [text](const Arguments&) { return Data(split_lines(text)); };
  if (name == "startswith")
    return [chars](const Arguments& a) {
      return Data(any_affix(a, "startswith", [&](const std::string& x) { return chars.starts_with(x); }));
    };
  if (name == "endswith")
    return [chars](const Arguments& a) {
      return Data(any_affix(a, "endswith", [&](const std::string& x) { return chars.ends_with(x); }));
    };
  if (name == "replace") {
    return [text, services](const Arguments& a) {
      if (a.positional.size() < 2) fail("method 'replace' expects two texts");
      Text result = replace(text, text_argument(a, 0, "replace"), to_text(a.positional[1]),
                            integer_argument(a, 2, "count", -1), services.charge);
      return Data(std::move(result));
    };
  }
  if (name == "removeprefix") {
    return [text](const Arguments& a) {
      const std::string prefix = text_argument(a, 0, "removeprefix");
      return Data(text.chars().starts_with(prefix) ? text.slice(prefix.size(), text.size()) : text);
    };
  }
  if (name == "removesuffix") {
    return [text](const Arguments& a) {
      const std::string suffix = text_argument(a, 0, "removesuffix");
      return Data(!suffix.empty() && text.chars().ends_with(suffix) ? text.slice(0, text.size() - suffix.size())
                                                                    : text);
    };
  }
  if (name == "find" || name == "rfind" || name == "index") {
    return [text, name](const Arguments& a) {
      const std::string part = text_argument(a, 0, name);
      const std::size_t at = name == "rfind" ? text.chars().rfind(part) : text.chars().find(part);
      if (at == std::string::npos) {
        if (name == "index") fail("method 'index': the text is not found");
        return Data(std::int64_t{-1});
      }
      return Data(static_cast<std::int64_t>(decode_utf8(std::string_view(text.chars()).substr(0, at)).size()));
    };
  }
  if (name == "count") {
    return [chars](const Arguments& a) {
      const std::string part = text_argument(a, 0, "count");
      std::int64_t count = 0;
      for (std::size_t at = chars.find(part); !part.empty() && at != std::string::npos;
           at = chars.find(part, at + part.size()))
        ++count;
      return Data(count);
    };
  }
  if (name == "join")
    return [text, services](const Arguments& a) {
      return services.apply_filter("join", a.positional.empty() ? Data(List{}) : a.positional[0], {{Data(text)}, {}});
    };
  if (name == "isdigit" || name == "isalpha" || name == "isspace" || name == "isnumeric") {
    return [chars, name](const Arguments&) {
      return Data(!chars.empty() && std::all_of(chars.begin(), chars.end(), [&](unsigned char c) {
        return name == "isalpha"   ? std::isalpha(c) != 0 || c >= 0x80
               : name == "isspace" ? std::isspace(c) != 0
                                   : std::isdigit(c) != 0;
      }));
    };
  }
  if (name == "isupper" || name == "islower") {
    return [text, name](const Arguments&) {
      const Text changed = change_case(text, name == "isupper" ? Case::kUpper : Case::kLower);
      const Text other = change_case(text, name == "isupper" ? Case::kLower : Case::kUpper);
      return Data(changed.chars() == text.chars() && other.chars() != text.chars());
    };
  }
  if (name == "format")
    return [text, services](const Arguments& a) { return Data(format_braces(text, a, services.charge)); };
  return nullptr;
}

Method dict_method(const Data& value, const std::string& name) {
  if (name == "items" || name == "keys" || name == "values") {
    return [value, name](const Arguments&) {
      List list;
      for (const auto& [key, member] : *value.dict()) {
        list.push_back(name == "keys" ? key : name == "values" ? member : Data(List{key, member}));
      }
      return Data(std::move(list));
    };
  }
  if (name == "get") {
    return [value](const Arguments& a) {
      if (a.positional.empty()) fail("method 'get' expects a key");
      for (const auto& [key, member] : *value.dict()) {
        if (equal(key, a.positional[0])) return member;
      }
      if (a.positional.size() > 1) return a.positional[1];
      for (const auto& [key, member] : a.named) {
        if (key == "default") return member;
      }
      return Data();
    };
  }
  return nullptr;
}

Method list_method(const Data& value, const std::string& name) {
  if (name == "index" || name == "count") {
    return [value, name](const Arguments& a) {
      if (a.positional.empty()) fail("method '" + name + "' expects a value");
      std::int64_t count = 0;
      std::int64_t place = 0;
      for (const Data& item : *value.list()) {
        if (equal(item, a.positional[0])) {
          if (name == "index") return Data(place);
          ++count;
        }
        ++place;
      }
      if (name == "index") fail("method 'index': the value is not in the list");
      return Data(count);
    };
  }
  return nullptr;
}

}  // namespace

std::optional<Data> bound_method(const Data& value, const std::string& name, const Services& services) {
  Method method;
  if (const auto* text = value.get<Text>()) method = text_method(*text, name, services);
  if (value.dict() != nullptr) method = dict_method(value, name);
  if (value.list() != nullptr) method = list_method(value, name);
  for (const char* change :
       {"append", "extend", "insert", "pop", "remove", "clear", "update", "setdefault", "popitem", "sort", "reverse"}) {
    if (method == nullptr && name == change && (value.list() != nullptr || value.dict() != nullptr)) {
      fail("method '" + name + "' would change a value: the sandbox does not allow it");
    }
  }
  if (method == nullptr) return std::nullopt;
  return Data(std::make_shared<Callable>(Callable{name, std::move(method)}));
}

}  // namespace instruct::templates
