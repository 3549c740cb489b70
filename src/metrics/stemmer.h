// The Porter stemmer (Porter, "An algorithm for suffix stripping", 1980) in the variant rouge-score uses.
#pragma once

#include <string>
#include <string_view>

namespace instruct::metrics {

// Stem of a lower-case ASCII word, as nltk's PorterStemmer in its default mode.
std::string porter_stem(std::string_view word);

}  // namespace instruct::metrics
