// Pre-tokenizers by name. Each pattern is the one published with the model.
#include "base/error.h"
#include "base/text.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Named {
  const char* name;
  std::vector<SplitStep> steps;
};

const std::vector<Named>& known() {
  const SplitStep digits{{}, SplitBehaviour::kIsolated, false, SplitMatch::kDigit};
  static const std::vector<Named> table{
      {"gpt-2", {{kGpt2}}},          {"default", {{kGpt2}}},
      {"smollm", {digits, {kGpt2}}}, {"starcoder", {digits, {kGpt2}}},
      {"refact", {digits, {kGpt2}}}, {"command-r", {digits, {kGpt2}}},
      {"llama-bpe", {{kLlama3}}},    {"llama3", {{kLlama3}}},
      {"llama-v3", {{kLlama3}}},     {"dbrx", {{kLlama3}}},
      {"smaug-bpe", {{kLlama3}}},    {"qwen2", {{kQwen2}}},
      {"stablelm2", {{kQwen2}}},     {"tekken", {{kTekken}}},
  };
  return table;
}

}  // namespace

std::vector<SplitStep> splits_of_gguf_name(const std::string& name) {
  std::vector<std::string> names;
  for (const Named& entry : known()) {
    if (name == entry.name) return entry.steps;
    names.emplace_back(entry.name);
  }
  raise(ErrorCategory::kUnsupported, "unknown pre-tokenizer '{}'{}", name, did_you_mean(name, names));
}

}  // namespace instruct::tokenizers
