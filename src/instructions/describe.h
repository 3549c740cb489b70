// What `instruct inspect FILE.iset.yaml` says about an instruction set.
#pragma once

#include <string>

#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"

namespace instruct::instructions {

// Verbs, variables, types, program, and one example as training sees it. With an encoder the example is rendered
// through the model's chat template; trained tokens stand between « and » with | between them. Without one the messages
// are shown, the answer between « and ».
std::string describe(const InstructionSet& set, const DialogueEncoder* encoder);

// A row of text with its trained tokens between « and », a | between neighbours, and a line of counts below.
std::string show_trained(const EncodedDialogue& encoded);

}  // namespace instruct::instructions
