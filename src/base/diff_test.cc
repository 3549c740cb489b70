// Edits are right (both texts can be built from them), shortest, and readable.
#include "base/diff.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"

namespace instruct {
namespace {

using Pieces = std::vector<std::string_view>;

Pieces side(const std::vector<Edit>& edits, Edit::Kind kind) {
  Pieces pieces;
  for (const Edit& edit : edits) {
    if (edit.kind == kind || edit.kind == Edit::Kind::kSame) pieces.push_back(edit.piece);
  }
  return pieces;
}

std::size_t count(const std::vector<Edit>& edits, Edit::Kind kind) {
  return static_cast<std::size_t>(
      std::count_if(edits.begin(), edits.end(), [&](const Edit& edit) { return edit.kind == kind; }));
}

// The longest common subsequence by trying every subset of `a`.
std::size_t longest_common(const Pieces& a, const Pieces& b) {
  std::size_t best = 0;
  for (std::size_t chosen = 0; chosen < (std::size_t{1} << a.size()); ++chosen) {
    std::size_t at = 0;
    std::size_t length = 0;
    bool fits = true;
    for (std::size_t i = 0; i < a.size() && fits; ++i) {
      if ((chosen >> i & 1) == 0) continue;
      while (at < b.size() && b[at] != a[i]) ++at;
      fits = at++ < b.size();
      ++length;
    }
    if (fits) best = std::max(best, length);
  }
  return best;
}

TEST(Diff, GivesBothTextsAndIsShortest) {
  const Pieces alphabet = {"a", "b", "c"};
  RandomStream random(7, RandomPurpose::kTest);
  for (int round = 0; round < 300; ++round) {
    Pieces before(random.next_below(9));
    Pieces after(random.next_below(9));
    for (auto& piece : before) piece = alphabet[random.next_below(3)];
    for (auto& piece : after) piece = alphabet[random.next_below(3)];
    const std::vector<Edit> edits = diff(before, after);
    ASSERT_EQ(side(edits, Edit::Kind::kRemoved), before);
    ASSERT_EQ(side(edits, Edit::Kind::kAdded), after);
    ASSERT_EQ(count(edits, Edit::Kind::kSame), longest_common(before, after));
  }
}

TEST(Diff, StaysBoundedOnLongTexts) {
  const Pieces before(5000, "x");
  Pieces after(5000, "y");
  after.front() = after[2500] = after.back() = "x";
  const std::vector<Edit> edits = diff(before, after);
  EXPECT_EQ(side(edits, Edit::Kind::kRemoved), before);
  EXPECT_EQ(side(edits, Edit::Kind::kAdded), after);
  EXPECT_EQ(count(edits, Edit::Kind::kSame), 2);  // only the ends: what lies between was not compared
}

TEST(TemplateDiff, ShowsEveryChangeWithItsPlace) {
  EXPECT_EQ(template_diff("a\nb{{ x }}\nc\nd\ne\nf", "a\nb{{ y }}\nc\nd\ne\n"),
            "@@ line 1, column 1 @@\n a\n-b{{ x }}⏎\n+b{{ y }}⏎\n c\n@@ line 5, column 1 @@\n e\n-f");
  EXPECT_EQ(template_diff("same", "same"), "");
}

TEST(TemplateDiff, BreaksALongLineAfterTags) {
  const std::string start = "{% for m in messages %}é{{ m.role }}";
  EXPECT_EQ(template_diff(start + "{{ m.content }}{% endfor %}", start + "{{ m.content|trim }}{% endfor %}"),
            "@@ line 1, column 24 @@\n é{{ m.role }}\n-{{ m.content }}\n+{{ m.content|trim }}\n {% endfor %}");
}

TEST(TemplateDiff, ShowsLineEndsThatDiffer) {
  EXPECT_EQ(template_diff("a", "a\n"), "@@ line 1, column 1 @@\n-a\n+a⏎");
  EXPECT_EQ(template_diff("{{ x }}\n{{ y }}", "{{ x }}{{ y }}"),
            "@@ line 1, column 1 @@\n-{{ x }}⏎\n+{{ x }}\n {{ y }}");
}

TEST(TemplateDiff, ShowsOnlyWhatStandsAroundAPlaceInALongLine) {
  const std::string same(3000, 'x');
  EXPECT_EQ(template_diff(same + "é" + same, same + "è" + same),
            "@@ line 1, column 2881 @@\n " + std::string(120, 'x') + "\n-é" + std::string(118, 'x') + "\n+è" +
                std::string(118, 'x') + "\n " + std::string(120, 'x'));
  const std::string many(200'000, '\n');
  EXPECT_LT(template_diff(many + same, many + "y" + same).size(),
            2000);  // two pieces of 240 bytes, four characters each
}

TEST(TemplateDiff, IsHarmlessToATerminalAndBounded) {
  EXPECT_EQ(template_diff("\x1b[2J\xc2\x9b", "\xff"), "@@ line 1, column 1 @@\n-\\x1b[2J\\x9b\n+\xEF\xBF\xBD");
  EXPECT_EQ(template_diff("a\nb\nc\n", "d\n", 2), "@@ line 1, column 1 @@\n-a⏎\n-b⏎\n... and 2 more changed pieces");
}

}  // namespace
}  // namespace instruct
