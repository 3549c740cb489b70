// Small text helpers that several layers need: UTF-8, splitting, and "did you mean".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace instruct {

// Byte offset of the first byte that is not valid UTF-8 (overlong forms and surrogates are invalid), or nullopt.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

// Replaces every maximal invalid part by U+FFFD, as the WHATWG decoder (and Python's errors="replace") does.
std::string repair_utf8(std::string_view text);

// Code points of valid UTF-8; invalid parts become U+FFFD.
std::u32string decode_utf8(std::string_view text);
// Appends one code point as UTF-8.
void append_utf8(std::string& text, char32_t code_point);
std::string encode_utf8(std::u32string_view text);

// Number of bytes at the end of `text` that start a UTF-8 character without finishing it (0 to 3). A streaming
// printer holds them back.
std::size_t incomplete_utf8_tail(std::string_view text);

std::vector<std::string_view> split(std::string_view text, char separator);
// Without ASCII white space at both ends.
std::string_view trim(std::string_view text);
std::string to_lower_ascii(std::string_view text);

// Edit distance (Levenshtein, bytes).
std::size_t edit_distance(std::string_view a, std::string_view b);
// The candidate nearest to `name`, when it is near enough to be a likely slip; else nullopt.
std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string> candidates);
// "; did you mean 'X'?" or, when nothing is near, "; known: a, b, c" (cut after a dozen), for the end of an error.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

}  // namespace instruct
