// Python's string operations on texts with origins. Internal to this folder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "templates/data.h"

namespace instruct::templates {

// kTitle is str.title(): a word starts after anything but a letter; kWords the filter's: after blanks, - ( { [ <.
enum class Case { kLower, kUpper, kTitle, kWords, kCapitalise };
enum class Side { kLeft, kRight, kBoth };
using Charge = std::function<void(std::size_t)>;

// Byte ranges of the characters (code points; invalid bytes stand alone).
std::vector<std::pair<std::size_t, std::size_t>> characters(const Text& text);
// What str.isspace, isalpha and isdigit say (of digits: those that write decimal numbers).
bool is_space(char32_t code);
bool is_letter(char32_t code);
bool is_digit(char32_t code);
// False for controls, unassigned characters, and spaces other than the plain one.
bool is_printable(char32_t code);
Text change_case(const Text& text, Case wanted);
// Whether all letters that have a case are in this one, and there is at least one.
bool is_case(const Text& text, Case wanted);
// Without the characters of `set` (white space when nullopt) at the given side.
Text strip(const Text& text, const std::optional<std::string>& set, Side side);
// At `separator`, or at runs of white space; at most `most` cuts when not negative, counted from `side`.
List split_text(const Text& text, const std::optional<std::string>& separator, std::int64_t most, Side side);
List split_lines(const Text& text, bool keep_ends = false);
Text replace(const Text& text, const std::string& from, const Text& to, std::int64_t most, const Charge& charge);
// & < > " ' as HTML has them; a safe text stays. The result is safe.
Text escape_html(const Text& text, const Charge& charge);
// "%s and %d" % values, and "{} {0} {name}".format(...).
Text format_percent(const Text& format, const List& values, const Dict* named, const Charge& charge);
Text format_braces(const Text& format, const Arguments& arguments, const Charge& charge);

}  // namespace instruct::templates
