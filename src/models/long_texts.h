// Longrope has other frequencies for texts that are longer than the context a model was first trained with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/segments.h"

namespace instruct::models {

// Where a text's keys lie: among the tokens of the pass, or in a cache.
enum class Keys : std::uint8_t { kOfPass, kCached };

// Which tokens [T] belong to a text that goes past `context` tokens: those of its segment, and without a cache those of
// every segment that shares keys with it, so that the texts of a tree agree. Texts beside it do not matter.
std::vector<bool> tokens_of_long_texts(const tensor::AttentionPlan& plan, std::span<const std::int32_t> positions,
                                       double context, Keys keys);

}  // namespace instruct::models
