// One answer in the making: logits to a token, tokens to text, until an end token, a stop text or the length ends it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "generate/sampling.h"
#include "instructions/constraint.h"
#include "tokenizers/tokenizer.h"

namespace instruct::generate {

struct Request {
  std::vector<std::int32_t> prompt;
  std::int64_t source = 0;  // of the prompt, tokens at the start that an encoder-decoder's encoder reads
  std::int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  // Answers with the same seed and stream are the same, whatever is generated beside them.
  std::uint64_t stream = 0;
  std::int32_t adapter = -1;      // of the adapters::AdapterSet on the model; -1: none
  std::vector<std::string> stop;  // generation ends before any of these texts
  bool ignore_end = false;        // end tokens are never chosen: answers have max_new_tokens (benchmarks)
  std::shared_ptr<instructions::Constraint> constraint;  // what may come next; made anew for every request, or null
};

enum class Finish { kStop, kLength };

struct Answer {
  std::vector<std::int32_t> tokens;  // without the end token
  // Decoded, special tokens left out, cut before a stop text, bytes that are no UTF-8 as U+FFFD. Under a constraint an
  // answer that max_new_tokens cuts is completed to a whole value.
  std::string text;
  Finish finish = Finish::kLength;
  double log_probability = 0;  // natural log, summed over tokens and the end token
};

class Writer {
 public:
  // At most `room` tokens, or the request's max_new_tokens. Request and tokenizer must outlive the writer.
  Writer(const Request& request, const tokenizers::Tokenizer& tokenizer, std::int64_t room);

  // Chooses the next token from logits [vocabulary], which are changed; false when the answer is complete. Raises
  // Numeric when no logit is finite.
  bool step(std::span<float> logits);
  // Ends an answer early, with the text so far.
  void stop() { publish(text_.size()); }
  // answer().text holds what is certain: no character and no stop text can be in the middle of its end.
  const Answer& answer() const { return answer_; }
  // Tokens the answer may still get.
  std::int64_t room() const { return most_tokens_ - static_cast<std::int64_t>(answer_.tokens.size()); }
  Answer take() { return std::move(answer_); }

 private:
  std::int32_t choose(std::span<float> logits);
  void append(std::int32_t token);
  bool cut_at_stop(std::size_t before);
  std::size_t certain() const;
  void publish(std::size_t end);
  bool finish(Finish how);

  const Request& request_;
  const tokenizers::Tokenizer& tokenizer_;
  std::int64_t most_tokens_;
  RandomStream random_;
  std::vector<std::int32_t> seen_;  // for the repetition penalty: prompt and answer
  std::string text_;                // bytes of the answer
  std::size_t published_ = 0;       // how many of them are in answer_.text
  Answer answer_;
};

}  // namespace instruct::generate
