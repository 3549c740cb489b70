// Three things make this quick. Nearly every piece is a whole token: the first time a token's own text comes by it is
// noted whether merging gives just the token, and from then on a look-up replaces merging (an exact cache). Short
// pieces scan their few ranks for the best, long ones keep a heap. And a SentencePiece text, which has no pieces, is
// cut where no merge can reach across: before a space symbol, when no token has one behind another character.
#include "tokenizers/byte_pair.h"

#include <algorithm>
#include <functional>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/byte_level.h"

namespace instruct::tokenizers {
namespace {

constexpr std::size_t kShortPiece = 64;  // symbols; longer pieces use the heap

std::uint32_t narrow(std::size_t value) {
  return static_cast<std::uint32_t>(value);
}

// Bytes of the character that starts with `lead`, in valid UTF-8.
std::size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Where the next space symbol behind another character is, from `from` on; the end when there is none.
std::size_t next_cut(std::string_view text, std::string_view space, std::size_t from) {
  while (text.substr(from).starts_with(space)) from += space.size();
  return std::min(text.find(space, from), text.size());
}

}  // namespace

BytePairEncoder::BytePairEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts)
    : spec_(spec),
      texts_(texts),
      by_text_(texts, texts.size()),
      whole_(std::make_unique<std::atomic<Whole>[]>(texts.size())) {
  index_tokens();
  if (!spec.merges.empty()) {
    index_merges();
  } else if (!spec.scores.empty() && spec.alphabet == Alphabet::kCharacters) {
    index_scores();
  } else {
    raise(ErrorCategory::kBadData, "{}: the tokenizer has no merges{}", spec.name,
          spec.alphabet == Alphabet::kCharacters ? " and no scores" : "");
  }
  if (spec.alphabet == Alphabet::kCharacters && spec.splits.empty() && !spec.ignore_merges &&
      !spec.space_symbol.empty() && find(spec.space_symbol) >= 0) {
    cut_at_spaces_ = std::none_of(texts.begin(), texts.end(), [&](const std::string& text) {
      return next_cut(text, spec.space_symbol, 0) < text.size();
    });
  }
}

// User-defined tokens come last and give way: a file may add a token that is also an ordinary one.
void BytePairEncoder::index_tokens() {
  byte_ids_.fill(-1);
  for (const bool user_defined : {false, true}) {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      if (texts_[i].empty() || (spec_.kinds[i] == TokenKind::kUserDefined) != user_defined) continue;
      index_token(static_cast<std::int32_t>(i));
    }
  }
}

void BytePairEncoder::index_token(std::int32_t id) {
  const auto i = static_cast<std::size_t>(id);
  if (spec_.kinds[i] == TokenKind::kByte) {
    const auto byte = byte_of_fallback_token(spec_.tokens[i]);
    if (!byte) {
      raise(ErrorCategory::kBadData, "{}: byte token {} is '{}'; expected <0x00> to <0xFF>", spec_.name, i,
            spec_.tokens[i]);
    }
    byte_ids_[*byte] = id;
    return;
  }
  if (const std::int32_t other = by_text_.insert(id); other >= 0) {
    if (spec_.kinds[i] == TokenKind::kUserDefined) return;
    raise(ErrorCategory::kBadData, "{}: token '{}' appears twice (ids {} and {})", spec_.name, spec_.tokens[i], other,
          id);
  }
  if (spec_.alphabet == Alphabet::kBytes && texts_[i].size() == 1) {
    byte_ids_[static_cast<unsigned char>(texts_[i][0])] = id;
  }
}

std::int32_t BytePairEncoder::id_of_spelling(std::string_view spelling) const {
  if (spec_.alphabet == Alphabet::kCharacters) return find(spelling);
  const auto bytes = bytes_of_spelling(spelling);
  return bytes ? find(*bytes) : -1;
}

// Merges that lead to or from a special token are left out: plain text never becomes one. Most vocabularies list tokens
// in the order of their merges, so the token behind the last result is tried before the table.
void BytePairEncoder::index_merges() {
  std::unordered_set<std::string_view> hidden;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    if (texts_[i].empty() && !spec_.tokens[i].empty()) hidden.insert(spec_.tokens[i]);
  }
  pairs_ = PairTable(spec_.merges.size());
  std::string joined;
  std::size_t next = 0;
  for (std::size_t rank = 0; rank < spec_.merges.size(); ++rank) {
    const auto& [left, right] = spec_.merges[rank];
    const std::int32_t a = id_of_spelling(left);
    const std::int32_t b = id_of_spelling(right);
    std::int32_t result = -1;
    if (a >= 0 && b >= 0) {
      joined = texts_[static_cast<std::size_t>(a)];
      joined += texts_[static_cast<std::size_t>(b)];
      result = next < texts_.size() && texts_[next] == joined ? static_cast<std::int32_t>(next) : find(joined);
    }
    if (result >= 0) {
      next = static_cast<std::size_t>(result) + 1;
      pairs_.insert(a, b, {static_cast<std::int32_t>(rank), result});
      continue;
    }
    const std::string& missing = a < 0 ? left : b < 0 ? right : left + right;
    if (hidden.contains(missing)) continue;
    raise(ErrorCategory::kBadData, "{}: merge {} ('{}' '{}') names a token the vocabulary does not have: '{}'",
          spec_.name, rank + 1, left, right, missing);
  }
}

// SentencePiece joins two symbols when their concatenation is a token, best score first. All ways to build a token get
// the same rank, so that ties go to the leftmost.
void BytePairEncoder::index_scores() {
  if (spec_.scores.size() != texts_.size()) {
    raise(ErrorCategory::kBadData, "{}: {} scores for {} tokens", spec_.name, spec_.scores.size(), texts_.size());
  }
  constexpr std::size_t kLongest = 2048;  // bytes; far above what is ever trained, and keeps bad files cheap
  std::vector<double> scores = spec_.scores;
  std::erase_if(scores, [](double score) { return score != score; });
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  struct Pair {
    std::int32_t left, right;
    PairTable::Merge merge;
  };
  std::vector<Pair> found;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    const std::string_view text = texts_[i];
    if (text.empty() || text.size() > kLongest || spec_.kinds[i] == TokenKind::kByte) continue;
    if (spec_.scores[i] != spec_.scores[i]) continue;  // not a number: never joined
    const auto rank = static_cast<std::int32_t>(
        std::lower_bound(scores.begin(), scores.end(), spec_.scores[i], std::greater<>()) - scores.begin());
    for (std::size_t cut = character_length(text[0]); cut < text.size(); cut += character_length(text[cut])) {
      const std::int32_t left = find(text.substr(0, cut));
      const std::int32_t right = left < 0 ? -1 : find(text.substr(cut));
      if (right >= 0) found.push_back({left, right, {rank, static_cast<std::int32_t>(i)}});
    }
  }
  pairs_ = PairTable(found.size());
  for (const Pair& pair : found) pairs_.insert(pair.left, pair.right, pair.merge);
}

void BytePairEncoder::encode(std::string_view piece, std::size_t offset, Workspace& workspace,
                             std::vector<Token>& out) const {
  while (!piece.empty()) {
    const std::string_view part = cut_at_spaces_ ? piece.substr(0, next_cut(piece, spec_.space_symbol, 0)) : piece;
    encode_part(part, offset, workspace, out);
    offset += part.size();
    piece.remove_prefix(part.size());
  }
}

void BytePairEncoder::encode_part(std::string_view part, std::size_t offset, Workspace& workspace,
                                  std::vector<Token>& out) const {
  const std::int32_t id = find(part);
  std::atomic<Whole>* known = id < 0 ? nullptr : &whole_[static_cast<std::size_t>(id)];
  const Whole whole = id < 0 ? Whole::kNo : spec_.ignore_merges ? Whole::kYes : known->load(std::memory_order_relaxed);
  if (whole == Whole::kYes) {
    out.push_back({id, narrow(offset), narrow(offset + part.size())});
    return;
  }
  const std::size_t first = out.size();
  encode_parts(part, offset, workspace, out);
  if (whole == Whole::kNo) return;
  const bool alone = out.size() == first + 1 && out[first].id == id;
  known->store(alone ? Whole::kYes : Whole::kNo, std::memory_order_relaxed);
}

void BytePairEncoder::encode_parts(std::string_view piece, std::size_t offset, Workspace& workspace,
                                   std::vector<Token>& out) const {
  std::vector<Part>& parts = workspace.parts;
  parts.clear();
  if (spec_.alphabet == Alphabet::kBytes) {
    split_bytes(piece, parts);
  } else {
    split_characters(piece, parts);
  }
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) rank_pair(parts[i], parts[i + 1]);
  if (parts.size() <= kShortPiece) {
    merge_short(parts);
  } else {
    merge_long(workspace);
  }
  for (const Part& part : parts) {
    out.push_back({part.id, narrow(offset + part.begin), narrow(offset + part.end)});
  }
}

void BytePairEncoder::push_unknown(std::uint32_t begin, std::uint32_t end, std::vector<Part>& parts) const {
  if (!spec_.unknown) return;
  if (spec_.fuse_unknown && !parts.empty() && parts.back().id == *spec_.unknown && parts.back().end == begin) {
    parts.back().end = end;
    return;
  }
  parts.push_back({*spec_.unknown, begin, end, PairTable::kNone, -1, -1, -1});
}

void BytePairEncoder::split_bytes(std::string_view piece, std::vector<Part>& parts) const {
  for (std::uint32_t at = 0; at < piece.size(); ++at) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(piece[at])];
    if (id >= 0) {
      parts.push_back({id, at, at + 1, PairTable::kNone, -1, -1, -1});
    } else {
      push_unknown(at, at + 1, parts);
    }
  }
}

// A character that is no token becomes its bytes, when there is a token for each of them.
void BytePairEncoder::split_characters(std::string_view piece, std::vector<Part>& parts) const {
  for (std::uint32_t at = 0; at < piece.size();) {
    const std::uint32_t end = narrow(std::min(piece.size(), at + character_length(piece[at])));
    const std::string_view character = piece.substr(at, end - at);
    const std::int32_t id = find(character);
    if (id >= 0) {
      parts.push_back({id, at, end, PairTable::kNone, -1, -1, -1});
    } else if (std::all_of(character.begin(), character.end(),
                           [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; })) {
      for (std::uint32_t i = at; i < end; ++i) {
        parts.push_back({byte_ids_[static_cast<unsigned char>(piece[i])], i, i + 1, PairTable::kNone, -1, -1, -1});
      }
    } else {
      push_unknown(at, end, parts);
    }
    at = end;
  }
}

void BytePairEncoder::rank_pair(Part& left, const Part& right) const {
  const PairTable::Merge merge = pairs_.find(left.id, right.id);
  left.rank = merge.rank;
  left.result = merge.result;
}

void BytePairEncoder::merge_short(std::vector<Part>& parts) const {
  while (parts.size() > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < parts.size(); ++i) {
      if (parts[i].rank < parts[best].rank) best = i;
    }
    if (parts[best].rank == PairTable::kNone) return;
    parts[best].id = parts[best].result;
    parts[best].end = parts[best + 1].end;
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    parts[best].rank = PairTable::kNone;
    if (best + 1 < parts.size()) rank_pair(parts[best], parts[best + 1]);
    if (best > 0) rank_pair(parts[best - 1], parts[best]);
  }
}

// The heap holds (rank, place of the left part). An entry whose part has another rank by now is out of date.
void BytePairEncoder::merge_long(Workspace& workspace) const {
  std::vector<Part>& parts = workspace.parts;
  std::vector<std::uint64_t>& heap = workspace.heap;
  heap.clear();
  const auto entry = [&](std::int32_t place) {
    const auto rank = static_cast<std::uint32_t>(parts[static_cast<std::size_t>(place)].rank);
    return static_cast<std::uint64_t>(rank) << 32 | static_cast<std::uint32_t>(place);
  };
  const auto count = static_cast<std::int32_t>(parts.size());
  for (std::int32_t i = 0; i < count; ++i) {
    Part& part = parts[static_cast<std::size_t>(i)];
    part.previous = i - 1;
    part.next = i + 1 < count ? i + 1 : -1;
    if (part.rank != PairTable::kNone) heap.push_back(entry(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto rerank = [&](std::int32_t place) {
    Part& part = parts[static_cast<std::size_t>(place)];
    part.rank = PairTable::kNone;
    if (part.next < 0) return;
    rank_pair(part, parts[static_cast<std::size_t>(part.next)]);
    if (part.rank == PairTable::kNone) return;
    heap.push_back(entry(place));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto place = static_cast<std::int32_t>(heap.back() & UINT32_MAX);
    const auto rank = static_cast<std::int32_t>(heap.back() >> 32);
    heap.pop_back();
    Part& left = parts[static_cast<std::size_t>(place)];
    if (left.id < 0 || left.rank != rank) continue;
    Part& right = parts[static_cast<std::size_t>(left.next)];
    left.id = left.result;
    left.end = right.end;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) parts[static_cast<std::size_t>(left.next)].previous = place;
    rerank(place);
    if (left.previous >= 0) rerank(left.previous);
  }
  std::erase_if(parts, [](const Part& part) { return part.id < 0; });
}

}  // namespace instruct::tokenizers
