// Edge cases of JSON and YAML: what is refused, where the error points, and what is bounded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/yaml.h"

namespace instruct {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename Parse>
std::string refusal(Parse parse, const std::string& text) {
  try {
    parse(text, "f");
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), ErrorCategory::kBadData) << text;
    return error.what();
  }
  return "accepted";
}
std::string json_refusal(const std::string& text) {
  return refusal(parse_json, text);
}
std::string yaml_refusal(const std::string& text) {
  return refusal(parse_yaml, text);
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(JsonDocument, ErrorsPointAtTheirPlace) {
  EXPECT_THAT(json_refusal("{\"a\": 1,\n  \"a\": 2}"), StartsWith("f: line 2, column 5: key 'a' appears twice"));
  EXPECT_THAT(json_refusal("[1,\n2,\n}"), StartsWith("f: line 3, column 1: malformed JSON: syntax error"));
  EXPECT_THAT(json_refusal("[1] x"), StartsWith("f: line 1, column 5: malformed JSON"));
  EXPECT_THAT(json_refusal("[1e999]"), HasSubstr("malformed JSON: number overflow"));
  EXPECT_THAT(json_refusal("\n\n\"ab\xC0\""), StartsWith("f: line 3, column 4: invalid UTF-8 at byte 5"));
}

TEST(JsonDocument, WhatTheGrammarForbidsIsRefused) {
  for (const char* text :
       {"",   " ",   "{",        "[1,]",        "{\"a\"}", "{a: 1}", "'a'", "01",      "+1",    ".5",
        "1.", "NaN", "Infinity", "\"\\ud800\"", "\"\t\"",  "\"abc",  "tru", "// c\n1", "[1 2]", "\"\\x41\""}) {
    EXPECT_NE(json_refusal(text), "accepted") << text;
  }
}

TEST(JsonDocument, NumbersKeepTheirValue) {
  EXPECT_EQ(parse_json("9223372036854775807", "f").as_integer(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse_json("-9223372036854775808", "f").as_integer(), std::numeric_limits<std::int64_t>::min());
  EXPECT_FALSE(parse_json("9223372036854775808", "f").is_integer());
  EXPECT_DOUBLE_EQ(parse_json("-9223372036854775809", "f").as_double(), -9223372036854775809.0);
  EXPECT_FALSE(parse_json("1.0", "f").is_integer());
  for (const double value : {5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2, 1e21, 123456789012345680.0}) {
    EXPECT_EQ(parse_json(dump_json(Value(value)), "f").as_double(), value);
  }
  EXPECT_EQ(dump_json(Value(std::numeric_limits<double>::infinity())), "null");
}

TEST(JsonDocument, NestingIsBounded) {
  EXPECT_EQ(json_refusal(repeated("[", 200) + repeated("]", 200)), "accepted");
  EXPECT_THAT(json_refusal(repeated("[", 201) + repeated("]", 201)),
              HasSubstr("column 201: JSON nested deeper than 200"));
  EXPECT_THAT(json_refusal(repeated("{\"a\":", 100'000)), HasSubstr("nested deeper"));
}

TEST(JsonDocument, ObjectsKeepTheirOrderAndText) {
  const std::string text = R"({"z": 1, "a": [], "m": {}, "": null})";
  EXPECT_EQ(dump_json(parse_json(text, "f")), text);
  EXPECT_EQ(dump_json(parse_json(text, "f"), {.indent = 2}),
            "{\n  \"z\": 1,\n  \"a\": [],\n  \"m\": {},\n  \"\": null\n}");
  EXPECT_EQ(dump_json(Value(std::string("\x01\x7f\xff\0", 4))), "\"\\u0001\x7f\xEF\xBF\xBD\\u0000\"");
}

TEST(YamlDocument, PlainTextIsTypedByTheCoreSchemaOnly) {
  const auto kind = [](const std::string& text) { return kind_name(parse_yaml(text, "f").kind()); };
  for (const char* text : {"yes", "no", "on", "off", "y", "2026-11-24", "1_000", "0x1g", "1.2.3", "+-1", "e5", "'12'",
                           "\"true\"", "!!str 12", "1e999"}) {
    EXPECT_EQ(kind(text), "string") << text;
  }
  for (const char* text : {"12", "-3", "+7", "007"}) EXPECT_EQ(kind(text), "integer") << text;
  for (const char* text : {"1e-4", "-2.5", ".5", "5.", "99999999999999999999"}) EXPECT_EQ(kind(text), "float") << text;
  for (const char* text : {"", "~", "null", "# only a comment"}) EXPECT_EQ(kind(text), "null") << text;
  EXPECT_DOUBLE_EQ(parse_yaml("5e-4", "f").as_double(), 5e-4);
  EXPECT_EQ(parse_yaml("a: |\n  x\n  y\n", "f").at("a").as_string(), "x\ny\n");
}

TEST(YamlDocument, ErrorsPointAtTheirPlace) {
  EXPECT_THAT(yaml_refusal("a: 1\nb: {c: 1,\n  c: 2}\n"), StartsWith("f: line 3, column 3: key 'c' appears twice"));
  EXPECT_THAT(yaml_refusal("a: [1\nb: 2\n"), StartsWith("f: line"));
  EXPECT_THAT(yaml_refusal("a: 1\n? [x]\n: 2\n"), StartsWith("f: line 2, column 3: a key must be plain text"));
  EXPECT_THAT(yaml_refusal("a: 1\n---\nb: 2\n"), HasSubstr("line 2, column 1: something follows"));
  EXPECT_THAT(yaml_refusal("a: *b\n"), StartsWith("f: line 1"));
  EXPECT_THAT(yaml_refusal("a: \xff"), HasSubstr("invalid UTF-8 at byte 3"));
  EXPECT_NE(yaml_refusal(",\x18\t"), "accepted");  // YAML::LoadAll of yaml-cpp 0.7.0 does not end on it
  EXPECT_NE(yaml_refusal("a: 1\n]\n"), "accepted");
}

TEST(YamlDocument, AliasesCopyAndAreBounded) {
  const Value value = parse_yaml("a: &x {p: [1, 2]}\nb: *x\nc: [*x, *x]\n", "f");
  EXPECT_EQ(value.at("b"), value.at("a"));
  EXPECT_EQ(value.at("c").as_array()[1].at("p").size(), 2U);
  EXPECT_THAT(yaml_refusal("a: &x [*x]\n"), HasSubstr("an alias inside the value it stands for"));
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string alias = fmt::format("*a{}", i - 1);
    bomb += fmt::format("a{}: &a{} [{}", i, i, alias) + repeated(", " + alias, 9) + "]\n";
  }
  EXPECT_THAT(yaml_refusal(bomb), HasSubstr("aliases expand to too many values"));
  // A chain of aliases nests as deep as brackets do.
  std::string chain = "- &c0 []\n";
  for (int i = 1; i < 300; ++i) chain += fmt::format("- &c{} [*c{}]\n", i, i - 1);
  EXPECT_THAT(yaml_refusal(chain), HasSubstr("nested deeper than 200"));
  EXPECT_THAT(yaml_refusal("a: &t " + std::string(200'000, 'x') + "\nb: [" + repeated("*t, ", 1000) + "]\n"),
              HasSubstr("too many values"));
}

TEST(YamlDocument, NestingIsBounded) {
  EXPECT_EQ(yaml_refusal(repeated("[", 200) + repeated("]", 200)), "accepted");
  EXPECT_THAT(yaml_refusal(repeated("[", 201) + repeated("]", 201)), HasSubstr("nested deeper than 200"));
  EXPECT_NE(yaml_refusal(repeated("[", 100'000)), "accepted");
  EXPECT_NE(yaml_refusal(repeated("- ", 100'000)), "accepted");
}

TEST(YamlDocument, PlacesAreKept) {
  const Value value = parse_yaml("a:\n  - x\n  -  {k: v}\nb:\nc: 1\n", "f");
  EXPECT_EQ(value.at("a").as_array()[1].at("k").mark().line, 3);
  EXPECT_EQ(value.at("a").as_array()[1].at("k").mark().column, 10);
  EXPECT_EQ(value.at("b").mark().line, 4);  // empty: its key's place
  EXPECT_EQ(value.at("c").mark().column, 4);
}

}  // namespace
}  // namespace instruct
