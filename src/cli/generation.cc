#include "cli/generation.h"

#include <CLI/CLI.hpp>

namespace instruct::cli {
namespace {

constexpr const char* kGroup = "Generation";

// Two characters a shell does not write easily.
std::string unescaped(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == 'n' || next == 't' || next == '\\') {
      result += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
      ++i;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

void GenerationOptions::add_to(CLI::App& command) {
  command.add_option("--temperature", sampling.temperature, "0 is greedy")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  command.add_option("--top-k", sampling.top_k, "only the k most likely tokens; 0 for all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  command.add_option("--top-p", sampling.top_p, "only the fewest tokens that hold this probability")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0))
      ->group(kGroup);
  command.add_option("--min-p", sampling.min_p, "only tokens this likely, relative to the most likely")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0))
      ->group(kGroup);
  command.add_option("--repetition-penalty", sampling.repetition_penalty, "above 1 makes seen tokens less likely")
      ->capture_default_str()
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  command
      .add_option_function<std::vector<std::string>>(
          "--stop",
          [this](const std::vector<std::string>& texts) {
            stop.clear();
            for (const std::string& text : texts) stop.push_back(unescaped(text));
          },
          "text that ends an answer and is not part of it (\\n, \\t, \\\\ as in C); repeatable")
      ->allow_extra_args(false)
      ->group(kGroup);
  command
      .add_option("--max-new-tokens", max_new_tokens,
                  max_new_tokens > 0 ? "longest answer" : "longest answer; 0 for what the verb says")
      ->capture_default_str()
      ->check(max_new_tokens > 0 ? CLI::Range(std::int64_t{1}, std::int64_t{1} << 24)
                                 : CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->group(kGroup);
  add_engine_options(command, engine);
}

void GenerationOptions::add_beams_to(CLI::App& command) {
  command
      .add_option("--num-beams", engine.beams.count, "answers searched side by side for the likeliest one (free text)")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{256}))
      ->group(kGroup);
  command
      .add_option("--length-penalty", engine.beams.length_penalty,
                  "beams are compared by log P / length^penalty: above 0 favours longer answers")
      ->capture_default_str()
      ->check(CLI::Range(-100.0, 100.0))
      ->group(kGroup);
  command
      .add_option_function<std::string>(
          "--early-stopping",
          [this](const std::string& name) { engine.beams.early_stopping = generate::early_stopping_from_name(name); },
          "with as many complete answers as beams: true ends the search, false where no open one is better by now, "
          "never where none can become better")
      ->default_str("false")
      ->check(CLI::IsMember({"false", "true", "never"}))
      ->group(kGroup);
}

void add_engine_options(CLI::App& command, generate::GenerateOptions& options) {
  command
      .add_option("--prompt-lookup", options.prompt_lookup,
                  "tokens proposed a step where the answer seems to copy from the text before, and verified in one "
                  "pass: the same answers, faster where much is copied; 0 for none")
      ->capture_default_str()
      ->check(CLI::Range(0, 256))
      ->group(kGroup);
  command
      .add_option_function<std::string>(
          "--cache-type",
          [&options](const std::string& name) {
            if (name != "auto")
              options.cache_type = name == "int8" ? tensor::DType::kI8 : tensor::dtype_from_name(name);
          },
          "keys and values of past tokens: auto (as computed), f32, bf16, or int8 (half of bf16, with one scale a "
          "token "
          "and head)")
      ->default_str("auto")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}))
      ->group(kGroup);
}

void add_label_score(CLI::App& command, std::string& name) {
  command
      .add_option("--label-score", name,
                  "labels are compared by log P (sum), log P a token (mean), or log P less that of the same question "
                  "without its texts (calibrated)")
      ->capture_default_str()
      ->check(CLI::IsMember({"sum", "mean", "calibrated"}));
}

}  // namespace instruct::cli
