#include "instructions/yaml_source.h"

#include <gtest/gtest.h>

#include "base/yaml.h"

namespace instruct::instructions {
namespace {

// The characters of the file at a mark.
std::string at(const std::string& text, Mark mark) {
  std::size_t offset = 0;
  for (int line = 1; line < mark.line; ++line) offset = text.find('\n', offset) + 1;
  return text.substr(offset + static_cast<std::size_t>(mark.column) - 1, 2);
}

TEST(YamlSource, PlacesInsideValues) {
  const std::string text =
      "a: plain XY\nb: 'quoted XY'\nc: \"double XY\"\nd: |\n  first é\n    XY second\nlist: [\"in é XY\"]\n";
  const YamlSource source(text);
  const Value root = parse_yaml(text, "t");
  for (const char* key : {"a", "b", "c", "d", "list"}) {
    const Value& value = root.at(key).is_array() ? root.at(key).as_array()[0] : root.at(key);
    const std::string& content = value.as_string();
    const std::size_t offset = content.find("XY");
    const std::size_t line_start =
        content.rfind('\n', offset) == std::string::npos ? 0 : content.rfind('\n', offset) + 1;
    int column = 1;
    for (std::size_t i = line_start; i < offset; ++i)
      column += (static_cast<unsigned char>(content[i]) & 0xC0U) != 0x80U ? 1 : 0;
    EXPECT_EQ(at(text, source.inside_value(value.mark(), content, {line_start == 0 ? 1 : 2, column})), "XY") << key;
  }
}

TEST(YamlSource, EscapesAndFoldingFallBackToTheValue) {
  const std::string text = "a: \"x\\ny Z\"\nb: >\n  one\n  two Z\n";
  const YamlSource source(text);
  const Value root = parse_yaml(text, "t");
  const Mark a = source.inside_value(root.at("a").mark(), root.at("a").as_string(), {2, 3});
  EXPECT_EQ(a.line, 1);
  EXPECT_EQ(a.column, root.at("a").mark().column);
  const Mark b = source.inside_value(root.at("b").mark(), root.at("b").as_string(), {1, 9});
  EXPECT_EQ(b.line, root.at("b").mark().line);
  for (const Mark odd : {Mark{0, 0}, Mark{99, 1}, Mark{1, 999}, Mark{-1, -5}})
    source.inside_value(root.at("a").mark(), "other", odd);
  EXPECT_EQ(source.inside_value({50, 60}, "x", {1, 1}).line, 50);
}

TEST(YamlSource, KeysBeforeTheirValues) {
  const std::string text = "outer:\n  key:\n    - x\n  'other key': {key: 1, monkey: 2}\n";
  const YamlSource source(text);
  const Value root = parse_yaml(text, "t");
  const Value& outer = root.at("outer");
  EXPECT_EQ(at(text, source.key("key", outer.at("key").mark())), "ke");
  EXPECT_EQ(source.key("key", outer.at("key").mark()).line, 2);
  EXPECT_EQ(at(text, source.key("key", outer.at("other key").at("key").mark())), "ke");
  EXPECT_EQ(source.key("key", outer.at("other key").at("key").mark()).line, 4);
  EXPECT_EQ(source.key("other key", outer.at("other key").mark()).column, 4);
  EXPECT_EQ(source.key("absent", {2, 3}).line, 2);
}

TEST(YamlSource, SplitsLocatedMessages) {
  EXPECT_EQ(split_located_message("x y: line 3, column 14: what: so", "x y").second, "what: so");
  EXPECT_EQ(split_located_message("x y: line 3, column 14: what: so", "x y").first.column, 14);
  EXPECT_EQ(split_located_message("x y: no place", "x y").second, "no place");
  EXPECT_EQ(split_located_message("else", "x y").second, "else");
}

}  // namespace
}  // namespace instruct::instructions
