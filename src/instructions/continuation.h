// What "..." means: the pattern that the written calls show, and its next calls.
//
// Calls have a shape: verb and arguments with the numbers of their selectors left out. When the last p calls have the
// same shapes as the p before them (the smallest such p is taken), those p calls are the pattern, and the differences
// of their numbers are its steps: [summary('1st paragraph'), summary('2nd paragraph'), ...] walks one by one, [a('1st
// line'), a('3rd line'), ...] by two. When no pattern repeats, the calls at the end that have numbered selectors are
// the pattern, once, and the step is what they cover together: [a('1st line'), b('1st line'), ...] goes to the second
// line for both, ['words 1-50', ...] to words 51-100.
#pragma once

#include <cstdint>
#include <vector>

#include "instructions/program.h"
#include "instructions/selector.h"

namespace instruct::instructions {

struct Continuation {
  std::size_t first = 0;      // index of the first written call that belongs to the pattern or a repetition of it
  std::vector<Call> pattern;  // the last calls written
  // Per call of the pattern, per numbered selector in it (in order of writing): how far one repetition moves it.
  std::vector<std::vector<std::int64_t>> steps;
};

// Raises BadData when the program shows no way to go on: no numbered selector, or one that does not move.
Continuation find_continuation(const Program& program);

// Call number `place` of the pattern, moved by `repetitions` steps.
Call continued_call(const Continuation& continuation, std::size_t place, std::int64_t repetitions);

// The selectors of a call and the calls inside it, in order of writing.
std::vector<Selector> selectors_of(const Call& call);

}  // namespace instruct::instructions
