// Methods of texts, lists and objects.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "templates/builtins.h"
#include "templates/operators.h"
#include "templates/strings.h"

namespace instruct::templates {
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

// The part from argument 1 to argument 2, counted in characters.
Text between(const Text& text, const Arguments& a) {
  if (a.positional.size() < 2) return text;
  return *slice(Data(text), a.positional[1], a.positional.size() > 2 ? a.positional[2] : Data(), Data()).get<Text>();
}

// (before, separator, after); without the separator the text stands first, or last when searched from the right.
Data partition(const Text& text, const std::string& separator, Side side) {
  if (separator.empty()) fail("partition: the separator is empty");
  const std::size_t at = side == Side::kLeft ? text.chars().find(separator) : text.chars().rfind(separator);
  if (at == std::string::npos) {
    return Data::tuple(side == Side::kLeft ? List{text, Text(), Text()} : List{Text(), Text(), text});
  }
  const std::size_t end = at + separator.size();
  return Data::tuple({text.slice(0, at), text.slice(at, end), text.slice(end, text.size())});
}

// ljust, rjust and zfill: as wide as asked, in characters.
Data padded(const Text& text, const std::string& name, const Arguments& a, const Services& services) {
  constexpr std::int64_t kWidest = 1 << 20;
  const std::int64_t width = integer_argument(a, 0, "width", 0);
  const std::int64_t missing = width - static_cast<std::int64_t>(characters(text).size());
  if (missing <= 0) return text;
  if (width > kWidest) fail(fmt::format("method '{}': a width of {} is too large", name, width));
  std::string fill = name == "zfill" ? "0" : " ";
  if (a.positional.size() > 1) fill = text_argument(a, 1, name);
  if (decode_utf8(fill).size() != 1) fail("method '" + name + "' fills with one character");
  services.charge(static_cast<std::size_t>(missing) * fill.size());
  std::string filling;
  for (std::int64_t i = 0; i < missing; ++i) filling += fill;
  const bool sign = name == "zfill" && (text.chars().starts_with('-') || text.chars().starts_with('+'));
  const std::size_t before = name == "ljust" ? text.size() : sign ? 1 : 0;
  Text result = text.slice(0, before);
  result.append(filling, 0);
  result.append(text.slice(before, text.size()));
  return result;
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
  if (name == "splitlines")
    return
        [text](const Arguments& a) { return Data(split_lines(text, !a.positional.empty() && truth(a.positional[0]))); };
  if (name == "partition" || name == "rpartition")
    return [text, side = name == "partition" ? Side::kLeft : Side::kRight](const Arguments& a) {
      return partition(text, text_argument(a, 0, "partition"), side);
    };
  if (name == "startswith")
    return [text](const Arguments& a) {
      const std::string part = between(text, a).chars();
      return Data(any_affix(a, "startswith", [&](const std::string& x) { return part.starts_with(x); }));
    };
  if (name == "endswith")
    return [text](const Arguments& a) {
      const std::string part = between(text, a).chars();
      return Data(any_affix(a, "endswith", [&](const std::string& x) { return part.ends_with(x); }));
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
  if (name == "ljust" || name == "rjust" || name == "zfill")
    return [text, name, services](const Arguments& a) { return padded(text, name, a, services); };
  if (name == "find" || name == "rfind" || name == "index" || name == "rindex") {
    return [text, name](const Arguments& a) {
      const std::string part = text_argument(a, 0, name);
      const auto ranges = characters(text);
      const std::int64_t first = integer_argument(a, 1, "start", 0);
      const std::int64_t skipped =
          std::clamp<std::int64_t>(first < 0 ? first + static_cast<std::int64_t>(ranges.size()) : first, 0,
                                   static_cast<std::int64_t>(ranges.size()));
      const std::size_t from = skipped < static_cast<std::int64_t>(ranges.size())
                                   ? ranges[static_cast<std::size_t>(skipped)].first
                                   : text.size();
      std::size_t at = name.starts_with('r') ? text.chars().rfind(part) : text.chars().find(part, from);
      if (at != std::string::npos && at < from) at = std::string::npos;
      if (at == std::string::npos) {
        if (name.ends_with("index")) fail("method '" + name + "': the text is not found");
        return Data(std::int64_t{-1});
      }
      return Data(static_cast<std::int64_t>(decode_utf8(std::string_view(text.chars()).substr(0, at)).size()));
    };
  }
  if (name == "count") {
    return [chars](const Arguments& a) {
      const std::string part = text_argument(a, 0, "count");
      std::int64_t count = 0;
      if (part.empty()) return Data(static_cast<std::int64_t>(decode_utf8(chars).size()) + 1);
      for (std::size_t at = chars.find(part); !part.empty() && at != std::string::npos;
           at = chars.find(part, at + part.size()))
        ++count;
      return Data(count);
    };
  }
  if (name == "join")
    return [text, services](const Arguments& a) {
      if (a.positional.empty()) fail("method 'join' expects a list of texts");
      for (const Data& item : iterate(a.positional[0])) {
        if (item.get<Text>() == nullptr) fail("method 'join' expects texts, got " + type_of(item));
      }
      return services.apply_filter("join", a.positional[0], {{Data(text)}, {}});
    };
  if (name == "isdigit" || name == "isnumeric" || name == "isalpha" || name == "isalnum" || name == "isspace") {
    return [chars, name](const Arguments&) {
      const std::u32string codes = decode_utf8(chars);
      return Data(!codes.empty() && std::all_of(codes.begin(), codes.end(), [&](char32_t c) {
        return name == "isspace"   ? is_space(c)
               : name == "isalpha" ? is_letter(c)
               : name == "isalnum" ? is_letter(c) || is_digit(c)
                                   : is_digit(c);
      }));
    };
  }
  if (name == "isupper" || name == "islower") {
    return [text, wanted = name == "isupper" ? Case::kUpper : Case::kLower](const Arguments&) {
      return Data(is_case(text, wanted));
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
        list.push_back(name == "keys" ? key : name == "values" ? member : Data::tuple({key, member}));
      }
      return Data(std::move(list));
    };
  }
  if (name == "copy") return [value](const Arguments&) { return value; };  // nothing changes either
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
  if (name == "copy" && !value.is_tuple() && !value.is_generator()) return [value](const Arguments&) { return value; };
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
