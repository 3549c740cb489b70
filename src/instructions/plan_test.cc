#include "instructions/plan.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "instructions/continuation.h"
#include "instructions/program_check.h"
#include "instructions/test_support.h"

namespace instruct::instructions {
namespace {

using testing::error_of;
using Texts = std::vector<std::string>;

InstructionSet example_set() {
  return parse_instruction_set(R"yaml(
variables:
  text: {type: text}
  question: {type: text, optional: true}
  count: {type: number, optional: true}
  mood: {type: label, labels: [good, bad], optional: true}
  items: {type: list, optional: true}
  other: text
instructions:
  summary: {inputs: [text], template: "{{ text }} Short?", output: {type: text}}
  section: {inputs: [text], template: "{{ text }} Where?", output: {type: label, labels: [a, b]}}
  feel: {inputs: [text], template: "{{ text }} Mood?", output: {type: label, labels: [good, bad]}}
  points: {inputs: [text], template: "{{ text }} Points?", output: {type: list}}
  size: {inputs: [text], template: "{{ text }} Size?", output: {type: number}}
  answer: {inputs: [question, text], template: "{{ text }} {{ question }}", output: {type: text}}
  repeat: {inputs: [text, count], template: "{{ text }} {{ count }}", output: {type: text}}
  reply: {inputs: [mood], template: "{{ mood }}", output: {type: text}}
  join: {inputs: [items], template: "{{ items | join(' ') }}", output: {type: text}}
  compare: {inputs: [text, other], template: "{{ text }} {{ other }}", output: {type: text}}
)yaml",
                               "set");
}

constexpr const char* kDocument = "One one. Two.\n\nThree.\n\nFour. Five. Six.";

Plan plan_of(std::string_view program, const std::string& text = kDocument, const PlanLimits& limits = {}) {
  const InstructionSet set = example_set();
  return make_plan(parse_program(program, "p"), set, Value::object({{"text", text}, {"question", "Why?"}}), limits);
}

Texts sources(const Plan& plan) {
  Texts result;
  for (const std::size_t index : plan.outputs) result.push_back(plan.calls[index].source);
  return result;
}

TEST(Plan, SelectorsBecomeText) {
  const Plan plan =
      plan_of("[summary('1st paragraph'), summary('last sentence'), summary(text), answer(question, '2nd paragraph')]");
  ASSERT_EQ(plan.calls.size(), 4U);
  EXPECT_EQ(plan.calls[0].bindings[0].value, Value("One one. Two."));
  EXPECT_EQ(plan.calls[0].bindings[0].range, (ByteRange{0, 13}));
  EXPECT_EQ(plan.calls[1].bindings[0].value, Value("Six."));
  EXPECT_EQ(plan.calls[2].bindings[0].value, Value(kDocument));
  EXPECT_EQ(plan.calls[3].bindings[0].value, Value("Why?"));
  EXPECT_EQ(waves(plan).size(), 1U);
  EXPECT_TRUE(plan.list);
  EXPECT_FALSE(plan_of("summary(text)").list);
}

TEST(Plan, DotsContinueToTheEnd) {
  EXPECT_EQ(sources(plan_of("[summary('1st paragraph'), summary('2nd paragraph'), ...]")),
            (Texts{"summary('1st paragraph')", "summary('2nd paragraph')", "summary('3rd paragraph')"}));
  EXPECT_EQ(sources(plan_of("[summary('1st sentence'), summary('3rd sentence'), ...]")),
            (Texts{"summary('1st sentence')", "summary('3rd sentence')", "summary('5th sentence')"}));
  EXPECT_EQ(sources(plan_of("[summary('1st paragraph'), section('1st paragraph'), ...]")),
            (Texts{"summary('1st paragraph')", "section('1st paragraph')", "summary('2nd paragraph')",
                   "section('2nd paragraph')", "summary('3rd paragraph')", "section('3rd paragraph')"}));
  EXPECT_EQ(sources(plan_of("[section(text), summary('2nd paragraph'), ...]")),
            (Texts{"section(text)", "summary('2nd paragraph')", "summary('3rd paragraph')"}));
  EXPECT_EQ(sources(plan_of("[summary('last paragraph'), summary('second last paragraph'), ...]")),
            (Texts{"summary('last paragraph')", "summary('second last paragraph')", "summary('3rd last paragraph')"}));
  EXPECT_EQ(sources(plan_of("[answer(question, summary('第1段')), ...]")).size(), 3U);
  EXPECT_EQ(
      sources(plan_of("[compare('1st paragraph', '2nd paragraph'), compare('2nd paragraph', '3rd paragraph'), ...]"))
          .size(),
      2U);
}

TEST(Plan, DotsOverRangesEndWithTheDocument) {
  EXPECT_EQ(sources(plan_of("[summary('words 1-3'), ...]")),
            (Texts{"summary('words 1-3')", "summary('words 4-6')", "summary('7th word')"}));
  EXPECT_EQ(sources(plan_of("[summary('words 1-3'), ...]", "a b")), Texts{"summary('words 1-2')"});
  const Plan plan = plan_of("[summary('words 1-3'), ...]");
  ASSERT_EQ(plan.calls.size(), 3U);
  EXPECT_EQ(plan.calls[2].bindings[0].value, Value("Six."));
}

TEST(Plan, DotsOnAShortDocumentRunWhatThereIs) {
  EXPECT_EQ(sources(plan_of("[summary('1st paragraph'), summary('2nd paragraph'), ...]", "Only one.")),
            Texts{"summary('1st paragraph')"});
  EXPECT_EQ(error_of([] { plan_of("[summary('2nd paragraph'), ...]", "Only one."); }),
            "selector '2nd paragraph': the document has 1 paragraph");
  EXPECT_EQ(error_of([] { plan_of("[summary('1st paragraph'), summary('2nd paragraph')]", "Only one."); }),
            "selector '2nd paragraph': the document has 1 paragraph");
}

TEST(Plan, EveryIsOneCallEach) {
  EXPECT_EQ(sources(plan_of("[summary('every paragraph')]")),
            (Texts{"summary('1st paragraph')", "summary('2nd paragraph')", "summary('3rd paragraph')"}));
  EXPECT_EQ(plan_of("answer(question, summary('每一句'))").outputs.size(), 6U);
  EXPECT_EQ(error_of([] { plan_of("[compare('every line', 'every line')]"); }),
            "compare('every line', 'every line'): two 'every' in one call; at most one says what is repeated");
}

TEST(Plan, NestedCallsComeFirstAndOnce) {
  const Plan plan = plan_of("[answer(question, summary(text)), section(summary(text)), summary(text)]");
  ASSERT_EQ(plan.calls.size(), 3U);  // summary(text) once
  EXPECT_EQ(plan.calls[0].source, "summary(text)");
  EXPECT_EQ(plan.calls[1].parents, std::vector<std::size_t>{0});
  EXPECT_EQ(plan.calls[1].depth, 1);
  EXPECT_EQ(plan.outputs, (std::vector<std::size_t>{1, 2, 0}));
  const auto levels = waves(plan);
  ASSERT_EQ(levels.size(), 2U);
  EXPECT_EQ(levels[1], (std::vector<std::size_t>{1, 2}));
  const InstructionSet set = example_set();
  const std::vector<Value> outputs{Value("short"), Value("because"), Value("a")};
  EXPECT_EQ(resolve_variables(plan.calls[1], set, outputs), Value::object({{"question", "Why?"}, {"text", "short"}}));
}

TEST(Plan, OutputsBecomeTextForTextInputs) {
  const Plan plan = plan_of("summary(points(text))");
  const std::vector<Value> outputs{Value(Value::Array{Value("a"), Value("b")}), Value("x")};
  EXPECT_EQ(resolve_variables(plan.calls[1], example_set(), outputs), Value::object({{"text", "[\"a\", \"b\"]"}}));
}

TEST(Plan, Combines) {
  const Plan plan = plan_of("[summary('1st line'), size('2nd line')]");
  const std::vector<Value> outputs{Value("first"), Value(2)};
  EXPECT_EQ(combine_outputs(plan, Combine::kConcat, outputs), "first\n2");
  EXPECT_EQ(combine_outputs(plan, Combine::kLast, outputs), "2");
  EXPECT_EQ(
      parse_json(combine_outputs(plan, Combine::kJson, outputs), "j"),
      parse_json(
          R"json([{"call": "summary('1st line')", "verb": "summary", "output": "first"}, {"call": "size('2nd line')", "verb": "size", "output": 2}])json",
          "j"));
}

TEST(Plan, LimitsAndMissingValues) {
  EXPECT_EQ(error_of([] { plan_of("summary('every word')", kDocument, {.max_calls = 3}); }),
            "the program makes more than 3 calls over this document");
  EXPECT_EQ(error_of([] { plan_of("summary(text)", "", {}); }), "no error");
  EXPECT_EQ(error_of([] { plan_of("summary('1st line')", ""); }), "selector '1st line': the document has no text");
  const InstructionSet set = example_set();
  EXPECT_EQ(error_of([&] { make_plan(parse_program("summary(text)", "p"), set, Value::object()); }),
            "variable 'text' has no value");
  EXPECT_EQ(error_of([&] { make_plan(parse_program("summary(question)", "p"), set, Value::object()); }),
            "variable 'question' has no value, and 'text' needs one");
}

struct MisfitProgram {
  const char* source;
  const char* message;
};

class MisfitPrograms : public ::testing::TestWithParam<MisfitProgram> {};

TEST_P(MisfitPrograms, AreRefusedWithPlaceAndHint) {
  EXPECT_EQ(error_of([] { parse_checked_program(GetParam().source, example_set(), "p"); }), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Table, MisfitPrograms,
    ::testing::Values(
        MisfitProgram{"sumary(text)", "p: line 1, column 1: unknown verb 'sumary'; did you mean 'summary'?"},
        MisfitProgram{"[sumary(text),\n summary(texts)]",
                      "p: line 1, column 2: unknown verb 'sumary'; did you mean 'summary'?\n"
                      "p: line 2, column 10: unknown variable 'texts'; did you mean 'text'?"},
        MisfitProgram{"summary()", "p: line 1, column 1: 'summary' needs an argument for 'text'"},
        MisfitProgram{"summary(text, question)",
                      "p: line 1, column 15: 'summary' takes 1 argument (text), this is number 2"},
        MisfitProgram{"summary(txt=text)",
                      "p: line 1, column 9: 'summary' has no input 'txt'; did you mean 'text'?\n"
                      "p: line 1, column 1: 'summary' needs an argument for 'text'"},
        MisfitProgram{"answer(question, question=question)",
                      "p: line 1, column 18: 'question' of 'answer' is given twice\n"
                      "p: line 1, column 1: 'answer' needs an argument for 'text'"},
        MisfitProgram{"answer(text=text, question)",
                      "p: line 1, column 19: an argument of 'answer' without a name comes after one with a name"},
        MisfitProgram{"summary(section)", "p: line 1, column 9: 'section' is a verb: write section(...) to run it"},
        MisfitProgram{"summary(3)",
                      "p: line 1, column 9: 'text' of 'summary' expects text, got number 3; put it in double quotes"},
        MisfitProgram{"repeat(text, \"3\")", "p: line 1, column 14: 'count' of 'repeat' expects number, got a text"},
        MisfitProgram{"repeat(text, question)",
                      "p: line 1, column 14: 'count' of 'repeat' expects number, got variable 'question' of type text"},
        MisfitProgram{"repeat(text, summary(text))",
                      "p: line 1, column 14: 'count' of 'repeat' expects number, got the text that 'summary' puts out"},
        MisfitProgram{"repeat(text, '1st line')",
                      "p: line 1, column 14: 'count' of 'repeat' expects number, got a selector (a part of the "
                      "document is text)"},
        MisfitProgram{"reply(\"god\")", "p: line 1, column 7: label 'god' is not one of 'mood'; did you mean 'good'?"},
        MisfitProgram{"reply(section(text))",
                      "p: line 1, column 7: 'mood' of 'reply' expects label, got the label that 'section' puts out"},
        MisfitProgram{"join(\"[1\")",
                      "p: line 1, column 6: 'items' of 'join': line 1, column 3: malformed JSON: syntax error while "
                      "parsing array - unexpected end of input; expected ']'"},
        MisfitProgram{"join(\"{}\")", "p: line 1, column 6: 'items' of 'join' expects list, got JSON object"},
        MisfitProgram{
            "summary('1st paragrahp')",
            "p: line 1, column 9: selector '1st paragrahp': unknown unit 'paragrahp'; did you mean 'paragraph'?"},
        MisfitProgram{"[summary('1st line'), summary('1st line'), ...]",
                      "p: line 1, column 44: '...' cannot tell how to go on: the calls before it read the same part or "
                      "name none"},
        MisfitProgram{
            "[summary('3rd line'), summary('1st line'), ...]",
            "p: line 1, column 44: '...' goes from '3rd line' back to '1st line'; it can only go on to later parts"},
        MisfitProgram{"[summary('lines 2-last'), ...]",
                      "p: line 1, column 27: '...' cannot continue 'lines 2-last': it reaches to the end already"},
        MisfitProgram{"[summary('words 1-3'), summary('words 4-9'), ...]",
                      "p: line 1, column 46: '...' cannot tell how to go on from 'words 1-3' to 'words 4-9': the "
                      "second is longer or shorter"},
        MisfitProgram{"[summary('every line'), ...]",
                      "p: line 1, column 25: '...' continues numbered parts of the document, and the call before it "
                      "names none, such as '1st paragraph'"}));

TEST(ProgramCheck, GoodTypes) {
  for (const char* source : {"reply(feel(text))", "reply(\"good\")", "repeat(text, size(text))", "repeat(text, 3)",
                             "repeat(text)", "join(points(text))", "join(\"[\\\"a\\\"]\")", "summary(section(text))",
                             "answer(text=summary('every line'), question=\"Who?\")", "repeat(text, count)"}) {
    EXPECT_EQ(error_of([&] { parse_checked_program(source, example_set(), "p"); }), "no error") << source;
  }
}

}  // namespace
}  // namespace instruct::instructions
