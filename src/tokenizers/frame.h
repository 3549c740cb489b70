#pragma once

#include <vector>

#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// The input of `texts` (1 or 2) texts, in order: what the spec says, else bos and eos around each text as its flags
// say, the second one of type 1.
std::vector<FramePart> frame_of(const TokenizerSpec& spec, std::int32_t texts);

}  // namespace instruct::tokenizers
