// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby's dialect) and run on PCRE2: what the
// two read differently is translated, or refused where that is not possible.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tokenizers/spec.h"

namespace instruct::tokenizers {

class Pattern {
 public:
  // Raises BadData when it does not compile (with the place in it), Unsupported for what PCRE2 reads differently.
  explicit Pattern(std::string source);
  ~Pattern();
  Pattern(Pattern&&) noexcept;

  // A walk over the matches in one text, valid UTF-8, which must stay.
  class Matches {
   public:
    Matches(const Pattern& pattern, std::string_view text);
    ~Matches();
    Matches(const Matches&) = delete;
    Matches& operator=(const Matches&) = delete;
    // The next match, in order; an empty one never at the end of the one before. Raises BadData when the pattern gives
    // up on the text (match limit).
    std::optional<TextRange> next();
    // Starts over with another text.
    void reset(std::string_view text);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

// A pattern that matches exactly `text`.
std::string quote_pattern(std::string_view text);
// The text that a pattern without operators matches; nullopt for any other.
std::optional<std::string> literal_of_pattern(std::string_view pattern);

}  // namespace instruct::tokenizers
