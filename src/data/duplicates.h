// Texts that are equal or nearly equal, within one set and between two.
//
// Nearly: the share of common 9-character pieces (Jaccard) is at least 0.8 after folding case and white space.
// Candidates come from one-permutation min-hashing with rotation for empty bins (Li, Owen and Zhang 2012; Shrivastava
// and Li 2014), 64 bins in 16 bands of 4, so that texts at 0.8 meet with probability 1 - (1 - 0.8^4)^16 = 0.9998; each
// candidate is then compared exactly.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace instruct::data {

struct Duplicate {
  std::size_t index = 0;  // the later text
  std::size_t of = 0;     // the first one that is (nearly) the same
  double similarity = 1;  // 1: equal after folding
};

// ASCII letters in lower case, runs of white space as one space, none at the ends.
std::string folded(std::string_view text);

// Duplicates of each text among those before it, in order of `index`; at most one a text.
std::vector<Duplicate> find_duplicates(std::span<const std::string> texts, double threshold = 0.8);

// For texts of `held_out`, (nearly) the same text in `training`: `index` counts in held_out, `of` in training.
std::vector<Duplicate> find_overlap(std::span<const std::string> training, std::span<const std::string> held_out,
                                    double threshold = 0.8);

}  // namespace instruct::data
