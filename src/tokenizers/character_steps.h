// Steps of normalisation that look at one character at a time.
#pragma once

#include "tokenizers/aligned_text.h"

namespace instruct::tokenizers {

// All take valid UTF-8 and change it in place.
void lowercase(AlignedText& text);
// BertNormalizer's clean_text: control characters, U+0000 and U+FFFD go, white space becomes a space.
void bert_clean(AlignedText& text);
// BertNormalizer's handle_chinese_chars: a space on both sides of each.
void bert_chinese(AlignedText& text);
// The second half of BertNormalizer's strip_accents, behind NFD.
void bert_accents(AlignedText& text);

}  // namespace instruct::tokenizers
