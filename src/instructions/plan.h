// A program over one document: the calls that are to run, with their texts and what each waits for.
//
// The result is a graph in which a call comes after the calls whose outputs it reads. Calls of the same depth do not
// depend on each other: they are the branches that run side by side. The same call written twice is in the plan once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "instructions/instruction_set.h"
#include "instructions/program.h"
#include "instructions/segmentation.h"

namespace instruct::instructions {

// What an input of a call gets: a value that is known, or the output of an earlier call.
struct Binding {
  std::string variable;
  Value value;                      // null when `call` is set
  std::optional<std::size_t> call;  // index of the planned call
  std::optional<ByteRange> range;   // of the document, for a selector
};

struct PlannedCall {
  std::string verb;
  std::vector<Binding> bindings;     // in the order of the verb's inputs; optional ones without an argument are absent
  std::vector<std::size_t> parents;  // calls whose outputs it reads, ascending, each once; all before this one
  std::int64_t depth = 0;            // 0: waits for nothing; else one more than the deepest parent
  std::string source;                // the call as a program would write it: summary('2nd paragraph')
};

struct Plan {
  std::vector<PlannedCall> calls;    // parents before children
  std::vector<std::size_t> outputs;  // the program's calls in its order, as indices into `calls`
  bool list = false;                 // false: the program is a single call
};

struct PlanLimits {
  std::int64_t max_calls = 10'000;
};

// Expands a checked program over the values of the set's variables. Selectors read the set's document variable; "..."
// and 'every ...' are carried out. Raises NotFound for a selector past the end of the document (naming how many units
// there are), BadData for what check_program finds and for variables without a value, InvalidArgument past the limits.
Plan make_plan(const Program& program, const InstructionSet& set, const Value& variables,
               const PlanLimits& limits = {});

// Calls of each depth: depth 0 first. Those of one depth run side by side.
std::vector<std::vector<std::size_t>> waves(const Plan& plan);

// The variables of a planned call once its parents have run; `outputs` are by index of the plan's calls. An output
// becomes text where the input is of type text.
Value resolve_variables(const PlannedCall& call, const InstructionSet& set, std::span<const Value> outputs);

// The result of a whole program. kConcat: the outputs' texts, a line each. kLast: the last one's. kJson: an array of
// {"call", "verb", "output"} with the fields of the call's `details` behind them. `outputs` and `details` are by index
// of the plan's calls; `details` are objects or null, or absent altogether.
std::string combine_outputs(const Plan& plan, Combine combine, std::span<const Value> outputs,
                            std::span<const Value> details = {});

}  // namespace instruct::instructions
