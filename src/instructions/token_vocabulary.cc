#include "instructions/token_vocabulary.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/text.h"

namespace instruct::instructions {
namespace {

using Entries = std::vector<std::pair<std::string, std::int32_t>>;

// Depths in the trie have 16 bits.
constexpr std::size_t kLongest = UINT16_MAX;

bool is_plain(std::string_view bytes) {
  const bool characters = std::all_of(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\';
  });
  return characters && !find_invalid_utf8(bytes);
}

Entries without_plain(Entries entries) {
  std::erase_if(entries, [](const auto& entry) { return is_plain(entry.first); });
  return entries;
}

}  // namespace

void TokenMask::add(const TokenMask& other) {
  for (std::size_t i = 0; i < std::min(words_.size(), other.words_.size()); ++i) words_[i] |= other.words_[i];
}

std::int64_t TokenMask::count() const {
  std::int64_t total = 0;
  for (const std::uint64_t word : words_) total += std::popcount(word);
  return total;
}

void TokenMask::apply(std::span<float> logits) const {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!test(static_cast<std::int32_t>(i))) logits[i] = -std::numeric_limits<float>::infinity();
  }
}

std::vector<std::int32_t> TokenMask::tokens() const {
  std::vector<std::int32_t> result;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    for (std::uint64_t word = words_[i]; word != 0; word &= word - 1) {
      result.push_back(static_cast<std::int32_t>(i * 64) + std::countr_zero(word));
    }
  }
  return result;
}

TokenTrie::TokenTrie(Entries tokens) {
  std::erase_if(tokens, [](const auto& entry) { return entry.first.empty() || entry.first.size() > kLongest; });
  std::sort(tokens.begin(), tokens.end());
  std::vector<std::uint32_t> path;  // nodes from the root to the last token
  std::string_view last;
  const auto close_to = [&](std::size_t depth) {
    while (path.size() > depth) {
      nodes_[path.back()].next = static_cast<std::uint32_t>(nodes_.size());
      path.pop_back();
    }
  };
  for (const auto& [bytes, token] : tokens) {
    const auto shared = static_cast<std::size_t>(
        std::mismatch(bytes.begin(), bytes.end(), last.begin(), last.end()).first - bytes.begin());
    close_to(shared);
    for (std::size_t i = shared; i < bytes.size(); ++i) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      const auto at = static_cast<std::uint32_t>(tokens_.size());
      nodes_.push_back({.byte = static_cast<std::uint8_t>(bytes[i]),
                        .depth = static_cast<std::uint16_t>(i + 1),
                        .first_token = at,
                        .last_token = at});
    }
    nodes_[path.back()].last_token = static_cast<std::uint32_t>(tokens_.size()) + 1;
    tokens_.push_back(token);
    depth_ = std::max(depth_, bytes.size());
    last = bytes;
  }
  close_to(0);
}

Entries TokenVocabulary::entries(const tokenizers::Tokenizer& tokenizer) {
  Entries result;
  const std::vector<std::int32_t>& ends = tokenizer.end_of_generation();
  for (std::int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    const bool end = std::find(ends.begin(), ends.end(), id) != ends.end();
    if (!tokenizer.is_special(id) && !end) result.emplace_back(tokenizer.token_bytes(id), id);
  }
  return result;
}

TokenVocabulary::TokenVocabulary(const tokenizers::Tokenizer& tokenizer)
    : tokenizer_(tokenizer),
      all_(entries(tokenizer)),
      not_plain_(without_plain(entries(tokenizer))),
      plain_mask_(tokenizer.vocabulary_size()) {
  for (const auto& [bytes, token] : entries(tokenizer)) {
    if (bytes.empty() || !is_plain(bytes)) continue;
    plain_.push_back({token, static_cast<std::int32_t>(decode_utf8(bytes).size())});
    plain_mask_.set(token);
  }
  std::stable_sort(plain_.begin(), plain_.end(),
                   [](const Plain& a, const Plain& b) { return a.characters < b.characters; });
}

void TokenVocabulary::add_plain(std::int64_t characters, TokenMask& mask) const {
  if (plain_.empty() || characters <= 0) return;
  if (plain_.back().characters <= characters) {
    mask.add(plain_mask_);
    return;
  }
  for (const Plain& plain : plain_) {
    if (plain.characters > characters) break;
    mask.set(plain.token);
  }
}

}  // namespace instruct::instructions
