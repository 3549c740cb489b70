// Prompt lookup decoding (Saxena, 2023), speculative decoding without a second model: what an answer seems to copy from
// its prompt, or from itself, is proposed from there, and one pass computes the model's own choice behind every
// proposed token. Answers are the ones that single steps give, whatever chooses the tokens: a proposal counts only as
// far as the writer chooses the same.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "generate/writer.h"
#include "tensor/tensor.h"

namespace instruct::generate {

struct LookupCounts {
  std::int64_t steps = 0;     // passes behind the prompt, counted for each answer in them
  std::int64_t proposed = 0;  // tokens
  std::int64_t accepted = 0;  // of the proposed ones, those that the model chose too
  void operator+=(const LookupCounts& more) {
    steps += more.steps;
    proposed += more.proposed;
    accepted += more.accepted;
  }
  double tokens_per_step() const {
    return steps == 0 ? 1.0 : 1.0 + static_cast<double>(accepted) / static_cast<double>(steps);
  }
};

// Up to `most` tokens that may follow `text`: those that followed the place before that ends like it, with the longest
// n-gram the same, the latest of several. Where that place is so near that its continuation reaches the end of the
// text, the continuation repeats. Empty when no bigram occurs again.
std::vector<std::int32_t> look_up(std::span<const std::int32_t> text, std::int64_t most);

// Lets the writer choose from rows of logits [1 + proposal, V], one behind the other for as long as it chooses what was
// proposed; false when the answer is complete. Only the first `vocabulary` columns belong to tokens.
bool write_verified(Writer& writer, std::span<const std::int32_t> proposal, tensor::Tensor logits,
                    std::int64_t vocabulary, LookupCounts& counts);

}  // namespace instruct::generate
