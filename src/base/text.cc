#include "base/text.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace instruct {
namespace {

// Length of the valid character at the start of `text`, or 0; then `bad` is the length of the maximal invalid part.
std::size_t character_length(std::string_view text, std::size_t& bad) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  bad = 1;
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  std::size_t length = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) {
      bad = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t position = 0;
  std::size_t bad = 0;
  while (position < text.size()) {
    const std::size_t length = character_length(text.substr(position), bad);
    if (length == 0) return position;
    position += length;
  }
  return std::nullopt;
}

std::string repair_utf8(std::string_view text) {
  std::string result;
  std::size_t position = 0;
  while (position < text.size()) {
    std::size_t bad = 0;
    const std::size_t length = character_length(text.substr(position), bad);
    if (length == 0) {
      result += "\xEF\xBF\xBD";
      position += bad;
    } else {
      result.append(text.substr(position, length));
      position += length;
    }
  }
  return result;
}

std::u32string decode_utf8(std::string_view text) {
  std::u32string result;
  std::size_t position = 0;
  while (position < text.size()) {
    std::size_t bad = 0;
    const std::size_t length = character_length(text.substr(position), bad);
    if (length == 0) {
      result += U'\uFFFD';
      position += bad;
      continue;
    }
    const auto first = static_cast<unsigned char>(text[position]);
    char32_t code = length == 1 ? first : first & (0xFFU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
      code = code << 6 | (static_cast<unsigned char>(text[position + i]) & 0x3FU);
    }
    result += code;
    position += length;
  }
  return result;
}

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&text](char32_t value) { text += static_cast<char>(value); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::string encode_utf8(std::u32string_view text) {
  std::string result;
  for (const char32_t code : text) append_utf8(result, code);
  return result;
}

std::size_t incomplete_utf8_tail(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80 || byte >= 0xF5) return 0;  // nothing starts with a byte past F4
    if (byte >= 0xC0) {
      const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return length > back ? back : 0;
    }
  }
  return 0;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string to_lower_ascii(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // The last three rows of the table: two neighbours that changed places count once.
  std::vector<std::size_t> row(b.size() + 1), previous, before;
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(previous, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string> candidates) {
  const std::string lower = to_lower_ascii(name.substr(0, 200));
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(1, lower.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(lower, to_lower_ascii(std::string_view(candidate).substr(0, 200)));
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, std::span<const std::string> candidates) {
  if (candidates.empty()) return {};
  if (const auto nearest = nearest_name(name, candidates)) return fmt::format("; did you mean '{}'?", *nearest);
  std::string list = "; known: ";
  for (std::size_t i = 0; i < std::min<std::size_t>(12, candidates.size()); ++i) {
    list += (i > 0 ? ", " : "") + candidates[i];
  }
  return candidates.size() > 12 ? list + ", ..." : list;
}

}  // namespace instruct
