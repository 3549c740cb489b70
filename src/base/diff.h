// What changed between two texts, for people to read.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace instruct {

struct Edit {
  enum class Kind : char { kSame = ' ', kRemoved = '-', kAdded = '+' };
  Kind kind = Kind::kSame;
  std::string_view piece;

  bool operator==(const Edit&) const = default;
};

// The shortest list of edits that makes `after` out of `before` (longest common subsequence); removed pieces stand
// before added ones. Where the changed parts are too long for that (their product above four million), everything
// between the common start and the common end is removed and added. Pieces point into the arguments.
std::vector<Edit> diff(std::span<const std::string_view> before, std::span<const std::string_view> after);

// Differences of two Jinja templates in the manner of a unified diff. Chat templates are often a single line of
// thousands of characters, so the pieces compared are lines that are broken after every tag and about every 120 bytes.
// Each group of changes has a head "@@ line L, column C @@" that says where it starts in `before`; one unchanged piece
// stands around it. A changed piece that ends a line shows it as U+23CE; control characters are shown as \xNN. At most
// `most_pieces` are printed, of each at most 240 bytes. Ends without a newline; empty if nothing differs.
std::string template_diff(std::string_view before, std::string_view after, std::size_t most_pieces = 60);

}  // namespace instruct
