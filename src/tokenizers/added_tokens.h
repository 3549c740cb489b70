// Finding whole tokens in text before anything else is done with it: special and user-defined ones.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/spec.h"
#include "tokenizers/tables.h"

namespace instruct::tokenizers {

class AddedTokens {
 public:
  struct Entry {
    std::string text;
    MatchRule rule;
    bool special = false;
  };
  // Of entries with the same text the first counts.
  explicit AddedTokens(std::vector<Entry> entries);
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  struct Match {
    std::int32_t id;
    std::size_t begin, end;
  };
  // All matches from left to right, the longest at each place; special ones only where they lie wholly inside one of
  // `special_ranges` (in order, not overlapping).
  std::vector<Match> find(std::string_view text, std::span<const TextRange> special_ranges) const;
  // The token spelled so.
  std::optional<std::int32_t> id_of(std::string_view text) const;

 private:
  const Entry* longest_at(std::string_view text, std::size_t at, std::size_t special_end) const;

  std::vector<Entry> entries_;
  std::vector<std::string> texts_;  // of the entries
  TextTable by_text_;
  std::array<std::vector<std::size_t>, 256> lengths_;  // of the texts, by first byte, longest first
  bool only_special_ = true;
};

}  // namespace instruct::tokenizers
