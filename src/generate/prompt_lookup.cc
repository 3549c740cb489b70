#include "generate/prompt_lookup.h"

#include <algorithm>

namespace instruct::generate {
namespace {

constexpr std::size_t kShortestMatch = 2;  // single tokens occur again too often to say what follows
constexpr std::size_t kLongestMatch = 16;  // nothing is gained by looking for more

// How many tokens before `end` are the same as at the end of the text.
std::size_t match_length(std::span<const std::int32_t> text, std::size_t end) {
  const std::size_t most = std::min(end, kLongestMatch);
  std::size_t length = 0;
  while (length < most && text[end - 1 - length] == text[text.size() - 1 - length]) ++length;
  return length;
}

}  // namespace

std::vector<std::int32_t> look_up(std::span<const std::int32_t> text, std::int64_t most) {
  std::size_t best = 0;
  std::size_t longest = kShortestMatch - 1;
  for (std::size_t end = text.size(); end-- > kShortestMatch && longest < kLongestMatch;) {
    const std::size_t length = match_length(text, end);
    if (length <= longest) continue;
    longest = length;
    best = end;
  }
  std::vector<std::int32_t> proposal;
  if (best == 0) return proposal;
  const std::size_t period = text.size() - best;
  for (std::size_t i = 0; static_cast<std::int64_t>(i) < most; ++i) proposal.push_back(text[best + i % period]);
  return proposal;
}

bool write_verified(Writer& writer, std::span<const std::int32_t> proposal, tensor::Tensor logits,
                    std::int64_t vocabulary, LookupCounts& counts) {
  counts.proposed += static_cast<std::int64_t>(proposal.size());
  for (std::size_t row = 0;; ++row) {
    float* scores = logits.data<float>() + static_cast<std::int64_t>(row) * logits.dim(1);
    if (!writer.step({scores, static_cast<std::size_t>(vocabulary)})) return false;
    if (row == proposal.size() || writer.answer().tokens.back() != proposal[row]) return true;
    ++counts.accepted;
  }
}

}  // namespace instruct::generate
