#include "tokenizers/unigram.h"

#include <algorithm>

#include "base/error.h"
#include "tokenizers/byte_level.h"

namespace instruct::tokenizers {
namespace {

// A character that is no token costs this much more than the unlikeliest token (SentencePiece's kUnkPenalty).
constexpr double kUnknownPenalty = 10;
constexpr std::int32_t kUnknown = -1;  // the id of such a character

std::uint32_t narrow(std::size_t value) {
  return static_cast<std::uint32_t>(value);
}

std::size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

std::vector<std::string> scored(const TokenizerSpec& spec, std::vector<std::string> texts) {
  if (spec.scores.size() != texts.size())
    raise(ErrorCategory::kBadData, "{}: {} scores for {} tokens", spec.name, spec.scores.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (spec.scores[i] != spec.scores[i] || spec.kinds[i] == TokenKind::kByte) texts[i].clear();
  }
  for (const auto& [text, score] : spec.foreign_pieces) texts.push_back(text);
  return texts;
}

}  // namespace

UnigramEncoder::UnigramEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts)
    : spec_(spec), trie_(scored(spec, texts)), scores_(spec.scores) {
  for (const auto& [text, score] : spec.foreign_pieces) scores_.push_back(score);
  for (const std::int32_t id : trie_.repeated()) {
    const auto i = static_cast<std::size_t>(id);
    if (is_foreign(id)) raise(ErrorCategory::kBadData, "{}: a piece without a token appears twice", spec.name);
    raise(ErrorCategory::kBadData, "{}: token '{}' appears twice (ids {} and {})", spec.name, spec.tokens[i],
          trie_.find(texts[i]), id);
  }
  double lowest = 0;
  bool first = true;
  for (const double score : scores_) {
    if (score != score) continue;
    lowest = first ? score : std::min(lowest, score);
    first = false;
  }
  unknown_score_ = lowest - kUnknownPenalty;
  index_bytes();
  if (!spec.unknown && !has_bytes_) {
    raise(ErrorCategory::kBadData,
          "{}: Unigram needs an unknown token, for characters that no token has, and the file names none", spec.name);
  }
}

void UnigramEncoder::index_bytes() {
  byte_ids_.fill(-1);
  for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
    if (spec_.kinds[i] != TokenKind::kByte) continue;
    const auto byte = byte_of_fallback_token(spec_.tokens[i]);
    if (!byte) {
      raise(ErrorCategory::kBadData, "{}: byte token {} is '{}'; expected <0x00> to <0xFF>", spec_.name, i,
            spec_.tokens[i]);
    }
    byte_ids_[*byte] = static_cast<std::int32_t>(i);
  }
  has_bytes_ = std::none_of(byte_ids_.begin(), byte_ids_.end(), [](std::int32_t id) { return id < 0; });
}

// cuts[i] becomes the best way to cut the first i bytes: its score, and the last token and where that starts.
void UnigramEncoder::find_best(std::string_view piece, std::vector<Workspace::Cut>& cuts) const {
  cuts.assign(piece.size() + 1, {});
  const auto offer = [&](std::size_t from, std::size_t to, std::int32_t id, double score) {
    Workspace::Cut& cut = cuts[to];
    if (cut.from != Workspace::kNoCut && score <= cut.score) return;
    cut = {spec_.keeps_single ? static_cast<double>(static_cast<float>(score)) : score, narrow(from), id};
  };
  for (std::size_t at = 0; at < piece.size();) {
    const double before = cuts[at].score;
    const std::size_t end = std::min(at + character_length(piece[at]), piece.size());
    bool is_token = false;  // the character alone
    std::uint32_t node = trie_.root();
    for (std::size_t i = at; i < piece.size();) {
      node = trie_.next(node, piece[i++]);
      if (node == Trie::kNowhere) break;
      const std::int32_t id = trie_.id(node);
      if (id < 0) continue;
      offer(at, i, id, before + scores_[static_cast<std::size_t>(id)]);
      is_token = is_token || i == end;
    }
    if (!is_token) offer(at, end, kUnknown, before + unknown_score_);
    at = end;
  }
}

void UnigramEncoder::push_unknown(std::string_view part, std::size_t offset, std::vector<Token>& out) const {
  const auto push = [&](std::int32_t id) { out.push_back({id, narrow(offset), narrow(offset + part.size())}); };
  const bool spelled = std::all_of(part.begin(), part.end(),
                                   [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; });
  if (!spelled) return push(*spec_.unknown);
  for (const char byte : part) push(byte_ids_[static_cast<unsigned char>(byte)]);
}

void UnigramEncoder::encode(std::string_view piece, std::size_t offset, Workspace& workspace,
                            std::vector<Token>& out) const {
  find_best(piece, workspace.cuts);
  std::vector<Token>& parts = workspace.found;  // from the end on; neighbouring unknown characters are one
  parts.clear();
  for (std::size_t end = piece.size(); end > 0;) {
    const Workspace::Cut& cut = workspace.cuts[end];
    if (cut.id == kUnknown && !parts.empty() && parts.back().id == kUnknown) {
      parts.back().begin = cut.from;
    } else {
      parts.push_back({cut.id, cut.from, narrow(end)});
    }
    end = cut.from;
  }
  for (std::size_t i = parts.size(); i-- > 0;) {
    const Token& part = parts[i];
    if (part.id == kUnknown) {
      push_unknown(piece.substr(part.begin, part.end - part.begin), offset + part.begin, out);
    } else {
      out.push_back(
          {is_foreign(part.id) ? *spec_.unknown : part.id, narrow(offset + part.begin), narrow(offset + part.end)});
    }
  }
}

}  // namespace instruct::tokenizers
