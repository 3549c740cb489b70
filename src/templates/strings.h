// Python's string operations on texts with origins. Internal to this folder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "templates/data.h"

namespace instruct::templates {

enum class Case { kLower, kUpper, kTitle, kCapitalise };
enum class Side { kLeft, kRight, kBoth };
using Charge = std::function<void(std::size_t)>;

// Byte ranges of the characters (code points; invalid bytes stand alone).
std::vector<std::pair<std::size_t, std::size_t>> characters(const Text& text);
Text change_case(const Text& text, Case wanted);
// Without the characters of `set` (white space when nullopt) at the given side.
Text strip(const Text& text, const std::optional<std::string>& set, Side side);
// At `separator`, or at runs of white space; at most `most` cuts when not negative, counted from `side`.
List split_text(const Text& text, const std::optional<std::string>& separator, std::int64_t most, Side side);
List split_lines(const Text& text);
Text replace(const Text& text, const std::string& from, const Text& to, std::int64_t most, const Charge& charge);
// "%s and %d" % values, and "{} {0} {name}".format(...).
Text format_percent(const Text& format, const List& values, const Dict* named, const Charge& charge);
Text format_braces(const Text& format, const Arguments& arguments, const Charge& charge);

}  // namespace instruct::templates
