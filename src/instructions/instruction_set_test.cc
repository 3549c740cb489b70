#include "instructions/instruction_set.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "instructions/test_support.h"

namespace instruct::instructions {
namespace {

using testing::error_of;
using Texts = std::vector<std::string>;

TEST(InstructionSet, ReadsThePackageNotesExample) {
  const InstructionSet set = load_instruction_set(INSTRUCT_SOURCE_DIR "/examples/package-notes.iset.yaml");
  EXPECT_EQ(set.name, "package-notes");
  EXPECT_EQ(set.system, "You describe software packages.");
  ASSERT_EQ(set.instructions.size(), 4U);
  EXPECT_EQ(set.instructions[0].verb, "summary");
  EXPECT_EQ(set.instructions[0].output.max_tokens, 48);
  EXPECT_EQ(set.instructions[0].metrics, (Texts{"rouge", "bleu"}));
  const Instruction& section = set.instruction("section");
  EXPECT_EQ(section.output.type, OutputType::kLabel);
  EXPECT_EQ(section.output.labels.size(), 58U);
  EXPECT_EQ(section.output.labels.front(), "admin");
  EXPECT_EQ(set.instruction("facts").output.form->root().properties.size(), 4U);
  EXPECT_EQ(set.instruction("answer").inputs, (Texts{"question", "text"}));
  EXPECT_EQ(set.document_variable()->name, "text");
  EXPECT_TRUE(set.find_variable("question")->optional);
  EXPECT_EQ(set.examples.at("section").size(), 2U);
  EXPECT_EQ(set.combine, Combine::kConcat);
  EXPECT_EQ(set.program, "[summary('1st paragraph'), summary('2nd paragraph'), ...]");
  EXPECT_EQ(error_of([&] { set.instruction("sumary"); }),
            std::string(INSTRUCT_SOURCE_DIR
                        "/examples/package-notes.iset.yaml: unknown verb 'sumary'; did you mean 'summary'?"));
}

// Everything wrong with one file comes in one error, in the order of the file, with the place of each.
TEST(InstructionSet, EveryProblemAtOnce) {
  const std::string text = R"yaml(name: broken
sistem: x
variables:
  text: {type: txt}
  2nd: {type: text}
  verb: {type: text}
instructions:
  summary:
    input: [text]
    templates: ["{{ text"]
    output: {type: text, max_tokens: 0}
  section:
    inputs: [texts]
    templates: ["Where? {{ text }}"]
    output: {type: label, labels: [a, b, a]}
    metrics: [f2]
  count:
    inputs: [text]
    templates:
      - |
        Read this.
        How many in {{ txt }}?
    output: {type: number, min: 5, max: 1}
  nothing: 3
examples:
  sumary: []
program: "[summary('1st paragrahp'), section(text)]"
combine: first
)yaml";
  const Texts expected{
      "f:2:1: unknown key 'sistem'; did you mean 'system'?",
      "f:4:16: unknown type 'txt'; did you mean 'text'?",
      "f:5:3: variable name '2nd': expected letters a-z, digits and '_', not starting with a digit",
      "f:6:3: 'verb' cannot be a variable: rows have a field of that name",
      "f:9:5: unknown key 'input' of verb 'summary'; did you mean 'inputs'?",
      "f:11:38: 'max_tokens' expects a whole number from 1, got 0",
      "f:13:14: verb 'section': input 'texts' is not among the variables; did you mean 'text'?",
      "f:13:14: verb 'section': no template uses input 'texts'",
      "f:14:28: verb 'section': template 1: 'text' is not among the inputs; did you mean 'texts'?",
      "f:15:35: label 'a' appears twice",
      "f:16:15: unknown metric 'f2'; did you mean 'f1'?",
      "f:18:14: verb 'count': no template uses input 'text'",
      "f:22:24: verb 'count': template 1: 'txt' is not among the inputs; did you mean 'text'?",
      "f:23:13: verb 'count': minimum 5 is above maximum 1",
      "f:24:12: verb 'nothing' expects 'inputs:', 'templates:' and 'output:', got integer",
      "f:26:3: examples of unknown verb 'sumary'; did you mean 'summary'?",
      "f:28:10: unknown combine 'first'; known: concat, json, last",
  };
  Texts got = check_instruction_set(text, "f");
  // The template's own syntax error: its words are the template layer's, its place is ours.
  const auto syntax =
      std::find_if(got.begin(), got.end(), [](const std::string& line) { return line.starts_with("f:10:"); });
  ASSERT_NE(syntax, got.end());
  EXPECT_NE(syntax->find("verb 'summary': template 1: "), std::string::npos) << *syntax;
  got.erase(syntax);
  // The program's problems follow from the broken verbs.
  std::erase_if(got, [](const std::string& line) { return line.starts_with("f:27:"); });
  EXPECT_EQ(got, expected);
  const std::string error = error_of([&] { parse_instruction_set(text, "f"); });
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n') + 1,
            static_cast<std::ptrdiff_t>(check_instruction_set(text, "f").size()));
}

// A good set, in which the tests below replace one line.
std::string set_with(const std::string& line, const std::string& replacement) {
  std::string text = R"yaml(variables:
  text: {type: text}
  n: {type: number, optional: true}
instructions:
  summary:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: text}
program: "summary(text)"
)yaml";
  const std::size_t at = text.find(line);
  EXPECT_NE(at, std::string::npos) << line;
  return text.replace(at, line.size(), replacement);
}

struct BadSet {
  const char* line;
  const char* replacement;
  const char* problem;
};

class BadSets : public ::testing::TestWithParam<BadSet> {};

TEST_P(BadSets, SayWhatAndWhere) {
  const Texts problems = check_instruction_set(set_with(GetParam().line, GetParam().replacement), "f");
  ASSERT_EQ(problems.size(), 1U) << ::testing::PrintToString(problems);
  EXPECT_EQ(problems[0], GetParam().problem);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadSets,
    ::testing::Values(
        BadSet{"inputs: [text]", "inputs: text\n    extra: 1",
               "f:7:5: unknown key 'extra' of verb 'summary'; known: inputs, templates, template, output, metrics"},
        BadSet{"inputs: [text]", "inputs: [text, text]", "f:6:20: verb 'summary': input 'text' appears twice"},
        BadSet{"inputs: [text]", "inputs: [text, n]", "f:6:20: verb 'summary': no template uses input 'n'"},
        BadSet{"templates: [\"{{ text }}\"]", "template: \"{{ text }}\"\n    templates: [\"{{ text }}\"]",
               "f:7:5: 'template' and 'templates' mean the same; give one"},
        BadSet{"{type: text}\nprogram", "{type: text, labels: [a, b]}\nprogram",
               "f:8:26: 'labels' means nothing for output type 'text'"},
        BadSet{"{type: text}\nprogram", "{type: txt}\nprogram", "f:8:20: unknown type 'txt'; did you mean 'text'?"},
        BadSet{"{type: text}\nprogram", "{max_tokens: 3}\nprogram", "f:8:13: verb 'summary': the output has no 'type'"},
        BadSet{"{type: text}\nprogram", "{type: text, max_token: 3}\nprogram",
               "f:8:26: unknown key 'max_token' of the output of 'summary'; did you mean 'max_tokens'?"},
        BadSet{"{type: text}\nprogram", "{type: label}\nprogram",
               "f:8:13: verb 'summary': output type 'label' needs 'labels' with at least two of them"},
        BadSet{"{type: text}\nprogram", "{type: label, labels: [yes, no, true]}\nprogram",
               "f:8:45: 'labels' expects texts, got true: put it in quotes"},
        BadSet{"{type: text}\nprogram", "{type: labels, labels: [a, b], min_items: 3}\nprogram",
               "f:8:13: verb 'summary': min_items 3 with 2 labels"},
        BadSet{"{type: text}\nprogram", "{type: span, from: n}\nprogram",
               "f:8:32: verb 'summary': the output is a part of a text input, 'n' is none; known: text"},
        BadSet{"{type: text}\nprogram", "{type: number, min: low}\nprogram",
               "f:8:33: 'min' expects a number, got string"},
        BadSet{"{type: text}\nprogram", "{type: json, schema: {type: objekt}}\nprogram",
               "f:8:41: verb 'summary': unknown type 'objekt'; did you mean 'object'?"},
        BadSet{"{type: text}\nprogram", "{type: json, schema: {type: string, pattern: x}}\nprogram",
               "f:8:58: verb 'summary': schema keyword 'pattern' is not supported"},
        BadSet{"{type: text}\nprogram", "{type: json, schema: {typ: string}}\nprogram",
               "f:8:40: verb 'summary': unknown schema keyword 'typ'; did you mean 'type'?"},
        BadSet{"\"summary(text)\"", "\"summary(texts)\"",
               "f:9:19: program: unknown variable 'texts'; did you mean 'text'?"},
        BadSet{"\"summary(text)\"", "\"sumary(text)\"",
               "f:9:11: program: unknown verb 'sumary'; did you mean 'summary'?"},
        BadSet{"\"summary(text)\"", "\"summary(text\"",
               "f:9:23: program: expected ',' or ')' in the arguments of 'summary', got the end of the program"},
        BadSet{"\"summary(text)\"", "\"[summary(text), ...]\"",
               "f:9:27: program: '...' continues numbered parts of the document, and the call before it names none, "
               "such as '1st paragraph'"},
        BadSet{"program: \"summary(text)\"", "examples: {summary: [{text: a}]}",
               "f:9:22: an example of 'summary' needs its inputs and 'output'"},
        BadSet{"program: \"summary(text)\"", "examples: {summary: [{text: a, output: 3}]}",
               "f:9:22: example: verb 'summary': output: expected text, got integer"},
        BadSet{"program: \"summary(text)\"", "examples: {summary: [{output: a}]}",
               "f:9:22: example: verb 'summary': variable 'text' is missing"},
        BadSet{"program: \"summary(text)\"", "examples: {summary: [{txt: a, output: b}]}",
               "f:9:23: an example of 'summary' has 'txt', which is not among its inputs; did you mean 'text'?"},
        BadSet{"program: \"summary(text)\"", "program: [a]", "f:9:10: 'program' expects text, got array"}));

TEST(InstructionSet, BadDocuments) {
  EXPECT_EQ(check_instruction_set("", "f"),
            Texts{"f:1:1: the file is empty: expected 'name:', 'variables:' and 'instructions:'"});
  EXPECT_EQ(check_instruction_set("[1, 2]", "f"), Texts{"f:1:1: expected 'name:', 'variables:' and 'instructions:'"});
  EXPECT_EQ(check_instruction_set("name: x", "f"),
            Texts{"f:1:1: there is no verb: 'instructions:' is missing or empty"});
  EXPECT_NE(check_instruction_set("a: [", "f")[0].find("malformed YAML"), std::string::npos);
  EXPECT_NE(check_instruction_set("a: \xff", "f")[0].find("invalid UTF-8"), std::string::npos);
  EXPECT_NE(error_of([] { load_instruction_set("/nowhere/x.iset.yaml"); }).find("/nowhere/x.iset.yaml"),
            std::string::npos);
}

TEST(InstructionSet, LabelsMayBeNumbersAndTypesShort) {
  const InstructionSet set =
      parse_instruction_set(R"yaml(variables: {text: text, mood: {type: label, labels: [good, bad]}}
instructions:
  stars: {inputs: [text], template: "{{ text }}", output: {type: label, labels: [1, 2, 3]}}
)yaml",
                            "f");
  EXPECT_EQ(set.instruction("stars").output.labels, (Texts{"1", "2", "3"}));
  EXPECT_EQ(set.find_variable("text")->type, VariableType::kText);
  EXPECT_EQ(set.find_variable("mood")->labels, (Texts{"good", "bad"}));
}

}  // namespace
}  // namespace instruct::instructions
