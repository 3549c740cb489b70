#include "generate/writer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "ops/cross_entropy.h"

namespace instruct::generate {

Writer::Writer(const Request& request, const tokenizers::Tokenizer& tokenizer, std::int64_t room)
    : request_(request),
      tokenizer_(tokenizer),
      most_tokens_(std::min(request.max_new_tokens, room)),
      random_(request.sampling.seed, RandomPurpose::kSample, request.stream) {
  if (request.sampling.repetition_penalty != 1.0)
    seen_.assign(request.prompt.begin() + request.source, request.prompt.end());
}

bool Writer::step(std::span<float> logits) {
  const std::int32_t token = choose(logits);
  if (!std::isfinite(logits[static_cast<std::size_t>(token)])) {
    if (request_.constraint == nullptr) raise(ErrorCategory::kNumeric, "the model's logits are not finite");
    return finish(Finish::kStop);  // the constraint allows nothing more
  }
  answer_.log_probability += ops::log_probability(logits, token);
  const auto& ends = tokenizer_.end_of_generation();
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) return finish(Finish::kStop);
  if (request_.constraint != nullptr) request_.constraint->advance(token);
  const std::size_t before = text_.size();
  append(token);
  if (cut_at_stop(before)) return finish(Finish::kStop);
  if (static_cast<std::int64_t>(answer_.tokens.size()) >= most_tokens_) {
    if (request_.constraint != nullptr) text_ += request_.constraint->completion().value_or("");
    return finish(Finish::kLength);
  }
  publish(certain());
  return true;
}

std::int32_t Writer::choose(std::span<float> logits) {
  penalise_repeats(logits, seen_, request_.sampling.repetition_penalty);
  if (request_.constraint != nullptr) {
    instructions::TokenMask mask(tokenizer_.vocabulary_size());
    request_.constraint->allowed(mask);
    mask.apply(logits);
  }
  if (request_.ignore_end) {
    for (const std::int32_t end : tokenizer_.end_of_generation()) logits[static_cast<std::size_t>(end)] = -INFINITY;
  }
  return sample(logits, request_.sampling, random_);
}

void Writer::append(std::int32_t token) {
  answer_.tokens.push_back(token);
  if (request_.sampling.repetition_penalty != 1.0) seen_.push_back(token);
  if (text_.empty()) {  // the tokenizer may strip the space in front of the first word
    text_ = tokenizer_.decode(answer_.tokens, tokenizers::SpecialTokens::kSkip);
  } else if (!tokenizer_.is_special(token)) {
    text_ += tokenizer_.token_bytes(token);
  }
}

// Cuts the text before the first stop text; true when there was one. `before`: bytes that were searched already.
bool Writer::cut_at_stop(std::size_t before) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : request_.stop) {
    if (stop.empty()) continue;
    const std::size_t from = before - std::min(before, stop.size() - 1);
    first = std::min(first, text_.find(stop, from));
  }
  if (first == std::string::npos) return false;
  text_.resize(first);
  return true;
}

// Bytes that no later token can take back: without the start of a character or of a stop text at the end.
std::size_t Writer::certain() const {
  std::size_t held = incomplete_utf8_tail(text_);
  for (const std::string& stop : request_.stop) {
    for (std::size_t n = std::min(stop.size(), text_.size() + 1); n-- > held + 1;) {
      if (text_.ends_with(std::string_view(stop).substr(0, n))) {
        held = n;
        break;
      }
    }
  }
  return std::max(published_, text_.size() - held);
}

void Writer::publish(std::size_t end) {
  if (end <= published_) return;
  answer_.text += repair_utf8(std::string_view(text_).substr(published_, end - published_));
  published_ = end;
}

bool Writer::finish(Finish how) {
  answer_.finish = how;
  publish(text_.size());
  return false;
}

}  // namespace instruct::generate
