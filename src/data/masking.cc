#include "data/masking.h"

#include <algorithm>

#include "base/random.h"

namespace instruct::data {
namespace {

// Groups of tokens that are chosen together.
std::vector<tensor::KeyRange> groups_of(const TextRow& text, bool whole_words) {
  if (whole_words) return text.parts;
  std::vector<tensor::KeyRange> tokens;
  for (const tensor::KeyRange& word : text.parts) {
    for (std::int64_t i = word.begin; i < word.end; ++i) tokens.push_back({i, i + 1});
  }
  return tokens;
}

}  // namespace

std::vector<TextRow> masked_rows(std::span<const TextRow> texts, const MaskingOptions& options, std::int32_t mask,
                                 std::int64_t vocabulary) {
  constexpr int kRowBits = 40;
  std::vector<TextRow> rows(texts.begin(), texts.end());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    TextRow& row = rows[i];
    RandomStream random(options.seed, RandomPurpose::kMask, static_cast<std::uint64_t>(options.epoch) << kRowBits | i);
    const std::vector<tensor::KeyRange> groups = groups_of(row, options.whole_words);
    std::vector<tensor::KeyRange> chosen;
    for (const tensor::KeyRange& group : groups) {
      if (random.next_uniform() < options.rate) chosen.push_back(group);
    }
    if (chosen.empty()) chosen.push_back(groups[random.next_below(groups.size())]);
    row.parts.clear();
    for (const tensor::KeyRange& group : chosen) {
      for (std::int64_t at = group.begin; at < group.end; ++at) {
        std::int32_t& token = row.tokens[static_cast<std::size_t>(at)];
        row.parts.push_back({at, at + 1});
        row.truth.push_back(static_cast<float>(token));
        const double fate = random.next_uniform();
        if (fate < 0.8) {
          token = mask;
        } else if (fate < 0.9) {
          token = static_cast<std::int32_t>(random.next_below(static_cast<std::uint64_t>(vocabulary)));
        }
      }
    }
  }
  return rows;
}

}  // namespace instruct::data
