// Changing text before it is cut and encoded.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tokenizers/aligned_text.h"
#include "tokenizers/charsmap.h"
#include "tokenizers/pattern.h"
#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// Replaces every maximal invalid part of UTF-8 by U+FFFD.
void repair(AlignedText& text);

class Normaliser {
 public:
  // Raises as Pattern and Charsmap do; `origin` is for their messages.
  Normaliser(const std::vector<NormaliserStep>& steps, const std::string& origin);
  bool empty() const { return steps_.empty(); }
  // Applies the steps, in order, to valid UTF-8.
  void apply(AlignedText& text) const;

 private:
  struct Step {
    NormaliserStep step;
    std::string literal;             // kReplace of a fixed text
    std::optional<Pattern> pattern;  // kReplace of any other
    std::shared_ptr<const Charsmap> charsmap;
  };
  std::vector<Step> steps_;
};

}  // namespace instruct::tokenizers
