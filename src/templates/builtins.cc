// Access to values, tests, and methods of texts, lists and objects.
#include "templates/builtins.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "templates/strings.h"

namespace instruct::templates {
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

Data get_attribute(const Data& value, const std::string& name, const Services& services) {
  if (value.is_undefined())
    fail(fmt::format("'{}' is undefined, so it has no '{}'", value.get<Undefined>()->name, name));
  if (auto method = bound_method(value, name, services)) return *method;
  if (const Data* member = value.find(name)) return *member;
  return Undefined{name};
}

Data get_item(const Data& value, const Data& key, const Services& services) {
  if (value.is_undefined())
    fail(fmt::format("'{}' is undefined, so it has no item {}", value.get<Undefined>()->name, to_repr(key).chars()));
  if (const Dict* dict = value.dict()) {
    for (const auto& [k, member] : *dict) {
      if (equal(k, key)) return member;
    }
  }
  if (const auto* name = key.get<Text>()) return get_attribute(value, name->chars(), services);
  const Undefined missing{to_repr(key).chars()};
  const auto index = as_integer(key);
  if (!index || value.is_generator()) return missing;
  const auto* text = value.get<Text>();
  const auto ranges = text != nullptr ? characters(*text) : std::vector<std::pair<std::size_t, std::size_t>>();
  const auto size = static_cast<std::int64_t>(value.list() != nullptr ? value.list()->size() : ranges.size());
  const std::int64_t place = *index < 0 ? *index + size : *index;
  if (place < 0 || place >= size) return missing;
  const auto at = static_cast<std::size_t>(place);
  if (text != nullptr) return text->slice(ranges[at].first, ranges[at].second);
  return (*value.list())[at];
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
  if (name == "callable") return value.get<std::shared_ptr<Callable>>() != nullptr || value.is_undefined();
  if (name == "true") return value.get<bool>() != nullptr && *value.get<bool>();
  if (name == "false") return value.get<bool>() != nullptr && !*value.get<bool>();
  if (name == "odd") return integer(value) % 2 != 0;
  if (name == "even") return integer(value) % 2 == 0;
  if (name == "divisibleby") {
    if (integer(argument()) == 0) fail("test 'divisibleby': division by zero");
    return integer(value) % integer(argument()) == 0;
  }
  if (name == "equalto" || name == "eq" || name == "==" || name == "sameas") return equal(value, argument());
  if (name == "ne" || name == "!=") return !equal(value, argument());
  if (name == "lt" || name == "lessthan" || name == "<") return compare(value, argument()) < 0;
  if (name == "le" || name == "<=") return compare(value, argument()) <= 0;
  if (name == "gt" || name == "greaterthan" || name == ">") return compare(value, argument()) > 0;
  if (name == "ge" || name == ">=") return compare(value, argument()) >= 0;
  if (name == "in") return contains(argument(), value);
  if (name == "lower" || name == "upper") return is_case(to_text(value), name == "lower" ? Case::kLower : Case::kUpper);
  if (name == "filter")
    return std::find(filter_names().begin(), filter_names().end(), to_text(value).chars()) != filter_names().end();
  if (name == "test")
    return std::find(test_names().begin(), test_names().end(), to_text(value).chars()) != test_names().end();
  return std::nullopt;
}

}  // namespace instruct::templates
