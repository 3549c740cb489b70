// Classes of characters as the official tokenizers have them, and walking over UTF-8.
//
// The official library takes its classes from tables of Unicode 8, we take ours from utf8proc (Unicode 15): what came
// in between and falls into one of these classes is listed in characters.cc.
#pragma once

#include <cstdint>
#include <string_view>

namespace instruct::tokenizers {

// The character at the start of `text`, which is not empty; U+FFFD for invalid UTF-8. `length` becomes the number of
// its bytes.
char32_t first_character(std::string_view text, std::size_t& length);
// The same at the end.
char32_t last_character(std::string_view text, std::size_t& length);
bool is_ascii(std::string_view text);

// White_Space of Unicode.
bool is_space(char32_t c);
// \w of Unicode's regular expressions: letters, marks, decimal digits, connectors, joiners.
bool is_word(char32_t c);
// Categories N*.
bool is_digit(char32_t c);
// ASCII's, and categories P*.
bool is_punctuation(char32_t c);
// Categories Cc, Cf, Co but for tabulator and line ends.
bool is_control(char32_t c);
// Category Mn, as BertNormalizer's strip_accents takes away.
bool is_accent(char32_t c);
// Categories M*, as the normaliser StripAccents takes away.
bool is_mark(char32_t c);
// What the normaliser Nmt takes away, and what it makes a space.
bool is_removed_by_nmt(char32_t c);
bool is_space_to_nmt(char32_t c);
// What BERT takes for a Chinese character.
bool is_chinese(char32_t c);
// Full lower case of one character: up to two.
struct Lower {
  char32_t first;
  char32_t second = 0;  // of U+0130 alone
};
Lower to_lower(char32_t c);

}  // namespace instruct::tokenizers
