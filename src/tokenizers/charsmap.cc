#include "tokenizers/charsmap.h"

#include <utf8proc.h>

#include "base/error.h"
#include "tokenizers/characters.h"

namespace instruct::tokenizers {
namespace {

constexpr std::size_t kLongestCluster = 5;  // bytes

std::uint32_t word_at(std::string_view bytes, std::size_t at) {
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < 4; ++i)
    word |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  return word;
}

std::uint32_t label_of(std::uint32_t unit) {
  return unit & (0x80000000U | 0xFFU);
}
std::uint32_t distance_of(std::uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200U) >> 6);
}
bool has_value(std::uint32_t unit) {
  return (unit & 0x100U) != 0;
}

}  // namespace

Charsmap::Charsmap(std::string_view bytes, const std::string& origin) {
  const std::size_t size = bytes.size() < 4 ? 0 : word_at(bytes, 0);
  if (size == 0 || size % 4 != 0 || size > bytes.size() - 4) {
    raise(ErrorCategory::kBadData, "{}: precompiled charsmap of {} bytes: its trie takes {}; expected a multiple of 4",
          origin, bytes.size(), size);
  }
  for (std::size_t at = 4; at < 4 + size; at += 4) units_.push_back(word_at(bytes, at));
  replacements_ = bytes.substr(4 + size);
  if (replacements_.empty() || replacements_.back() != '\0')
    raise(ErrorCategory::kBadData, "{}: precompiled charsmap: its texts do not end with a zero", origin);
  for (char c = 0; c >= 0 && c < 127; ++c) {
    const auto put = replacement({&c, 1});
    stays_[static_cast<std::size_t>(c)] = !put || *put == std::string_view(&c, 1);
  }
}

std::optional<Charsmap::Match> Charsmap::find(std::string_view text, Wanted wanted) const {
  std::optional<Match> found;
  std::size_t at = distance_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) return found;  // keys end there
    at ^= byte;
    if (at >= units_.size() || label_of(units_[at]) != byte) return found;
    const std::uint32_t unit = units_[at];
    at ^= distance_of(unit);
    if (!has_value(unit)) continue;
    const std::size_t place = at < units_.size() ? units_[at] & 0x7FFFFFFFU : replacements_.size();
    if (place >= replacements_.size()) return found;
    found = {i + 1, std::string_view(replacements_.data() + place)};  // to its zero
    if (wanted == Wanted::kShortest) return found;
  }
  return found;
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  const auto found = find(text, Wanted::kShortest);
  return found ? std::optional(found->put) : std::nullopt;
}

void Charsmap::apply_longest(AlignedText& text) const {
  const std::string_view view = text.view();
  AlignedText::Writer writer(text);
  std::size_t length = 0;
  for (std::size_t at = 0; at < view.size(); at += length) {
    const auto found = find(view.substr(at), Wanted::kLongest);
    if (!found) {
      first_character(view.substr(at), length);
      continue;
    }
    length = found->length;
    if (found->put != view.substr(at, length)) writer.replace(at, at + length, found->put);
  }
  writer.finish();
}

void Charsmap::replace_cluster(std::string_view cluster, std::size_t at, AlignedText::Writer& writer) const {
  if (cluster.size() <= kLongestCluster) {
    if (const auto put = replacement(cluster)) {
      if (*put != cluster) writer.replace(at, at + cluster.size(), *put);
      return;
    }
  }
  std::size_t length = 0;
  for (std::size_t i = 0; i < cluster.size(); i += length) {
    first_character(cluster.substr(i), length);
    const std::string_view character = cluster.substr(i, length);
    const auto put = replacement(character);
    if (put && *put != character) writer.replace(at + i, at + i + length, *put);
  }
}

void Charsmap::apply(AlignedText& text) const {
  const std::string_view view = text.view();
  AlignedText::Writer writer(text);
  const auto is_plain = [&](std::size_t at) {
    const auto byte = static_cast<unsigned char>(view[at]);
    return byte < 0x80 && byte != '\r' && stays_[byte];
  };
  std::size_t length = 0;
  for (std::size_t at = 0; at < view.size();) {
    // ASCII joins no cluster with ASCII behind it, but for a line end.
    if (is_plain(at) && (at + 1 == view.size() || static_cast<unsigned char>(view[at + 1]) < 0x80)) {
      ++at;
      continue;
    }
    std::int32_t state = 0;
    char32_t last = first_character(view.substr(at), length);
    std::size_t end = at + length;
    while (end < view.size()) {
      const char32_t next = first_character(view.substr(end), length);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last), static_cast<utf8proc_int32_t>(next),
                                           &state))
        break;
      last = next;
      end += length;
    }
    replace_cluster(view.substr(at, end - at), at, writer);
    at = end;
  }
  writer.finish();
}

}  // namespace instruct::tokenizers
