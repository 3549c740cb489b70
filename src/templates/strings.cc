#include "templates/strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace instruct::templates {
namespace {

char32_t code_at(const Text& text, std::pair<std::size_t, std::size_t> range) {
  const std::u32string code =
      decode_utf8(std::string_view(text.chars()).substr(range.first, range.second - range.first));
  return code.empty() ? U'\0' : code.front();
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

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_letter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_ND;
}

bool is_printable(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return code == U' ' || (category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS);
}

Text change_case(const Text& text, Case wanted) {
  Text result;
  bool inside_word = false;
  bool first = true;
  for (const auto& range : characters(text)) {
    const auto code = static_cast<utf8proc_int32_t>(code_at(text, range));
    const bool up = wanted == Case::kUpper || ((wanted == Case::kTitle || wanted == Case::kWords) && !inside_word) ||
                    (wanted == Case::kCapitalise && first);
    const auto changed = static_cast<char32_t>(up ? utf8proc_toupper(code) : utf8proc_tolower(code));
    std::string bytes;
    // German sharp s is the one common letter whose capital is two.
    if (up && code == 0xDF) {
      bytes = wanted == Case::kUpper ? "SS" : "Ss";
    } else {
      append_utf8(bytes, changed);
    }
    result.append(bytes, text.slice(range.first, range.second).single_source());
    const auto character = static_cast<char32_t>(code);
    inside_word = wanted == Case::kWords ? !is_space(character) && std::u32string_view(U"-({[<").find(character) ==
                                                                       std::u32string_view::npos
                                         : is_letter(character);
    first = false;
  }
  return result;
}

bool is_case(const Text& text, Case wanted) {
  const Case other = wanted == Case::kLower ? Case::kUpper : Case::kLower;
  return change_case(text, wanted).chars() == text.chars() && change_case(text, other).chars() != text.chars();
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

List split_lines(const Text& text, bool keep_ends) {
  List lines;
  std::size_t begin = 0;
  const auto ranges = characters(text);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const char32_t code = code_at(text, ranges[i]);
    const bool ends = (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
                      code == 0x2028 || code == 0x2029;
    if (!ends) continue;
    const std::size_t end = ranges[i].first;
    if (code == U'\r' && i + 1 < ranges.size() && text.chars()[ranges[i + 1].first] == '\n') ++i;
    lines.emplace_back(text.slice(begin, keep_ends ? ranges[i].second : end));
    begin = ranges[i].second;
  }
  if (begin < text.size()) lines.emplace_back(text.slice(begin, text.size()));
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

// Python's two ways to say how a value is written, as far as they agree: [-<>^][0][width][.precision][kind].
struct Format {
  char align = '\0';
  bool zero = false;
  std::size_t width = 0;
  int precision = -1;
  char kind = 's';
};

Format parse_format(std::string_view spec) {
  Format format;
  std::size_t i = 0;
  const auto digits = [&](int most) {
    int value = 0;
    for (; i < spec.size() && spec[i] >= '0' && spec[i] <= '9'; ++i)
      value = std::min(value * 10 + (spec[i] - '0'), most);
    return value;
  };
  if (i < spec.size() && std::string_view("-<>^").find(spec[i]) != std::string_view::npos) format.align = spec[i++];
  if (i < spec.size() && spec[i] == '0') {
    format.zero = true;
    ++i;
  }
  format.width = static_cast<std::size_t>(digits(100000));
  if (i < spec.size() && spec[i] == '.') {
    ++i;
    format.precision = digits(100);
  }
  if (i < spec.size()) format.kind = spec[i++];
  if (i < spec.size()) fail(fmt::format("format: '{}' is not understood", spec));
  return format;
}

Text unpadded(const Data& value, const Format& format) {
  const bool number = value.is_number();
  if (format.kind == 's' || format.kind == 'r') {
    const Text text = format.kind == 's' ? to_text(value) : to_repr(value);
    const auto ranges = characters(text);
    const bool cut = format.precision >= 0 && ranges.size() > static_cast<std::size_t>(format.precision);
    return cut ? text.slice(0, ranges[static_cast<std::size_t>(format.precision)].first) : text;
  }
  if (!number) fail(fmt::format("format %{}: expected a number, got {}", format.kind, type_of(value)));
  const double real = as_double(value);
  if (format.kind == 'f') return Text(fmt::format("{:.{}f}", real, format.precision < 0 ? 6 : format.precision));
  if (!(std::abs(real) < 9e18)) fail("format: the number is too large");
  const auto* exact = value.get<std::int64_t>();
  const std::int64_t whole = exact != nullptr ? *exact : static_cast<std::int64_t>(real);
  if (format.kind == 'x') return Text(fmt::format("{:x}", whole));
  if (format.kind == 'd' || format.kind == 'i') return Text(fmt::format("{}", whole));
  fail(fmt::format("format: unknown conversion '{}'", format.kind));
}

// Where texts stand in wider fields when no side is given: left in str.format, right with %.
enum class TextsStand { kLeft, kRight };
Text format_value(const Data& value, std::string_view spec, TextsStand side) {
  const Format format = parse_format(spec);
  Text body = unpadded(value, format);
  const std::size_t size = characters(body).size();
  if (size >= format.width) return body;
  const std::size_t missing = format.width - size;
  const bool number = value.is_number() && format.kind != 'r' && value.get<bool>() == nullptr;
  if (number && format.zero && format.align == '\0') {
    const std::size_t sign = body.chars().starts_with('-') ? 1 : 0;
    Text padded = body.slice(0, sign);
    padded.append(std::string(missing, '0'), 0);
    padded.append(body.slice(sign, body.size()));
    return padded;
  }
  const bool left =
      format.align == '-' || format.align == '<' || (format.align == '\0' && !number && side == TextsStand::kLeft);
  const std::size_t before = left ? 0 : format.align == '^' ? missing / 2 : missing;
  Text padded(std::string(before, ' '));
  padded.append(body);
  padded.append(std::string(missing - before, ' '), 0);
  return padded;
}

}  // namespace

Text escape_html(const Text& text, const Charge& charge) {
  Text result = text;
  if (text.is_safe()) return result;
  for (const auto& [from, to] :
       {std::pair{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&#34;"}, {"'", "&#39;"}}) {
    result = replace(result, from, Text(to, result.single_source()), -1, charge);
  }
  return result.marked_safe();
}

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
    const Text part = format_value(*value, std::string_view(chars).substr(end, kind - end + 1), TextsStand::kRight);
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
    const Text part = format_value(*value, spec, TextsStand::kLeft);
    charge(part.size());
    result.append(part);
    i = close + 1;
  }
  return result;
}

}  // namespace instruct::templates
