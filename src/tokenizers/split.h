// Cutting text into pieces before merging.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/pattern.h"
#include "tokenizers/spec.h"

namespace instruct::tokenizers {

class Splitter {
 public:
  // Raises as Pattern does.
  explicit Splitter(const std::vector<SplitStep>& steps);

  // Pieces of valid UTF-8 text, in order; they cover it but for what steps remove. Raises BadData when a pattern gives
  // up on the text.
  std::vector<TextRange> split(std::string_view text) const;

 private:
  struct Step {
    std::optional<Pattern> pattern;
    std::string literal;  // for a pattern that is one
    SplitMatch match;
    SplitBehaviour behaviour;
    bool invert;
  };
  std::vector<Step> steps_;
};

}  // namespace instruct::tokenizers
