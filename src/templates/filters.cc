// The filters of published chat templates, and the usual rest of Jinja's: those of single values, and the table of all.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/text.h"
#include "templates/filter_call.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

Data default_value(const Call& call) {
  const bool replace = call.value.is_undefined() || (call.flag(1, "boolean", false) && !truth(call.value));
  return replace ? call.get(0, "default_value", Data("")) : call.value;
}

Data length(const Call& call) {
  if (const auto* text = call.value.get<Text>()) return static_cast<std::int64_t>(characters(*text).size());
  if (call.value.list() != nullptr && !call.value.is_generator())
    return static_cast<std::int64_t>(call.value.list()->size());
  if (call.value.dict() != nullptr) return static_cast<std::int64_t>(call.value.dict()->size());
  if (call.value.is_undefined()) return std::int64_t{0};
  fail("filter 'length': a value of type " + type_of(call.value) + " has none");
}

Data tojson(const Call& call) {
  JsonForm form{.ascii_only = call.flag(0, "ensure_ascii", false)};
  form.indent = static_cast<int>(std::clamp<std::int64_t>(call.integer(1, "indent", -1), -1, 100));
  if (form.indent >= 0) form.between_items = ",";
  const Data separators = call.get(2, "separators", Data());
  if (separators.list() != nullptr && separators.list()->size() == 2) {
    form.between_items = to_text((*separators.list())[0]).chars();
    form.after_key = to_text((*separators.list())[1]).chars();
  }
  form.sort_keys = call.flag(3, "sort_keys", false);
  return to_json(call.value, form);
}

[[noreturn]] void no_number(const Call& call) {
  fail(fmt::format("'{}' is undefined, so filter '{}' has nothing to work on", call.value.get<Undefined>()->name,
                   call.name));
}

// Python's int(text, base): a sign, a prefix that names the base, and underscores between digits.
std::optional<std::int64_t> parse_integer(std::string text, std::int64_t base) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.erase(0, 1);
  for (const auto& [prefix, meant] : {std::pair{"0x", 16}, {"0o", 8}, {"0b", 2}}) {
    if (!to_lower_ascii(text).starts_with(prefix) || (base != meant && base != 0)) continue;
    text.erase(0, 2);
    base = meant;
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.ends_with('_') || text.starts_with('_')) return std::nullopt;
  std::erase(text, '_');
  std::int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, static_cast<int>(base));
  if (status != std::errc() || end != text.data() + text.size() || text.starts_with('-')) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> parse_real(std::string_view text) {
  double number = 0;
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  return status == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

Data to_integer(const Call& call) {
  if (call.value.is_undefined()) no_number(call);
  const Data otherwise = call.get(0, "default", Data(std::int64_t{0}));
  if (const auto* flag = call.value.get<bool>()) return std::int64_t{*flag ? 1 : 0};
  if (call.value.get<std::int64_t>() != nullptr) return call.value;
  const auto cut = [&](std::optional<double> number) {
    return number && std::abs(*number) < 9e18 ? Data(static_cast<std::int64_t>(*number)) : otherwise;
  };
  if (const auto* number = call.value.get<double>()) return cut(*number);
  if (call.value.get<Text>() == nullptr) return otherwise;
  const std::string text(trim(call.text().chars()));
  if (const auto integer = parse_integer(text, call.integer(1, "base", 10))) return *integer;
  return cut(parse_real(text));
}

Data to_float(const Call& call) {
  if (call.value.is_undefined()) no_number(call);
  if (call.value.is_number()) return as_double(call.value);
  if (call.value.get<Text>() != nullptr) {
    if (const auto number = parse_real(trim(call.text().chars()))) return *number;
  }
  return call.get(0, "default", Data(0.0));
}

Data round(const Call& call) {
  if (!call.value.is_number()) fail("filter 'round' expects a number, got " + type_of(call.value));
  const double number = as_double(call.value);
  const std::int64_t precision = std::clamp<std::int64_t>(call.integer(0, "precision", 0), -300, 300);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const std::string method = to_text(call.get(1, "method", Data("common"))).chars();
  if (method == "ceil") return std::ceil(number * scale) / scale;
  if (method == "floor") return std::floor(number * scale) / scale;
  if (method != "common") fail("filter 'round': the method is common, ceil or floor");
  const bool whole = call.value.get<double>() == nullptr;
  if (whole && precision >= 0) return static_cast<std::int64_t>(number);
  // As Python: the decimal nearest to the exact value; formatting finds it.
  const double rounded = precision < 0 ? std::nearbyint(number * scale) / scale
                                       : parse_real(fmt::format("{:.{}f}", number, precision)).value_or(number);
  return whole ? Data(static_cast<std::int64_t>(rounded)) : Data(rounded);
}

Data absolute(const Call& call) {
  if (const auto* integer = call.value.get<std::int64_t>())
    return *integer == INT64_MIN ? Data(std::abs(static_cast<double>(*integer))) : Data(std::abs(*integer));
  if (!call.value.is_number()) fail("filter 'abs' expects a number, got " + type_of(call.value));
  return std::abs(as_double(call.value));
}

const Filters& value_filters() {
  static const Filters table{
      {"default", default_value},
      {"d", default_value},
      {"length", length},
      {"count", length},
      {"tojson", tojson},
      {"int", to_integer},
      {"float", to_float},
      {"abs", absolute},
      {"round", round},
      {"attr",
       [](const Call& call) {
         return get_attribute(call.value, to_text(call.get(0, "name", Data(""))).chars(), call.services);
       }},
  };
  return table;
}

const Filters& filters() {
  static const Filters all = [] {
    Filters table = value_filters();
    table.insert(list_filters().begin(), list_filters().end());
    table.insert(text_filters().begin(), text_filters().end());
    return table;
  }();
  return all;
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
