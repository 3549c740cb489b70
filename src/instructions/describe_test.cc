#include "instructions/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "instructions/test_support.h"

namespace instruct::instructions {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Describe, ThePackageNotesExample) {
  const InstructionSet set = load_instruction_set(INSTRUCT_SOURCE_DIR "/examples/package-notes.iset.yaml");
  const std::string text = describe(set, nullptr);
  EXPECT_THAT(text, HasSubstr("package-notes  "));
  EXPECT_THAT(text, HasSubstr("  text      text, the document that selectors read\n  question  text, optional\n"));
  EXPECT_THAT(
      text, HasSubstr("  summary(text) -> text, at most 48 tokens\n    1 template, 1 example, metrics rouge, bleu\n"));
  EXPECT_THAT(text, HasSubstr("  section(text) -> label (admin, cli-mono, comm, database, debug, devel, doc, editors, "
                              "... (58 in all)), at most"));
  EXPECT_THAT(text, HasSubstr("program  [summary('1st paragraph'), summary('2nd paragraph'), ...]\ncombine  concat\n"));
  EXPECT_THAT(text, HasSubstr("as a row of training: summary, its first example\nsystem: You describe software "
                              "packages.\nuser: Libmediaart"));
  EXPECT_THAT(text, HasSubstr("assistant: «media art extraction and cache management library - GIR data»\n"));
}

TEST(Describe, TrainedTokensAreMarked) {
  const InstructionSet set = parse_instruction_set(
      "variables: {text: text}\ninstructions:\n  a: {inputs: [text], template: \"{{ text }}?\", output: {type: label, "
      "labels: [yes, no]}}\n",
      "");
  const auto tokenizer = testing::tiny_tokenizer({{"y", "e"}});
  const DialogueEncoder encoder(tokenizer, "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}",
                                "t");
  const std::string text = describe(set, &encoder);
  EXPECT_THAT(text, HasSubstr("with made-up values"));
  EXPECT_THAT(text, HasSubstr("user: (text)?<|im_end|>assistant: «ye|s|<|im_end|>»\n"));
  EXPECT_THAT(text, HasSubstr(", 3 trained\n"));
  const DialogueEncoder endless(tokenizer, "{% for m in messages %}{{ m.content }} {% endfor %}", "t");
  EXPECT_THAT(describe(set, &endless), HasSubstr("the end of the answer is NOT trained"));
  EXPECT_THAT(text, Not(HasSubstr("NOT trained")));
}

}  // namespace
}  // namespace instruct::instructions
