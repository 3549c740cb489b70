// The program notation: which instructions run over which part of a document.
//
//   program  = "[" call { "," call } [ "," "..." ] "]" | call
//   call     = verb "(" [ argument { "," argument } ] ")"
//   argument = [ name "=" ] ( variable | selector | literal | call )
//   selector = single-quoted, '1st paragraph';  literal = double-quoted text or a number
//
// Parsing knows nothing of verbs and variables; check_program() (program_check.h) holds the tree against an instruction
// set.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace instruct::instructions {

enum class ArgumentKind { kVariable, kSelector, kLiteral, kCall };

struct Call;

struct Argument {
  std::string name;  // of a named argument; empty when it binds by place
  ArgumentKind kind = ArgumentKind::kVariable;
  std::string text;        // variable name, or what stands between a selector's quotes
  Value literal;           // text or number
  std::vector<Call> call;  // one call, or none
  Mark mark;               // line and column (in characters) within the program

  // Same meaning; marks do not count.
  friend bool operator==(const Argument& a, const Argument& b);
};

struct Call {
  std::string verb;
  std::vector<Argument> arguments;
  Mark mark;

  friend bool operator==(const Call& a, const Call& b);
};

struct Program {
  std::vector<Call> calls;  // never empty after parsing
  bool list = false;        // written in brackets
  bool continues = false;   // ends in "..."
  Mark continues_mark;

  friend bool operator==(const Program& a, const Program& b);
};

// Calls inside calls go no deeper than this.
inline constexpr int kMaxCallDepth = 32;
// Bytes of a program's text, and calls written in it.
inline constexpr std::size_t kMaxProgramBytes = 1 << 20;

// Reads a program. Raises BadData "ORIGIN: line L, column C: ..." with what was expected and what is there; "..." may
// also be written as one or two ellipsis characters.
Program parse_program(std::string_view source, std::string_view origin);

// The program in one line; parsing it again gives an equal tree.
std::string print_program(const Program& program);
std::string print_call(const Call& call);

// Whether `name` can be a verb or variable: letters (of any script), digits and '_', not starting with a digit.
bool is_program_name(std::string_view name);

}  // namespace instruct::instructions
