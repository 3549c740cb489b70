// SentencePiece's "precompiled charsmap": which short sequences of characters a normaliser replaces by which.
//
// The bytes are a little-endian u32 (the size of the trie in bytes), the trie, and the replacements, each ended by a
// zero. The trie is a double array of u32 as Darts-clone stores it (Yata et al., "A compact static double-array keeping
// character codes", 2007): a unit has the byte that leads to it (bits 0 to 7; bit 31 is set in values), whether a value
// follows (bit 8), and the distance to its children (bits 10 to 30, times 256 if bit 9 is set). The bytes come from a
// file: every step is checked.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/aligned_text.h"

namespace instruct::tokenizers {

class Charsmap {
 public:
  // Raises BadData naming `origin` when the bytes are no charsmap.
  Charsmap(std::string_view bytes, const std::string& origin);

  // Normalises valid UTF-8 as the official tokenizers do: a cluster of characters that one sees as one is replaced as a
  // whole when it is shorter than six bytes, else each of its characters alone.
  void apply(AlignedText& text) const;
  // As SentencePiece does: at each place the longest sequence that is in the table.
  void apply_longest(AlignedText& text) const;

 private:
  struct Match {
    std::size_t length = 0;
    std::string_view put;
  };
  // The shortest or the longest sequence that `text` begins with, and what it becomes.
  enum class Wanted : std::uint8_t { kShortest, kLongest };
  std::optional<Match> find(std::string_view text, Wanted wanted) const;
  // What the shortest sequence that `text` begins with becomes.
  std::optional<std::string_view> replacement(std::string_view text) const;
  void replace_cluster(std::string_view cluster, std::size_t at, AlignedText::Writer& writer) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
  std::array<bool, 128> stays_{};  // ASCII that is not replaced
};

}  // namespace instruct::tokenizers
