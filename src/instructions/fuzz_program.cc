// Any bytes as a program and as a selector: parsed or refused with an Error; what parses prints and parses again
// equally, and runs over a document within its limits.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "instructions/plan.h"
#include "instructions/program.h"
#include "instructions/selector.h"

namespace instruct::instructions {

namespace {

const InstructionSet& fuzz_set() {
  static const InstructionSet set = parse_instruction_set(
      "variables: {text: text, n: {type: number, optional: true}}\n"
      "instructions:\n"
      "  a: {inputs: [text, n], template: \"{{ text }}{{ n }}\", output: {type: text}}\n"
      "  b: {inputs: [text], template: \"{{ text }}\", output: {type: number}}\n",
      "fuzz");
  return set;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view document = "One. Two.\n\nThree 3.5 e.g. four!\n\n深。度？\n";
  try {
    SegmentedText segmented{std::string(document)};
    const Selector selector = parse_selector(text);
    if (parse_selector(print_selector(selector)) != selector) std::abort();
    segmented.select(selector);
  } catch (const Error&) {
  }
  try {
    const Program program = parse_program(text, "fuzz");
    if (!(parse_program(print_program(program), "again") == program)) std::abort();
    make_plan(program, fuzz_set(), Value::object({{"text", document}, {"n", 3}}), {.max_calls = 200});
  } catch (const Error&) {
  }
  for (const TextUnit unit : {TextUnit::kParagraph, TextUnit::kSentence, TextUnit::kLine, TextUnit::kWord}) {
    std::size_t last = 0;
    for (const ByteRange& range : segment(text, unit)) {
      if (range.begin < last || range.end <= range.begin || range.end > size) std::abort();
      last = range.end;
    }
  }
  return 0;
}

}  // namespace instruct::instructions
