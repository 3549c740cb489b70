// Cutting text into pieces by regular expressions, before merging.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {

class Splitter {
 public:
  // Raises BadData when a pattern does not compile (with the place in it) or may not be used.
  explicit Splitter(const std::vector<SplitStep>& steps);
  ~Splitter();
  Splitter(Splitter&&) noexcept;

  // Pieces of valid UTF-8 text, in order, covering it. Raises BadData when a pattern gives up on the text (match
  // limit).
  std::vector<TextRange> split(std::string_view text) const;

 private:
  struct Pattern;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace instruct::tokenizers
