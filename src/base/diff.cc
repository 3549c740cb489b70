#include "base/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "base/text.h"

namespace instruct {
namespace {

constexpr std::size_t kMostCells = 4'000'000;
constexpr std::size_t kMostPieces = 100'000;
constexpr std::size_t kLongPiece = 120;  // bytes
constexpr std::size_t kMostShown = 240;  // bytes of one piece

using Pieces = std::span<const std::string_view>;

void append(std::vector<Edit>& edits, Edit::Kind kind, Pieces pieces) {
  for (const std::string_view piece : pieces) edits.push_back({kind, piece});
}

// Dynamic programming over all pairs; both sides differ at their first and last piece.
void append_changed(std::vector<Edit>& edits, Pieces before, Pieces after) {
  const std::size_t width = after.size() + 1;
  if (after.empty() || before.size() > kMostCells / width) {
    append(edits, Edit::Kind::kRemoved, before);
    append(edits, Edit::Kind::kAdded, after);
    return;
  }
  // common[i * width + j]: pieces that the rests before[i..] and after[j..] have in common, in order
  std::vector<std::uint32_t> common((before.size() + 1) * width, 0);
  for (std::size_t i = before.size(); i-- > 0;) {
    for (std::size_t j = after.size(); j-- > 0;) {
      common[i * width + j] = before[i] == after[j] ? common[(i + 1) * width + j + 1] + 1
                                                    : std::max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < before.size() || j < after.size()) {
    if (i < before.size() && j < after.size() && before[i] == after[j]) {
      edits.push_back({Edit::Kind::kSame, before[i++]});
      ++j;
    } else if (j == after.size() || (i < before.size() && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      edits.push_back({Edit::Kind::kRemoved, before[i++]});
    } else {
      edits.push_back({Edit::Kind::kAdded, after[j++]});
    }
  }
}

// Lines with their ends, broken after every tag and expression, and where they are long. The rest of a text of too many
// pieces is one piece.
std::vector<std::string_view> template_pieces(std::string_view text) {
  std::vector<std::string_view> pieces;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size() && pieces.size() < kMostPieces; ++i) {
    const std::string_view piece = text.substr(begin, i + 1 - begin);
    const bool line_follows = i + 1 < text.size() && text[i + 1] == '\n';
    const bool tag_ends = piece.ends_with("%}") || piece.ends_with("}}") || piece.ends_with("#}");
    const bool character_follows = i + 1 < text.size() && (static_cast<unsigned char>(text[i + 1]) & 0xC0) != 0x80;
    const bool long_enough = piece.size() >= kLongPiece && character_follows;
    if (text[i] != '\n' && ((!tag_ends && !long_enough) || line_follows)) continue;
    pieces.push_back(piece);
    begin = i + 1;
  }
  if (begin < text.size()) pieces.push_back(text.substr(begin));
  return pieces;
}

std::string printable(const Edit& edit) {
  std::string_view piece = edit.piece;
  const bool line_ends = piece.ends_with('\n');
  if (line_ends) piece.remove_suffix(1);
  std::string shown;
  for (const char32_t c : decode_utf8(piece.substr(0, kMostShown))) {
    const bool control = (c < 0x20 && c != U'\t') || (c >= 0x7F && c < 0xA0);
    if (control) {
      fmt::format_to(std::back_inserter(shown), "\\x{:02x}", static_cast<std::uint32_t>(c));
    } else {
      append_utf8(shown, c);
    }
  }
  if (piece.size() > kMostShown) shown += "...";
  if (line_ends && edit.kind != Edit::Kind::kSame) shown += "\u23CE";  // else "a" and "a\n" would look alike
  return shown;
}

}  // namespace

std::vector<Edit> diff(Pieces before, Pieces after) {
  const std::size_t shorter = std::min(before.size(), after.size());
  std::size_t head = 0;
  while (head < shorter && before[head] == after[head]) ++head;
  std::size_t tail = 0;
  while (tail < shorter - head && before[before.size() - 1 - tail] == after[after.size() - 1 - tail]) ++tail;
  std::vector<Edit> edits;
  append(edits, Edit::Kind::kSame, before.first(head));
  append_changed(edits, before.subspan(head, before.size() - head - tail),
                 after.subspan(head, after.size() - head - tail));
  append(edits, Edit::Kind::kSame, before.last(tail));
  return edits;
}

std::string template_diff(std::string_view before, std::string_view after, std::size_t most_pieces) {
  const std::vector<std::string_view> old_pieces = template_pieces(before);
  const std::vector<std::string_view> new_pieces = template_pieces(after);
  const std::vector<Edit> edits = diff(old_pieces, new_pieces);
  const auto changed = [&](std::size_t i) { return i < edits.size() && edits[i].kind != Edit::Kind::kSame; };
  std::string text;
  std::size_t line = 1;
  std::size_t column = 1;
  std::size_t printed = 0;
  std::size_t left_out = 0;
  bool in_group = false;
  for (std::size_t i = 0; i < edits.size(); ++i) {
    const Edit& edit = edits[i];
    const bool shown = changed(i) || changed(i + 1) || (i > 0 && changed(i - 1));
    if (shown && printed < most_pieces) {
      if (!in_group) text += fmt::format("@@ line {}, column {} @@\n", line, column);
      text += fmt::format("{}{}\n", static_cast<char>(edit.kind), printable(edit));
      ++printed;
    } else if (changed(i)) {
      ++left_out;
    }
    in_group = shown;
    if (edit.kind == Edit::Kind::kAdded) continue;
    const bool line_ends = edit.piece.ends_with('\n');
    line += line_ends ? 1 : 0;
    column = line_ends ? 1 : column + decode_utf8(edit.piece).size();
  }
  if (left_out > 0) text += fmt::format("... and {} more changed pieces\n", left_out);
  if (!text.empty()) text.pop_back();
  return text;
}

}  // namespace instruct
