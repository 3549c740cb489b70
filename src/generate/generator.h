// Batched text generation. Prompts that start alike share their prefix: it is computed and kept once. When an answer is
// complete another begins in its place.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "data/layout.h"
#include "generate/beam_search.h"
#include "generate/prompt_lookup.h"
#include "generate/writer.h"
#include "models/language_model.h"
#include "ops/engine.h"
#include "tokenizers/tokenizer.h"

namespace instruct::generate {

struct GenerateOptions {
  data::Layout layout = data::Layout::kTree;  // kRows: every prompt on its own
  std::int64_t max_batch = 64;                // answers written side by side
  std::int64_t max_slots = 1 << 14;           // of the key/value cache, roughly, where one answer needs no more
  std::int64_t max_pass_tokens = 2048;        // of one pass, roughly: more are no faster and need more memory
  std::int64_t block_tokens = 64;             // of a block of the cache
  std::optional<tensor::DType> cache_type;    // f32, bf16 or kI8; without one the model's compute type
  BeamOptions beams;                          // for answers under no constraint
  std::int64_t prompt_lookup = 0;             // tokens that prompt lookup proposes a step, at most; 0: off
};

class Generator {
 public:
  // All must outlive the generator.
  Generator(ops::Engine& engine, models::LanguageModel& model, const tokenizers::Tokenizer& tokenizer,
            const GenerateOptions& options = {});

  // Called after each step of request `index`, with the text that is certain by now; for streaming.
  using OnText = std::function<void(std::size_t index, std::string_view text)>;
  // Answers in the order of the requests. Raises InvalidArgument when a prompt is empty or does not fit the context,
  // Cancelled on Ctrl-C. `on_done` is called with the number of finished requests.
  std::vector<Answer> run(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done = {},
                          const OnText& on_text = {});
  // Of all runs so far.
  const LookupCounts& counts() const { return counts_; }
  // Most that keys and values of a run took.
  std::int64_t cache_bytes() const { return cache_bytes_; }

 private:
  class Run;
  std::vector<Answer> with_beams(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done,
                                 const OnText& on_text);

  ops::Engine& engine_;
  models::LanguageModel& model_;
  const tokenizers::Tokenizer& tokenizer_;
  GenerateOptions options_;
  LookupCounts counts_;
  std::int64_t cache_bytes_ = 0;
};

// Raises InvalidArgument when a request has no prompt, no token to write, or a prompt that fills the context.
void check_request(const Request& request, std::int64_t context_length);

}  // namespace instruct::generate
