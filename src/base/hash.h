// SHA-256, for fingerprints of files, templates and data.
#pragma once

#include <string>
#include <string_view>

namespace instruct {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace instruct
