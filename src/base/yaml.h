// YAML text to Value, with the line and column of every node kept in its mark.
#pragma once

#include <string_view>

#include "base/value.h"

namespace instruct {

// Parses one YAML document with the core schema (plain `true`, `12`, `1e-4`, `null` get their types; quoted text stays
// text). Raises BadData with `origin`, line and column for malformed text, a repeated key, a key that is no scalar,
// nesting deeper than 200, or aliases that would expand past 1,000,000 nodes.
Value parse_yaml(std::string_view text, std::string_view origin);

}  // namespace instruct
