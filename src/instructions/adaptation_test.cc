// Input decoder, instruction decoder and output encoder together.
#include "instructions/adaptation.h"

#include <gtest/gtest.h>

#include <set>

#include "base/json.h"
#include "instructions/test_support.h"

namespace instruct::instructions {
namespace {

using testing::error_of;

InstructionSet example_set() {
  return parse_instruction_set(R"yaml(
system: Be brief.
variables:
  text: text
  note: {type: text, optional: true}
  n: {type: number, optional: true}
  items: {type: list, optional: true}
  facts: {type: json, optional: true}
  mood: {type: label, labels: [good, bad], optional: true}
instructions:
  summary:
    inputs: [text, note]
    templates: ["{{ text }}{% if note %} ({{ note }}){% endif %} Short?", "In short: {{ text }}", "{{ text }} TL;DR"]
    output: {type: text}
  show: {inputs: [n, items, facts, mood], template: "{{ n }}|{{ items | join('+') }}|{{ facts }}|{{ mood }}", output: {type: text}}
  section: {inputs: [text], template: "{{ text }}", output: {type: label, labels: [libs, libs-dev, Games, "3"]}}
  tags: {inputs: [text], template: "{{ text }}", output: {type: labels, labels: [a, b, c], min_items: 1, max_items: 2}}
  size: {inputs: [text], template: "{{ text }}", output: {type: number, min: 0, max: 100}}
  count: {inputs: [text], template: "{{ text }}", output: {type: number, integer: true}}
  quote: {inputs: [text], template: "{{ text }}", output: {type: span}}
  points: {inputs: [text], template: "{{ text }}", output: {type: list, max_items: 3}}
  record:
    inputs: [text]
    template: "{{ text }}"
    output:
      type: json
      schema: {type: object, properties: {name: {type: string}, kind: {enum: [a, b]}, size: {type: [integer, "null"]}}, required: [name]}
examples:
  summary: [{text: one, output: 1st}, {text: two, note: x, output: 2nd}]
)yaml",
                               "set");
}

std::string encoded(const char* verb, const Value& output) {
  return encode_output(example_set().instruction(verb), output);
}
Value decoded(const char* verb, std::string_view text) {
  return decode_output(example_set().instruction(verb), text);
}
std::string encode_error(const char* verb, const Value& output) {
  return error_of([&] { encoded(verb, output); });
}
std::string decode_error(const char* verb, std::string_view text) {
  return error_of([&] { decoded(verb, text); });
}

TEST(InputDecoder, ValuesAsTheTemplateSeesThem) {
  const InstructionSet set = example_set();
  const Value values = Value::object({{"n", 2.5},
                                      {"items", Value(Value::Array{Value("x"), Value("y")})},
                                      {"facts", Value::object({{"a", 1}})},
                                      {"mood", "good"}});
  EXPECT_EQ(render_call(set, set.instruction("show"), values, 0), "2.5|x+y|{\"a\": 1}|good");
  EXPECT_EQ(render_call(set, set.instruction("show"), Value::object({{"n", 3}}), 0), "3|||");
}

TEST(InputDecoder, RefusesWhatDoesNotFit) {
  const InstructionSet set = example_set();
  const auto error = [&](const char* verb, const Value& values) {
    return error_of([&] { check_inputs(set, set.instruction(verb), values); });
  };
  EXPECT_EQ(error("summary", Value::object()), "verb 'summary': variable 'text' is missing");
  EXPECT_EQ(error("summary", Value::object({{"text", 3}})),
            "verb 'summary': variable 'text' expects text, got integer");
  EXPECT_EQ(error("summary", Value::object({{"text", nullptr}})), "verb 'summary': variable 'text' is missing");
  EXPECT_EQ(error("summary", Value::object({{"txt", "a"}})),
            "verb 'summary': unknown variable 'txt'; did you mean 'text'?");
  EXPECT_EQ(error("summary", Value::object({{"text", "a"}, {"notes", "b"}})),
            "verb 'summary': unknown variable 'notes'; did you mean 'note'?");
  EXPECT_EQ(error("summary", Value::object({{"text", "a"}, {"package", "b"}})), "no error");
  EXPECT_EQ(error("summary", Value::object({{"text", "a\xff"}})),
            "verb 'summary': variable 'text' has invalid UTF-8 at byte 1");
  EXPECT_EQ(error("show", Value::object({{"n", "3"}})), "verb 'show': variable 'n' expects number, got string");
  EXPECT_EQ(error("show", Value::object({{"items", "x"}})), "verb 'show': variable 'items' expects list, got string");
  EXPECT_EQ(error("show", Value::object({{"mood", "god"}})),
            "verb 'show': 'god' is not a label of variable 'mood'; did you mean 'good'?");
  EXPECT_EQ(error("summary", Value("x")), "verb 'summary': variable 'text' is missing");
}

TEST(InstructionDecoder, SystemShotsAndQuestion) {
  const InstructionSet set = example_set();
  const Value values = Value::object({{"text", "three"}});
  const std::vector<Message> zero = decode_call(set, set.instruction("summary"), values, {});
  ASSERT_EQ(zero.size(), 2U);
  EXPECT_EQ(zero[0].role, "system");
  EXPECT_EQ(zero[1].content, "three Short?");
  const std::vector<Message> two =
      decode_call(set, set.instruction("summary"), values, {.template_index = 1, .shots = 2});
  ASSERT_EQ(two.size(), 6U);
  EXPECT_EQ(two[1].content, "In short: one");
  EXPECT_EQ(two[2].role, "assistant");
  EXPECT_EQ(two[2].content, "1st");
  EXPECT_EQ(two[5].content, "In short: three");
  EXPECT_EQ(error_of([&] { decode_call(set, set.instruction("summary"), values, {.shots = 3}); }),
            "3 shots asked for, verb 'summary' has 2 examples in set");
  EXPECT_EQ(error_of([&] { decode_call(set, set.instruction("section"), values, {.shots = -1}); }),
            "-1 shots asked for, verb 'section' has 0 examples in set");
  EXPECT_EQ(error_of([&] { decode_call(set, set.instruction("summary"), values, {.template_index = 3}); }),
            "verb 'summary': template 3 asked for, it has 3 (counted from 0)");
}

TEST(InstructionDecoder, TemplatesAreDrawnByRowAndEpoch) {
  const InstructionSet set = example_set();
  const Instruction& summary = set.instruction("summary");
  std::set<std::size_t> rows;
  std::set<std::size_t> epochs;
  for (std::int64_t i = 0; i < 64; ++i) {
    rows.insert(choose_template(summary, 7, 0, i));
    epochs.insert(choose_template(summary, 7, i, 3));
    EXPECT_EQ(choose_template(summary, 7, 1, i), choose_template(summary, 7, 1, i));
    EXPECT_EQ(choose_template(set.instruction("section"), 7, 1, i), 0U);
  }
  EXPECT_EQ(rows.size(), 3U);
  EXPECT_EQ(epochs.size(), 3U);
}

TEST(OutputEncoder, CanonicalText) {
  EXPECT_EQ(encoded("summary", "  as it is "), "  as it is ");
  EXPECT_EQ(encoded("section", " libs "), "libs");
  EXPECT_EQ(encoded("section", 3), "3");
  EXPECT_EQ(encoded("tags", parse_json(R"(["c", "a"])", "t")), R"(["a", "c"])");
  EXPECT_EQ(encoded("tags", R"(["b"])"), R"(["b"])");
  EXPECT_EQ(encoded("size", 12), "12");
  EXPECT_EQ(encoded("size", "3.50"), "3.5");
  EXPECT_EQ(encoded("size", 1e-6), "0.000001");
  EXPECT_EQ(encoded("size", -0.0), "0");
  EXPECT_EQ(encoded("count", -12345), "-12345");
  EXPECT_EQ(encoded("points", parse_json(R"(["x", "\"y\""])", "t")), R"(["x", "\"y\""])");
  EXPECT_EQ(encoded("record", parse_json(R"({"name":"n","size":null})", "t")), R"({"name": "n", "size": null})");
  EXPECT_EQ(encoded("record", R"({"name":"n"})"), R"({"name": "n"})");
}

TEST(OutputEncoder, RefusesWhatIsNoSuchOutput) {
  EXPECT_EQ(encode_error("summary", 3), "verb 'summary': output: expected text, got integer");
  EXPECT_EQ(encode_error("section", "lib"),
            "verb 'section': output: label 'lib' is not in the set; did you mean 'libs'?");
  EXPECT_EQ(encode_error("section", Value::array()), "verb 'section': output: expected a label, got array");
  EXPECT_EQ(encode_error("tags", parse_json(R"(["a", "xyz"])", "t")),
            "verb 'tags': output: label 'xyz' is not in the set; known: a, b, c");
  EXPECT_EQ(encode_error("tags", parse_json(R"(["a", "a"])", "t")), "verb 'tags': output: \"a\" appears twice");
  EXPECT_EQ(encode_error("tags", parse_json(R"(["a", "b", "c"])", "t")),
            "verb 'tags': output: expected at most 2 items, got 3");
  EXPECT_EQ(encode_error("size", 101), "verb 'size': output: 101 is above the maximum 100");
  EXPECT_EQ(encode_error("size", "many"), "verb 'size': output: expected a number, got 'many'");
  EXPECT_EQ(encode_error("size", true), "verb 'size': output: expected a number, got bool");
  EXPECT_EQ(encode_error("count", 1.5), "verb 'count': output: expected a whole number, got 1.5");
  EXPECT_EQ(encode_error("count", 1e15), "verb 'count': output: 1000000000000000 has more than 12 digits");
  EXPECT_EQ(encode_error("points", "x"),
            "verb 'points': output: line 1, column 1: malformed JSON: syntax error while parsing value - invalid "
            "literal; last read: 'x'");
  EXPECT_EQ(encode_error("points", parse_json("[1]", "t")), "verb 'points': output: /0: expected a text, got integer");
  EXPECT_EQ(encode_error("record", parse_json(R"({"kind": "a"})", "t")),
            "verb 'record': output: property 'name' is missing");
  EXPECT_EQ(encode_error("record", parse_json(R"({"name": "x", "kin": "a"})", "t")),
            "verb 'record': output: unexpected property 'kin'; did you mean 'kind'?");
  EXPECT_EQ(encode_error("record", parse_json(R"({"name": "x", "kind": "other"})", "t")),
            "verb 'record': output: /kind: \"other\" is not allowed; expected \"a\", \"b\"");
  EXPECT_EQ(encode_error("record", parse_json(R"({"name": "x", "size": "y"})", "t")),
            "verb 'record': output: /size: expected a whole number, got string");
}

TEST(OutputEncoder, SpansMustBeInTheText) {
  const InstructionSet set = example_set();
  const Value variables = Value::object({{"text", "The cat sat."}});
  EXPECT_EQ(encode_output(set.instruction("quote"), "cat sat", &variables), "cat sat");
  EXPECT_EQ(error_of([&] { encode_output(set.instruction("quote"), "dog", &variables); }),
            "verb 'quote': output: 'dog' is not a part of 'text'");
}

TEST(OutputEncoder, ReadsGeneratedText) {
  EXPECT_EQ(decoded("summary", " A line.\n"), Value("A line."));
  EXPECT_EQ(decoded("section", "libs"), Value("libs"));
  EXPECT_EQ(decoded("section", " \"LIBS-DEV\".\n"), Value("libs-dev"));
  EXPECT_EQ(decoded("section", "games"), Value("Games"));
  EXPECT_EQ(decode_error("section", "library"),
            "verb 'section': output: label 'library' is not in the set; known: libs, libs-dev, Games, 3");
  EXPECT_EQ(decoded("size", " 42\n"), Value(42));
  EXPECT_EQ(decoded("size", "0.25"), Value(0.25));
  EXPECT_EQ(decode_error("size", "42 cm"), "verb 'size': output: expected a number, got '42 cm'");
  EXPECT_EQ(decoded("tags", R"(["b", "a"])"), parse_json(R"(["a", "b"])", "t"));
  EXPECT_EQ(decoded("record", R"({"name": "n", "kind": "a"})"), parse_json(R"({"kind": "a", "name": "n"})", "t"));
  EXPECT_NE(decode_error("record", R"({"name": "n")").find("malformed JSON"), std::string::npos);
}

// What is trained reads back as the value it was made from.
TEST(OutputEncoder, EncodeAndDecodeAgree) {
  const std::vector<std::pair<const char*, Value>> cases{
      {"summary", "a b"},
      {"section", "libs-dev"},
      {"size", 99.125},
      {"count", 0},
      {"tags", parse_json(R"(["a"])", "t")},
      {"points", parse_json(R"(["x\n", "深"])", "t")},
      {"record", parse_json(R"({"name": "\u0001 é", "size": 3})", "t")}};
  for (const auto& [verb, value] : cases) EXPECT_EQ(decoded(verb, encoded(verb, value)), value) << verb;
}

}  // namespace
}  // namespace instruct::instructions
