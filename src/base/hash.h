// SHA-256, for fingerprints of files, templates and data.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace instruct {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);
// Of a file's content, read piece by piece. Raises what opening a file raises.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace instruct
