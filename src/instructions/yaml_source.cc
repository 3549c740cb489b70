#include "instructions/yaml_source.h"

#include <algorithm>
#include <charconv>

#include "base/file.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

// Bytes of the first `count` characters of valid UTF-8.
std::size_t bytes_of_characters(std::string_view text, int count) {
  std::size_t offset = 0;
  for (int i = 0; i < count && offset < text.size(); ++i) {
    ++offset;
    while (offset < text.size() && (static_cast<unsigned char>(text[offset]) & 0xC0U) == 0x80U) ++offset;
  }
  return offset;
}

bool take_number(std::string_view& text, int& number) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

YamlSource::YamlSource(std::string_view text) {
  for_each_line(text, [&](std::string_view line, std::int64_t) { lines_.push_back(line); });
}

std::string_view YamlSource::line(int number) const {
  if (number < 1 || static_cast<std::size_t>(number) > lines_.size()) return {};
  return lines_[static_cast<std::size_t>(number) - 1];
}

Mark YamlSource::inside_value(Mark scalar, std::string_view value, Mark inside) const {
  const std::string_view first = line(scalar.line);
  const auto start = static_cast<std::size_t>(std::max(scalar.column - 1, 0));
  if (inside.line < 1 || start >= first.size()) return scalar;
  const std::vector<std::string_view> value_lines = instruct::split(value, '\n');
  if (static_cast<std::size_t>(inside.line) > value_lines.size()) return scalar;
  const std::string_view wanted = value_lines[static_cast<std::size_t>(inside.line) - 1];
  const std::size_t bytes = bytes_of_characters(wanted, inside.column - 1);

  if (first[start] == '|') {
    const std::string_view written = line(scalar.line + inside.line);
    if (!written.ends_with(wanted)) return scalar;
    return {scalar.line + inside.line, static_cast<int>(written.size() - wanted.size() + bytes) + 1};
  }
  const std::size_t skip = first[start] == '"' || first[start] == '\'' ? 1 : 0;
  const bool verbatim = first.substr(start + skip).starts_with(wanted.substr(0, bytes));
  if (inside.line != 1 || !verbatim) return scalar;
  return {scalar.line, static_cast<int>(start + skip + bytes) + 1};
}

Mark YamlSource::key(std::string_view name, Mark value) const {
  const auto matches = [&](std::string_view text, std::size_t at) {
    std::string_view rest = text.substr(at + name.size());
    if (!rest.empty() && (rest.front() == '"' || rest.front() == '\'')) rest.remove_prefix(1);
    const bool starts = at == 0 || std::string_view(" \t{,\"'-").find(text[at - 1]) != std::string_view::npos;
    return starts && trim(rest).starts_with(':');
  };
  for (int number = value.line; number >= 1 && number + 50 > value.line; --number) {
    const std::string_view text = line(number);
    std::size_t at = number == value.line ? text.rfind(name, static_cast<std::size_t>(std::max(value.column - 1, 0)))
                                          : text.rfind(name);
    while (at != std::string_view::npos) {
      if (matches(text, at)) return {number, static_cast<int>(at) + 1};
      if (at == 0) break;
      at = text.rfind(name, at - 1);
    }
  }
  return value;
}

std::pair<Mark, std::string> split_located_message(std::string_view message, std::string_view origin) {
  std::string_view rest = message;
  Mark mark;
  if (take(rest, origin) && take(rest, ": line ") && take_number(rest, mark.line) && take(rest, ", column ") &&
      take_number(rest, mark.column) && take(rest, ": ")) {
    return {mark, std::string(rest)};
  }
  rest = message;
  if (take(rest, origin)) take(rest, ": ");
  return {Mark{}, std::string(rest)};
}

}  // namespace instruct::instructions
