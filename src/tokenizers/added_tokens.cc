#include "tokenizers/added_tokens.h"

#include <algorithm>
#include <functional>

#include "tokenizers/characters.h"

namespace instruct::tokenizers {
namespace {

std::vector<std::string> texts_of(const std::vector<AddedTokens::Entry>& entries) {
  std::vector<std::string> texts;
  for (const auto& entry : entries) texts.push_back(entry.text);
  return texts;
}

bool inside_word(std::string_view before, std::string_view after) {
  std::size_t length = 0;
  return (!before.empty() && is_word(last_character(before, length))) ||
         (!after.empty() && is_word(first_character(after, length)));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<Entry> entries)
    : entries_(std::move(entries)), texts_(texts_of(entries_)), by_text_(texts_, texts_.size()) {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (texts_[i].empty() || by_text_.insert(static_cast<std::int32_t>(i)) >= 0) continue;
    only_special_ = only_special_ && entries_[i].special;
    lengths_[static_cast<unsigned char>(texts_[i][0])].push_back(texts_[i].size());
  }
  for (std::vector<std::size_t>& lengths : lengths_) {
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

std::optional<std::int32_t> AddedTokens::id_of(std::string_view text) const {
  const std::int32_t entry = by_text_.find(text);
  return entry < 0 ? std::nullopt : std::optional(entries_[static_cast<std::size_t>(entry)].rule.id);
}

const AddedTokens::Entry* AddedTokens::longest_at(std::string_view text, std::size_t at,
                                                  std::size_t special_end) const {
  for (const std::size_t length : lengths_[static_cast<unsigned char>(text[at])]) {
    if (length > text.size() - at) continue;
    const std::int32_t found = by_text_.find(text.substr(at, length));
    if (found < 0) continue;
    const Entry& entry = entries_[static_cast<std::size_t>(found)];
    if (!entry.special || at + length <= special_end) return &entry;
  }
  return nullptr;
}

std::vector<AddedTokens::Match> AddedTokens::find(std::string_view text,
                                                  std::span<const TextRange> special_ranges) const {
  std::vector<Match> matches;
  std::size_t done = 0;
  std::size_t range = 0;
  for (std::size_t at = 0; at < text.size();) {
    while (range < special_ranges.size() && special_ranges[range].end <= at) ++range;
    const std::size_t special_begin = range < special_ranges.size() ? special_ranges[range].begin : text.size();
    if (only_special_ && at < special_begin) {
      at = special_begin;
      continue;
    }
    const std::size_t special_end = at >= special_begin ? std::min(special_ranges[range].end, text.size()) : 0;
    const Entry* entry = longest_at(text, at, special_end);
    if (entry == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + entry->text.size();
    at = end;
    if (entry->rule.single_word && inside_word(text.substr(0, begin), text.substr(end))) continue;
    std::size_t length = 0;
    while (entry->rule.strip_left && begin > done && is_space(last_character(text.substr(done, begin - done), length)))
      begin -= length;
    while (entry->rule.strip_right && end < text.size() && is_space(first_character(text.substr(end), length)))
      end += length;
    matches.push_back({entry->rule.id, begin, end});
    done = at = end;
  }
  return matches;
}

}  // namespace instruct::tokenizers
