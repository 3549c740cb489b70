// CSV as in RFC 4180: quoted fields may hold separators, line ends and doubled quotes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace instruct::data {

// Rows as objects named by the header line; values are texts. Raises BadData with line for an unclosed quote or a row
// of another width.
std::vector<Value> parse_csv(std::string_view text, const std::string& origin);

}  // namespace instruct::data
