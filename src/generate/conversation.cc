#include "generate/conversation.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace instruct::generate {

Conversation::Conversation(ops::Engine& engine, models::LanguageModel& model,
                           const instructions::DialogueEncoder& dialogue, std::string system,
                           const GenerateOptions& options)
    : engine_(engine), model_(model), dialogue_(dialogue), system_(std::move(system)), options_(options) {
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!system_.empty()) messages_.push_back({"system", system_, {}});
}

void Conversation::set_system(std::string system) {
  system_ = std::move(system);
  reset();
}

Turn Conversation::reply(std::string message, const TurnOptions& options, const Listener& listener) {
  const std::vector<instructions::Message> before = messages_;
  messages_.push_back({"user", std::move(message), {}});
  try {
    Turn turn;
    const std::int64_t reserve = std::min(options.max_new_tokens, model_.sizes().context_length / 4);
    const Request request{.prompt = fitting_prompt(reserve, turn),
                          .max_new_tokens = options.max_new_tokens,
                          .sampling = options.sampling,
                          .stream = turns_++,
                          .stop = options.stop};
    generate(request, listener, turn);
    messages_.push_back({"assistant", turn.answer.text, {}});
    return turn;
  } catch (const Error&) {
    messages_ = before;
    throw;
  }
}

// The prompt, after as many of the oldest exchanges were dropped as it takes to leave room for the answer.
std::vector<std::int32_t> Conversation::fitting_prompt(std::int64_t reserve, Turn& turn) {
  const std::int64_t most = std::max<std::int64_t>(1, model_.sizes().context_length - reserve);
  for (;;) {
    std::vector<std::int32_t> prompt = dialogue_.encode_prompt(messages_);
    if (static_cast<std::int64_t>(prompt.size()) <= most) return prompt;
    const auto first = messages_.begin() + (system_.empty() ? 0 : 1);
    if (messages_.end() - first < 3) {  // nothing but the message itself
      raise(ErrorCategory::kInvalidArgument,
            "the message has {} tokens with its template, the model's context of {} leaves {} beside the answer",
            prompt.size(), model_.sizes().context_length, most);
    }
    messages_.erase(first, first + 2);  // a question and its answer
    turn.dropped_messages += 2;
  }
}

// A cache of at least so many slots. It grows by doubling; what it held is computed again, which happens rarely.
void Conversation::reserve_slots(std::int64_t slots) {
  if (cache_ && cache_->slots() >= slots) return;
  const std::int64_t size = std::min(model_.sizes().context_length, std::max<std::int64_t>(1024, 2 * slots));
  cached_.clear();
  cache_ = model_.make_cache(size, engine_.allocator(), options_.cache_type);
}

// Computes tokens behind those in the cache; logits [1 or tokens, V].
tensor::Tensor Conversation::extend(std::span<const std::int32_t> tokens, Rows wanted) {
  const auto begin = static_cast<std::int64_t>(cached_.size());
  const auto count = static_cast<std::int64_t>(tokens.size());
  std::vector<std::int32_t> slots(tokens.size());  // a token's slot is its position
  std::iota(slots.begin(), slots.end(), static_cast<std::int32_t>(begin));
  tensor::AttentionPlan plan;
  std::vector<std::int32_t> rows;  // none: all
  const auto add = [&](std::int64_t first, std::int64_t last) {
    plan.queries.push_back({.begin = first, .end = last, .self_begin = begin + first, .visible = {}});
    if (begin + first > 0) plan.queries.back().visible.push_back({0, begin + first});
  };
  if (wanted == Rows::kLast) {
    add(0, count);
    rows.push_back(static_cast<std::int32_t>(count - 1));
  } else {  // each for itself: its attention is then computed as in a step of its own
    for (std::int64_t i = 0; i < count; ++i) add(i, i + 1);
  }
  tensor::Tensor logits = model_.logits(
      engine_.context(),
      {.tokens = tokens, .positions = slots, .plan = &plan, .cache = &*cache_, .slots = slots, .rows = rows});
  cached_.insert(cached_.end(), tokens.begin(), tokens.end());
  return logits;
}

void Conversation::generate(const Request& request, const Listener& listener, Turn& turn) {
  const std::int64_t context_length = model_.sizes().context_length;
  check_request(request, context_length);
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  reserve_slots(std::min(context_length, length + request.max_new_tokens));
  // The last token is computed even when it is known: its logits are what is asked for.
  const auto known =
      std::mismatch(request.prompt.begin(), request.prompt.end() - 1, cached_.begin(), cached_.end()).first;
  cached_.resize(static_cast<std::size_t>(known - request.prompt.begin()));
  turn.computed_tokens = request.prompt.end() - known;
  tensor::Tensor logits = extend(std::span(known, request.prompt.end()), Rows::kLast);
  Writer writer(request, dialogue_.tokenizer(), context_length - length);
  std::vector<std::int32_t> tokens = request.prompt, proposal;  // prompt and answer; what is proposed to follow
  while (write_verified(writer, proposal, logits, dialogue_.tokenizer().vocabulary_size(), turn.counts)) {
    const std::vector<std::int32_t>& written = writer.answer().tokens;
    tokens.resize(request.prompt.size());
    tokens.insert(tokens.end(), written.begin(), written.end());
    cached_.resize(tokens.size() - 1);  // without what was proposed and not chosen
    if (listener && !listener(writer.answer().text)) {
      writer.stop();
      turn.interrupted = true;
      break;
    }
    proposal = look_up(tokens, std::min(options_.prompt_lookup, writer.room() - 1));
    std::vector<std::int32_t> next{tokens.back()};
    next.insert(next.end(), proposal.begin(), proposal.end());
    logits = extend(next, Rows::kAll);
    ++turn.counts.steps;
  }
  turn.answer = writer.take();
  if (listener) listener(turn.answer.text);
}

}  // namespace instruct::generate
