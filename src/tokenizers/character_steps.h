// Steps of normalisation that look at one character at a time.
#pragma once

#include <cstdint>

#include "tokenizers/aligned_text.h"

namespace instruct::tokenizers {

// All take valid UTF-8 and change it in place.
void lowercase(AlignedText& text);
void strip_accents(AlignedText& text);
void nmt(AlignedText& text);
// White space at the ends goes.
enum class Ends : std::uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };
void strip(AlignedText& text, Ends ends);
// BertNormalizer's clean_text: control characters, U+0000 and U+FFFD go, white space becomes a space.
void bert_clean(AlignedText& text);
// BertNormalizer's handle_chinese_chars: a space on both sides of each.
void bert_chinese(AlignedText& text);
// The second half of BertNormalizer's strip_accents, behind NFD.
void bert_accents(AlignedText& text);

}  // namespace instruct::tokenizers
