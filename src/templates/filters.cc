// The filters of published chat templates, and the usual rest of Jinja's.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "templates/builtins.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

[[noreturn]] void fail(const std::string& message) {
  raise(ErrorCategory::kBadData, "{}", message);
}

// The value, arguments and services of one filter call.
struct Call {
  const std::string& name;
  const Data& value;
  const Arguments& arguments;
  const Services& services;

  // Argument by position or name; nullptr when absent.
  const Data* find(std::size_t index, std::string_view key) const {
    if (index < arguments.positional.size()) return &arguments.positional[index];
    for (const auto& [given, data] : arguments.named) {
      if (given == key) return &data;
    }
    return nullptr;
  }
  Data get(std::size_t index, std::string_view key, Data otherwise) const {
    const Data* found = find(index, key);
    return found == nullptr ? std::move(otherwise) : *found;
  }
  std::int64_t integer(std::size_t index, std::string_view key, std::int64_t otherwise) const {
    const Data* found = find(index, key);
    if (found == nullptr || found->is_none()) return otherwise;
    if (const auto* number = found->get<std::int64_t>()) return *number;
    if (const auto* flag = found->get<bool>()) return *flag ? 1 : 0;
    fail(fmt::format("filter '{}': '{}' expects a whole number, got {}", name, key, type_of(*found)));
  }
  bool flag(std::size_t index, std::string_view key, bool otherwise) const {
    const Data* found = find(index, key);
    return found == nullptr ? otherwise : truth(*found);
  }
  Text text() const { return to_text(value); }
  List items() const { return iterate(value); }
};

Data attribute_path(const Data& value, const Data& path) {
  if (const auto* index = path.get<std::int64_t>()) return get_item(value, Data(*index));
  Data current = value;
  const Text names = to_text(path);
  for (const std::string_view part : split(names.chars(), '.')) {
    std::int64_t number = 0;
    const auto [end, status] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_index = status == std::errc() && end == part.data() + part.size();
    current = is_index ? get_item(current, Data(number)) : get_attribute(current, std::string(part));
  }
  return current;
}

Data default_value(const Call& call) {
  const bool replace = call.value.is_undefined() || (call.flag(1, "boolean", false) && !truth(call.value));
  return replace ? call.get(0, "default_value", Data("")) : call.value;
}

Data join(const Call& call) {
  const Text separator = to_text(call.get(0, "d", Data("")));
  const Data* attribute = call.find(1, "attribute");
  Text result;
  bool first = true;
  for (const Data& item : call.items()) {
    if (!first) result.append(separator);
    first = false;
    const Text part = to_text(attribute != nullptr ? attribute_path(item, *attribute) : item);
    call.services.charge(part.size() + separator.size());
    result.append(part);
  }
  return result;
}

Data length(const Call& call) {
  if (const auto* text = call.value.get<Text>()) return static_cast<std::int64_t>(characters(*text).size());
  if (call.value.list() != nullptr) return static_cast<std::int64_t>(call.value.list()->size());
  if (call.value.dict() != nullptr) return static_cast<std::int64_t>(call.value.dict()->size());
  if (call.value.is_undefined()) return std::int64_t{0};
  fail("filter 'length': a value of type " + type_of(call.value) + " has none");
}

Data first_or_last(const Call& call) {
  const List items = call.items();
  if (items.empty()) return Undefined{call.name + " of nothing"};
  return call.name == "first" ? items.front() : items.back();
}

Data map(const Call& call) {
  List result;
  const Data* attribute = nullptr;
  const Data* otherwise = nullptr;
  for (const auto& [key, value] : call.arguments.named) {
    if (key == "attribute") attribute = &value;
    if (key == "default") otherwise = &value;
  }
  if (attribute == nullptr && call.arguments.positional.empty())
    fail("filter 'map' needs a filter's name or attribute=");
  for (const Data& item : call.items()) {
    if (attribute != nullptr) {
      Data value = attribute_path(item, *attribute);
      result.push_back(value.is_undefined() && otherwise != nullptr ? *otherwise : std::move(value));
    } else {
      Arguments rest{{call.arguments.positional.begin() + 1, call.arguments.positional.end()}, call.arguments.named};
      result.push_back(call.services.apply_filter(to_text(call.arguments.positional[0]).chars(), item, rest));
    }
  }
  return result;
}

// select, reject, selectattr, rejectattr.
Data choose(const Call& call) {
  const bool by_attribute = call.name.ends_with("attr");
  const bool keep = call.name.starts_with("select");
  const std::size_t skip = by_attribute ? 1 : 0;
  if (by_attribute && call.arguments.positional.empty()) fail("filter '" + call.name + "' needs an attribute");
  List result;
  for (const Data& item : call.items()) {
    const Data subject = by_attribute ? attribute_path(item, call.arguments.positional[0]) : item;
    bool passes = false;
    if (call.arguments.positional.size() > skip) {
      Arguments rest{
          {call.arguments.positional.begin() + static_cast<std::ptrdiff_t>(skip) + 1, call.arguments.positional.end()},
          {}};
      passes = call.services.apply_test(to_text(call.arguments.positional[skip]).chars(), subject, rest);
    } else {
      passes = truth(subject);
    }
    if (passes == keep) result.push_back(item);
  }
  return result;
}

Data folded(const Data& value, bool case_sensitive) {
  const auto* text = value.get<Text>();
  return text != nullptr && !case_sensitive ? Data(change_case(*text, Case::kLower)) : value;
}

Data sort(const Call& call) {
  List items = call.items();
  const bool reverse = call.flag(0, "reverse", false);
  const bool sensitive = call.flag(1, "case_sensitive", false);
  const Data* attribute = call.find(2, "attribute");
  const auto key = [&](const Data& item) {
    return folded(attribute != nullptr ? attribute_path(item, *attribute) : item, sensitive);
  };
  std::stable_sort(items.begin(), items.end(), [&](const Data& a, const Data& b) {
    return reverse ? compare(key(b), key(a)) < 0 : compare(key(a), key(b)) < 0;
  });
  return items;
}

Data dictsort(const Call& call) {
  if (call.value.dict() == nullptr) fail("filter 'dictsort' expects an object");
  Dict members = *call.value.dict();
  const bool sensitive = call.flag(0, "case_sensitive", false);
  const bool by_value = to_text(call.get(1, "by", Data("key"))).chars() == "value";
  const bool reverse = call.flag(2, "reverse", false);
  std::stable_sort(members.begin(), members.end(), [&](const auto& a, const auto& b) {
    const int order =
        compare(folded(by_value ? a.second : a.first, sensitive), folded(by_value ? b.second : b.first, sensitive));
    return reverse ? order > 0 : order < 0;
  });
  List result;
  for (auto& [key, value] : members) result.emplace_back(List{key, value});
  return result;
}

Data unique(const Call& call) {
  List result;
  std::vector<Data> seen;
  const Data* attribute = call.find(1, "attribute");
  for (const Data& item : call.items()) {
    const Data key =
        folded(attribute != nullptr ? attribute_path(item, *attribute) : item, call.flag(0, "case_sensitive", false));
    if (std::any_of(seen.begin(), seen.end(), [&](const Data& other) { return equal(key, other); })) continue;
    call.services.charge(seen.size());
    seen.push_back(key);
    result.push_back(item);
  }
  return result;
}

Data tojson(const Call& call) {
  const int indent = static_cast<int>(std::clamp<std::int64_t>(call.integer(0, "indent", -1), -1, 100));
  const Data separators = call.get(1, "separators", Data());
  std::string item = ", ";
  std::string key = ": ";
  if (separators.list() != nullptr && separators.list()->size() == 2) {
    item = to_text((*separators.list())[0]).chars();
    key = to_text((*separators.list())[1]).chars();
  }
  return to_json(call.value, indent, item, key, call.flag(2, "sort_keys", false));
}

Data to_integer(const Call& call) {
  const Data otherwise = call.get(0, "default", Data(std::int64_t{0}));
  if (const auto* flag = call.value.get<bool>()) return std::int64_t{*flag ? 1 : 0};
  if (call.value.get<std::int64_t>() != nullptr) return call.value;
  if (const auto* number = call.value.get<double>()) {
    return std::isfinite(*number) && std::abs(*number) < 9e18 ? Data(static_cast<std::int64_t>(*number)) : otherwise;
  }
  const std::string text(trim(call.text().chars()));
  double number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || end != text.data() + text.size() || std::abs(number) > 9e18) return otherwise;
  return static_cast<std::int64_t>(number);
}

Data to_float(const Call& call) {
  if (call.value.is_number()) return as_double(call.value);
  const std::string text(trim(call.text().chars()));
  double number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || end != text.data() + text.size()) return call.get(0, "default", Data(0.0));
  return number;
}

Data round(const Call& call) {
  const double number = call.value.is_number() ? as_double(call.value) : 0;
  const double scale = std::pow(10.0, static_cast<double>(call.integer(0, "precision", 0)));
  const std::string method = to_text(call.get(1, "method", Data("common"))).chars();
  if (method == "ceil") return std::ceil(number * scale) / scale;
  if (method == "floor") return std::floor(number * scale) / scale;
  return std::nearbyint(number * scale) / scale;  // halves to even, as Python
}

Data indent(const Call& call) {
  const Data width = call.get(0, "width", Data(std::int64_t{4}));
  const Text pad =
      width.get<Text>() != nullptr
          ? *width.get<Text>()
          : Text(std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(0, "width", 4), 0, 1000)),
                             ' '));
  const bool first = call.flag(1, "first", false);
  const bool blank = call.flag(2, "blank", false);
  Text result;
  std::size_t line = 0;
  const Data cut(split_text(call.text(), "\n", -1, Side::kLeft));
  for (const Data& part : *cut.list()) {
    const Text& text = *part.get<Text>();
    if (line > 0) result.append("\n", 0);
    if ((line > 0 || first) && (blank || text.size() > 0 || (line == 0 && first))) result.append(pad);
    result.append(text);
    call.services.charge(text.size() + pad.size());
    ++line;
  }
  return result;
}

Data escape(const Call& call) {
  Text result = call.text();
  for (const auto& [from, to] :
       {std::pair{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&#34;"}, {"'", "&#39;"}}) {
    result = replace(result, from, Text(to, result.single_source()), -1, call.services.charge);
  }
  return result;
}

Data extreme(const Call& call) {
  const List items = call.items();
  if (items.empty()) return Undefined{call.name + " of nothing"};
  const Data* attribute = call.find(1, "attribute");
  const auto key = [&](const Data& item) {
    return folded(attribute != nullptr ? attribute_path(item, *attribute) : item,
                  call.flag(0, "case_sensitive", false));
  };
  const Data* best = &items.front();
  for (const Data& item : items) {
    const int order = compare(key(item), key(*best));
    if (call.name == "max" ? order > 0 : order < 0) best = &item;
  }
  return *best;
}

Data sum(const Call& call) {
  const Data* attribute = call.find(0, "attribute");
  const Data start = call.get(1, "start", Data(std::int64_t{0}));
  double total = as_double(start);
  bool whole = start.get<std::int64_t>() != nullptr;
  for (const Data& item : call.items()) {
    const Data value = attribute != nullptr ? attribute_path(item, *attribute) : item;
    if (!value.is_number()) fail("filter 'sum' expects numbers, got " + type_of(value));
    whole = whole && value.get<double>() == nullptr;
    total += as_double(value);
  }
  return whole ? Data(static_cast<std::int64_t>(total)) : Data(total);
}

Data groupby(const Call& call) {
  const Data attribute = call.get(0, "attribute", Data(""));
  std::vector<std::pair<Data, List>> groups;
  for (const Data& item : call.items()) {
    const Data key = attribute_path(item, attribute);
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return equal(folded(group.first, false), folded(key, false));
    });
    if (found != groups.end()) {
      found->second.push_back(item);
    } else {
      groups.emplace_back(key, List{item});
    }
  }
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return compare(folded(a.first, false), folded(b.first, false)) < 0;
  });
  List result;
  for (auto& [key, members] : groups) result.emplace_back(List{key, Data(std::move(members))});
  return result;
}

// batch: rows of n items. slice: n columns.
Data batch(const Call& call) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(1, call.integer(0, "linecount", 1)));
  const Data* fill = call.find(1, "fill_with");
  List result;
  List row;
  for (const Data& item : call.items()) {
    if (row.size() == size) result.emplace_back(std::exchange(row, {}));
    row.push_back(item);
  }
  if (fill != nullptr && !row.empty()) {
    call.services.charge(size);
    while (row.size() < size) row.push_back(*fill);
  }
  if (!row.empty()) result.emplace_back(std::move(row));
  return result;
}

Data slice(const Call& call) {
  const auto columns = static_cast<std::size_t>(std::max<std::int64_t>(1, call.integer(0, "slices", 1)));
  call.services.charge(columns);
  const Data* fill = call.find(1, "fill_with");
  const List items = call.items();
  const std::size_t each = items.size() / columns;
  const std::size_t longer = items.size() % columns;
  List result;
  std::size_t next = 0;
  for (std::size_t column = 0; column < columns; ++column) {
    List part;
    const std::size_t size = each + (column < longer ? 1 : 0);
    for (std::size_t i = 0; i < size; ++i) part.push_back(items[next++]);
    if (fill != nullptr && column >= longer) part.push_back(*fill);
    result.emplace_back(std::move(part));
  }
  return result;
}

Data truncate(const Call& call) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(0, call.integer(0, "length", 255)));
  const Text end = to_text(call.get(2, "end", Data("...")));
  const auto leeway = static_cast<std::size_t>(std::max<std::int64_t>(0, call.integer(3, "leeway", 5)));
  const Text text = call.text();
  const auto ranges = characters(text);
  if (ranges.size() <= size + leeway) return text;
  const std::size_t keep = size - std::min(size, characters(end).size());
  Text cut = keep == 0 ? Text() : text.slice(0, ranges[keep - 1].second);
  if (!call.flag(1, "killwords", false)) {
    if (const std::size_t space = cut.chars().rfind(' '); space != std::string::npos) cut = cut.slice(0, space);
  }
  cut.append(end);
  return cut;
}

Data urlencode(const Call& call) {
  std::string result;
  const Text text = call.text();
  for (const char c : text.chars()) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 ||
        std::string_view("_.-~/").find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return Text(std::move(result), text.single_source());
}

Data format(const Call& call) {
  Dict named;
  for (const auto& [key, value] : call.arguments.named) named.emplace_back(Data(key), value);
  return format_percent(call.text(), call.arguments.positional, &named, call.services.charge);
}

Data items(const Call& call) {
  if (call.value.is_undefined()) return List{};
  if (call.value.dict() == nullptr) fail("filter 'items' expects an object, got " + type_of(call.value));
  List result;
  for (const auto& [key, value] : *call.value.dict()) result.emplace_back(List{key, value});
  return result;
}

Data reverse(const Call& call) {
  List list = call.items();
  std::reverse(list.begin(), list.end());
  if (call.value.get<Text>() == nullptr) return list;
  Text result;
  for (const Data& item : list) result.append(*item.get<Text>());
  return result;
}

Data trimmed(const Call& call) {
  const Data* set = call.find(0, "chars");
  return strip(call.text(), set != nullptr && !set->is_none() ? std::optional(to_text(*set).chars()) : std::nullopt,
               Side::kBoth);
}

Data replaced(const Call& call) {
  const Data* from = call.find(0, "old");
  const Data* to = call.find(1, "new");
  if (from == nullptr || to == nullptr) fail("filter 'replace' expects two texts");
  return replace(call.text(), to_text(*from).chars(), to_text(*to), call.integer(2, "count", -1), call.services.charge);
}

Data absolute(const Call& call) {
  if (const auto* integer = call.value.get<std::int64_t>())
    return *integer == INT64_MIN ? Data(std::abs(static_cast<double>(*integer))) : Data(std::abs(*integer));
  if (!call.value.is_number()) fail("filter 'abs' expects a number, got " + type_of(call.value));
  return std::abs(as_double(call.value));
}

Data wordcount(const Call& call) {
  const Data words(split_text(call.text(), std::nullopt, -1, Side::kLeft));
  return static_cast<std::int64_t>(words.list()->size());
}

Data center(const Call& call) {
  const auto width = static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(0, "width", 80), 0, 100000));
  const Text text = call.text();
  const std::size_t size = characters(text).size();
  if (size >= width) return text;
  const std::size_t left = (width - size) / 2 + ((width - size) & width & 1);
  Text result(std::string(left, ' '));
  result.append(text);
  result.append(std::string(width - size - left, ' '), 0);
  return result;
}

using Filter = Data (*)(const Call&);

const std::map<std::string, Filter, std::less<>>& filters() {
  static const std::map<std::string, Filter, std::less<>> table{
      {"default", default_value},
      {"d", default_value},
      {"join", join},
      {"length", length},
      {"count", length},
      {"list", [](const Call& call) { return Data(call.items()); }},
      {"lower", [](const Call& call) { return Data(change_case(call.text(), Case::kLower)); }},
      {"upper", [](const Call& call) { return Data(change_case(call.text(), Case::kUpper)); }},
      {"title", [](const Call& call) { return Data(change_case(call.text(), Case::kTitle)); }},
      {"capitalize", [](const Call& call) { return Data(change_case(call.text(), Case::kCapitalise)); }},
      {"trim", trimmed},
      {"replace", replaced},
      {"first", first_or_last},
      {"last", first_or_last},
      {"map", map},
      {"select", choose},
      {"reject", choose},
      {"selectattr", choose},
      {"rejectattr", choose},
      {"items", items},
      {"dictsort", dictsort},
      {"sort", sort},
      {"unique", unique},
      {"tojson", tojson},
      {"string", [](const Call& call) { return Data(call.text()); }},
      {"int", to_integer},
      {"float", to_float},
      {"abs", absolute},
      {"round", round},
      {"indent", indent},
      {"safe", [](const Call& call) { return call.value; }},
      {"escape", escape},
      {"e", escape},
      {"reverse", reverse},
      {"sum", sum},
      {"min", extreme},
      {"max", extreme},
      {"groupby", groupby},
      {"batch", batch},
      {"slice", slice},
      {"wordcount", wordcount},
      {"truncate", truncate},
      {"format", format},
      {"urlencode", urlencode},
      {"center", center},
      {"attr",
       [](const Call& call) { return get_attribute(call.value, to_text(call.get(0, "name", Data(""))).chars()); }},
  };
  return table;
}

}  // namespace

const std::vector<std::string>& filter_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const auto& [name, filter] : filters()) result.push_back(name);
    return result;
  }();
  return names;
}

std::optional<Data> call_filter(const std::string& name, const Data& value, const Arguments& arguments,
                                const Services& services) {
  const auto found = filters().find(name);
  if (found == filters().end()) return std::nullopt;
  return found->second(Call{name, value, arguments, services});
}

}  // namespace instruct::templates
