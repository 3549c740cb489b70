// Beam search: the most likely answer of several that are written side by side, as transformers has it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "generate/writer.h"
#include "models/language_model.h"
#include "ops/engine.h"
#include "tokenizers/tokenizer.h"

namespace instruct::generate {

// When a search ends that has as many complete answers as beams: where no open one can be better as it is now; at once;
// or where none can ever be.
enum class EarlyStopping : std::uint8_t { kNo, kYes, kNever };
// "false", "true" or "never", as transformers has them; raises InvalidArgument for another name.
EarlyStopping early_stopping_from_name(std::string_view name);

struct BeamOptions {
  std::int64_t count = 1;     // of beams; 1: there is no search
  double length_penalty = 1;  // answers are compared by log P / length^penalty: above 0 favours longer ones
  EarlyStopping early_stopping = EarlyStopping::kNo;
};

struct BeamLimits {
  std::int64_t max_batch = 64;                   // answers written side by side
  std::int64_t max_slots = 1 << 14;              // of the key/value cache, roughly, where one search needs no more
  std::optional<tensor::DType> cache_type = {};  // of the cache; without one the model's compute type
};

// The best answer to each request, in their order; Answer::log_probability is log P itself. Prompts must have been
// checked. Raises InvalidArgument for a request that samples or has a constraint, Cancelled on Ctrl-C. `on_done` gets
// the number of finished requests.
std::vector<Answer> beam_search(ops::Engine& engine, models::LanguageModel& model,
                                const tokenizers::Tokenizer& tokenizer, std::span<const Request> requests,
                                const BeamOptions& options, const BeamLimits& limits,
                                const std::function<void(std::int64_t)>& on_done = {});

}  // namespace instruct::generate
