#include "templates/strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace instruct::templates {
namespace {

[[noreturn]] void fail(const std::string& message) {
  raise(ErrorCategory::kBadData, "{}", message);
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

char32_t code_at(const Text& text, std::pair<std::size_t, std::size_t> range) {
  const std::u32string code =
      decode_utf8(std::string_view(text.chars()).substr(range.first, range.second - range.first));
  return code.empty() ? U'\0' : code.front();
}

bool is_letter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

}  // namespace

std::vector<std::pair<std::size_t, std::size_t>> characters(const Text& text) {
  std::vector<std::pair<std::size_t, std::size_t>> result;
  const std::string& chars = text.chars();
  std::size_t begin = 0;
  while (begin < chars.size()) {
    std::size_t end = begin + 1;
    const auto first = static_cast<unsigned char>(chars[begin]);
    const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
    while (end < chars.size() && end - begin < length && (static_cast<unsigned char>(chars[end]) & 0xC0) == 0x80) ++end;
    result.emplace_back(begin, end);
    begin = end;
  }
  return result;
}

Text change_case(const Text& text, Case wanted) {
  Text result;
  bool inside_word = false;
  bool first = true;
  for (const auto& range : characters(text)) {
    const auto code = static_cast<utf8proc_int32_t>(code_at(text, range));
    const bool up =
        wanted == Case::kUpper || (wanted == Case::kTitle && !inside_word) || (wanted == Case::kCapitalise && first);
    const auto changed = static_cast<char32_t>(up ? utf8proc_toupper(code) : utf8proc_tolower(code));
    std::string bytes;
    // German sharp s is the one common letter whose capital is two.
    if (up && code == 0xDF) {
      bytes = wanted == Case::kUpper ? "SS" : "Ss";
    } else {
      append_utf8(bytes, changed);
    }
    result.append(bytes, text.slice(range.first, range.second).single_source());
    inside_word = is_letter(static_cast<char32_t>(code));
    first = false;
  }
  return result;
}

Text strip(const Text& text, const std::optional<std::string>& set, Side side) {
  const std::u32string wanted = set ? decode_utf8(*set) : std::u32string();
  const auto drops = [&](std::pair<std::size_t, std::size_t> range) {
    const char32_t code = code_at(text, range);
    return set ? wanted.find(code) != std::u32string::npos : is_space(code);
  };
  const auto ranges = characters(text);
  std::size_t begin = 0;
  std::size_t end = ranges.size();
  if (side != Side::kRight) {
    while (begin < end && drops(ranges[begin])) ++begin;
  }
  if (side != Side::kLeft) {
    while (end > begin && drops(ranges[end - 1])) --end;
  }
  if (begin == end) return {};
  return text.slice(ranges[begin].first, ranges[end - 1].second);
}

List split_text(const Text& text, const std::optional<std::string>& separator, std::int64_t most, Side side) {
  std::vector<std::pair<std::size_t, std::size_t>> cuts;  // byte ranges of separators
  if (separator) {
    if (separator->empty()) fail("split: the separator is empty");
    for (std::size_t at = text.chars().find(*separator); at != std::string::npos;
         at = text.chars().find(*separator, at + separator->size())) {
      cuts.emplace_back(at, at + separator->size());
    }
  } else {
    const Text whole =
        strip(text, std::nullopt, most >= 0 ? (side == Side::kLeft ? Side::kLeft : Side::kRight) : Side::kBoth);
    if (strip(text, std::nullopt, Side::kBoth).size() == 0) return {};
    if (whole.size() != text.size()) return split_text(whole, std::nullopt, most, side);
    bool inside = false;
    for (const auto& range : characters(text)) {
      if (!is_space(code_at(text, range))) {
        inside = false;
      } else if (inside) {
        cuts.back().second = range.second;
      } else {
        cuts.push_back(range);
        inside = true;
      }
    }
    if (!cuts.empty() && cuts.back().second == text.size()) {
      if (most < 0 || static_cast<std::int64_t>(cuts.size()) <= most)
        return split_text(text.slice(0, cuts.back().first), std::nullopt, most, side);
    }
  }
  if (most >= 0 && static_cast<std::int64_t>(cuts.size()) > most) {
    if (side == Side::kLeft) {
      cuts.resize(static_cast<std::size_t>(most));
    } else {
      cuts.erase(cuts.begin(), cuts.end() - most);
    }
  }
  List parts;
  std::size_t begin = 0;
  for (const auto& [from, to] : cuts) {
    parts.emplace_back(text.slice(begin, from));
    begin = to;
  }
  parts.emplace_back(text.slice(begin, text.size()));
  return parts;
}

List split_lines(const Text& text) {
  List lines;
  std::size_t begin = 0;
  const std::string& chars = text.chars();
  while (begin < chars.size()) {
    const std::size_t end = std::min(chars.find_first_of("\r\n", begin), chars.size());
    lines.emplace_back(text.slice(begin, end));
    begin = end + 1;
    if (end + 1 < chars.size() && chars[end] == '\r' && chars[end + 1] == '\n') ++begin;
  }
  return lines;
}

Text replace(const Text& text, const std::string& from, const Text& to, std::int64_t most, const Charge& charge) {
  Text result;
  std::size_t begin = 0;
  std::int64_t count = 0;
  if (from.empty()) {  // between all characters
    for (const auto& [first, last] : characters(text)) {
      if (most < 0 || count++ < most) result.append(to);
      result.append(text.slice(first, last));
      charge(to.size() + 1);
    }
    if (most < 0 || count < most) result.append(to);
    return result;
  }
  for (std::size_t at = text.chars().find(from); at != std::string::npos && (most < 0 || count < most);
       at = text.chars().find(from, begin)) {
    result.append(text.slice(begin, at));
    result.append(to);
    charge(to.size() + at - begin);
    begin = at + from.size();
    ++count;
  }
  result.append(text.slice(begin, text.size()));
  return result;
}

namespace {

Text format_number(const Data& value, std::string_view spec) {
  // [width][.precision](d|f|s|x), with a leading 0 for zero padding.
  const char kind = spec.empty() ? 's' : spec.back();
  std::string options(spec.substr(0, spec.empty() ? 0 : spec.size() - 1));
  if (kind == 's') return to_text(value);
  if (kind == 'r') return to_repr(value);
  if (!value.is_number()) fail(fmt::format("format %{}: expected a number, got {}", kind, type_of(value)));
  int width = 0;
  int precision = 6;
  bool zero = false;
  std::size_t i = 0;
  if (i < options.size() && options[i] == '0') {
    zero = true;
    ++i;
  }
  while (i < options.size() && std::isdigit(static_cast<unsigned char>(options[i])) != 0 && width < 1000)
    width = width * 10 + (options[i++] - '0');
  if (i < options.size() && options[i] == '.') {
    precision = 0;
    ++i;
    while (i < options.size() && std::isdigit(static_cast<unsigned char>(options[i])) != 0 && precision < 100)
      precision = precision * 10 + (options[i++] - '0');
  }
  std::string text;
  if (kind == 'f') {
    text = fmt::format("{:.{}f}", as_double(value), precision);
  } else if (kind == 'x') {
    text = fmt::format("{:x}", static_cast<std::int64_t>(as_double(value)));
  } else if (kind == 'd' || kind == 'i') {
    text = fmt::format("{}", static_cast<std::int64_t>(as_double(value)));
  } else {
    fail(fmt::format("format: unknown conversion '%{}'", kind));
  }
  if (static_cast<int>(text.size()) < width)
    text.insert(0, std::string(static_cast<std::size_t>(width) - text.size(), zero ? '0' : ' '));
  return Text(text);
}

}  // namespace

Text format_percent(const Text& format, const List& values, const Dict* named, const Charge& charge) {
  Text result;
  const std::string& chars = format.chars();
  std::size_t next = 0;
  std::size_t begin = 0;
  for (std::size_t at = chars.find('%'); at != std::string::npos; at = chars.find('%', begin)) {
    result.append(format.slice(begin, at));
    std::size_t end = at + 1;
    if (end < chars.size() && chars[end] == '%') {
      result.append(format.slice(at, at + 1));
      begin = end + 1;
      continue;
    }
    std::optional<Data> value;
    if (end < chars.size() && chars[end] == '(') {
      const std::size_t close = chars.find(')', end);
      if (close == std::string::npos || named == nullptr) fail("format: '%(' needs a name and named values");
      for (const auto& [key, member] : *named) {
        if (to_text(key).chars() == chars.substr(end + 1, close - end - 1)) value = member;
      }
      end = close + 1;
    }
    const std::size_t kind = chars.find_first_of("sdifxr", end);
    if (kind == std::string::npos) fail("format: a '%' has no conversion");
    if (!value) {
      if (next >= values.size()) fail("format: not enough values");
      value = values[next++];
    }
    const Text part = format_number(*value, std::string_view(chars).substr(end, kind - end + 1));
    charge(part.size());
    result.append(part);
    begin = kind + 1;
  }
  result.append(format.slice(begin, chars.size()));
  return result;
}

Text format_braces(const Text& format, const Arguments& arguments, const Charge& charge) {
  Text result;
  const std::string& chars = format.chars();
  std::size_t next = 0;
  for (std::size_t i = 0; i < chars.size();) {
    if ((chars[i] == '{' || chars[i] == '}') && i + 1 < chars.size() && chars[i + 1] == chars[i]) {
      result.append(format.slice(i, i + 1));
      i += 2;
      continue;
    }
    if (chars[i] != '{') {
      result.append(format.slice(i, i + 1));
      ++i;
      continue;
    }
    const std::size_t close = chars.find('}', i);
    if (close == std::string::npos) fail("format: '{' is never closed");
    std::string field = chars.substr(i + 1, close - i - 1);
    std::string spec;
    if (const std::size_t colon = field.find(':'); colon != std::string::npos) {
      spec = field.substr(colon + 1);
      field.resize(colon);
    }
    std::optional<Data> value;
    if (field.empty() || std::isdigit(static_cast<unsigned char>(field[0])) != 0) {
      const std::size_t index = field.empty() ? next++ : std::min<std::size_t>(std::stoul(field.substr(0, 6)), 1000000);
      if (index < arguments.positional.size()) value = arguments.positional[index];
    } else {
      for (const auto& [key, member] : arguments.named) {
        if (key == field) value = member;
      }
    }
    if (!value) fail(fmt::format("format: there is no value for '{{{}}}'", field));
    const Text part = format_number(*value, spec);
    charge(part.size());
    result.append(part);
    i = close + 1;
  }
  return result;
}

}  // namespace instruct::templates
