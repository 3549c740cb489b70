// How results are shown, and writing what an evaluation found.
#pragma once

#include <filesystem>

#include "evaluate/task.h"

namespace instruct::cli {

// On standard output: for people, or as one JSON object.
enum class Results { kText, kJson };

// One JSON object an answered row: row, verb, prompt, predict, label, logprob, finished, the probabilities of labels,
// and where spans are. Whole or not at all.
void write_predictions(const std::filesystem::path& file, const evaluate::TaskReport& report,
                       const instructions::InstructionSet* set);

}  // namespace instruct::cli
