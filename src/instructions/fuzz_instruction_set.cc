// Any bytes as an instruction-set file: read, or refused with a list of problems; what reads can be described and run.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "instructions/describe.h"
#include "instructions/instruction_set.h"
#include "instructions/plan.h"
#include "instructions/program.h"

namespace instruct::instructions {

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!check_instruction_set(text, "fuzz").empty()) return 0;
  const InstructionSet set = parse_instruction_set(text, "fuzz");  // no problems: this must not raise
  try {
    describe(set, nullptr);
    Value variables = Value::object();
    for (const Variable& variable : set.variables) variables.set(variable.name, "One.\n\nTwo. Three.");
    if (!set.program.empty()) make_plan(parse_program(set.program, "fuzz"), set, variables, {.max_calls = 100});
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace instruct::instructions
