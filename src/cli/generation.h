// How answers are generated: the flags that eval, run and chat share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "generate/generator.h"

namespace CLI {
class App;
}

namespace instruct::cli {

struct GenerationOptions {
  generate::SamplingOptions sampling;  // greedy; its seed is the command's --seed
  std::vector<std::string> stop;
  std::int64_t max_new_tokens = 0;  // 0: what each verb says
  generate::GenerateOptions engine;

  // --num-beams, --length-penalty, --early-stopping.
  void add_beams_to(CLI::App& command);
  // --temperature, --top-k, --top-p, --min-p, --repetition-penalty, --stop, --max-new-tokens and add_engine_options(),
  // with the values of this object as defaults.
  void add_to(CLI::App& command);
};

// How answers are computed, --prompt-lookup (which changes no answer), --cache-type.
void add_engine_options(CLI::App& command, generate::GenerateOptions& options);
// --label-score, for commands that choose labels.
void add_label_score(CLI::App& command, std::string& name);

}  // namespace instruct::cli
