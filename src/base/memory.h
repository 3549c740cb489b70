// Memory of this process and this machine, as the system tells it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace instruct {

// Bytes of this process that are in memory now, and at most so far.
std::int64_t resident_bytes();
std::int64_t peak_resident_bytes();

// What this process may use at the most: the machine's memory and swap, or the limit of its control group where that is
// lower.
std::int64_t machine_bytes();
// How much more it may use before the system runs short: an estimate, which other processes change.
std::int64_t available_bytes();

// "1.5G", "1.5GB" (powers of 1,000), "1.5GiB", "1.5Gi" (powers of 1,024), the same with K, M or T, and bytes without a
// letter; case does not matter. nullopt for anything else, and for what is not above 0.
std::optional<std::int64_t> bytes_from_text(std::string_view text);

}  // namespace instruct
