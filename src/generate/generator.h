// Batched text generation. Prompts that start alike share their prefix: it is computed and kept once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/sampling.h"
#include "instructions/constraint.h"
#include "models/llama.h"
#include "ops/engine.h"
#include "tokenizers/tokenizer.h"

namespace instruct::generate {

struct Request {
  std::vector<std::int32_t> prompt;
  std::int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stop;  // generation ends before any of these texts
  bool ignore_end = false;        // end tokens are never chosen: answers have max_new_tokens (benchmarks)
  std::shared_ptr<instructions::Constraint> constraint;  // what may come next; made anew for every request, or null
};

enum class Finish { kStop, kLength };

struct Answer {
  std::vector<std::int32_t> tokens;  // without the end token
  // Decoded, special tokens left out, cut before a stop text. Under a constraint an answer that max_new_tokens cuts is
  // completed to a whole value.
  std::string text;
  Finish finish = Finish::kLength;
  double log_probability = 0;  // natural log, summed over tokens and the end token
};

struct GenerateOptions {
  std::int64_t max_batch = 32;
  std::int64_t max_batch_tokens = 8192;  // prompt tokens of one batch
};

class Generator {
 public:
  // All must outlive the generator.
  Generator(ops::Engine& engine, models::Llama& model, const tokenizers::Tokenizer& tokenizer,
            const GenerateOptions& options = {});

  // Called after each new token of request `index`, with the text that is certain by now; for streaming.
  using OnText = std::function<void(std::size_t index, std::string_view text)>;
  // Answers in the order of the requests. Raises InvalidArgument when a prompt does not fit the context, Cancelled on
  // Ctrl-C. `on_done` is called with the number of finished requests.
  std::vector<Answer> run(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done = {},
                          const OnText& on_text = {});

 private:
  struct Sequence;
  void run_batch(std::span<const Request> requests, std::span<const std::size_t> indices, std::vector<Answer>& answers,
                 const OnText& on_text);
  bool step(const Request& request, Sequence& sequence, std::span<float> logits, Answer& answer);

  ops::Engine& engine_;
  models::Llama& model_;
  const tokenizers::Tokenizer& tokenizer_;
  GenerateOptions options_;
};

}  // namespace instruct::generate
