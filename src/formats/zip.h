// The entries of a ZIP archive that are stored without compression, where they lie.
#pragma once

#include <map>
#include <span>
#include <string>

namespace instruct::formats {

// By name. Raises BadData, naming `origin` and a byte, for what is no archive or is cut off; entries that are
// compressed or encrypted are Unsupported.
std::map<std::string, std::span<const std::byte>> zip_entries(std::span<const std::byte> archive,
                                                              const std::string& origin);

}  // namespace instruct::formats
