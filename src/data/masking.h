// What a masked language model learns from: tokens left out of a text, to be found again (Devlin et al., "BERT", 2019).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/text_rows.h"

namespace instruct::data {

struct MaskingOptions {
  double rate = 0.15;        // of tokens that are chosen
  bool whole_words = false;  // chosen by words, with all of their tokens
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
};

// The texts with tokens chosen, each on its own, at least one a text: 80% of them become the mask, 10% any token of the
// vocabulary, 10% stay. They are the parts; what they were is the truth. Which, follows from seed, epoch and the text's
// place in the list. `mask`: the mask's token. Special tokens around a text are never chosen.
std::vector<TextRow> masked_rows(std::span<const TextRow> texts, const MaskingOptions& options, std::int32_t mask,
                                 std::int64_t vocabulary);

}  // namespace instruct::data
