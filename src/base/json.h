// JSON text to Value and back.
#pragma once

#include <string>
#include <string_view>

#include "base/value.h"

namespace instruct {

// Parses one JSON document. `origin` names the source in errors ("rows.jsonl line 7"). Raises BadData with line,
// column and what was expected for malformed text, invalid UTF-8, a repeated key, or nesting deeper than 200.
Value parse_json(std::string_view text, std::string_view origin);

struct JsonStyle {
  int indent = -1;          // -1: one line; otherwise spaces per level
  bool ascii_only = false;  // escape everything outside ASCII
};

// Serialises a value. Floats print as the shortest text that reads back equal; NaN and infinities print as null.
// Invalid UTF-8 in strings is replaced by U+FFFD.
std::string dump_json(const Value& value, JsonStyle style = {});

}  // namespace instruct
