#include "generate/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "base/text.h"
#include "data/layout.h"

namespace instruct::generate {

using tensor::KeyRange;

// One answer in the making. Its tokens' keys and values lie in cache slots [first_slot, next_slot).
struct Generator::Sequence {
  std::size_t index = 0;         // of the request
  std::vector<KeyRange> prompt;  // cache slots of the prompt's path through the tree
  std::int64_t length = 0;       // tokens so far, prompt included
  std::int64_t first_slot = 0;
  std::int64_t next_slot = 0;
  std::int32_t last = 0;
  RandomStream random{0, RandomPurpose::kSample};
};

namespace {

// Slots a row sees: its ancestors' and its own segment's, up to its last token.
std::vector<KeyRange> path_of(const data::Batch& batch, std::int32_t end) {
  for (std::size_t s = 0; s < batch.segments.size(); ++s) {
    if (end < batch.segments[s].begin || end >= batch.segments[s].end) continue;
    std::vector<KeyRange> path = batch.plan.queries[s].visible;
    path.push_back({batch.segments[s].begin, end + 1});
    return path;
  }
  raise(ErrorCategory::kInternal, "token {} lies in no segment", end);
}

// Cuts the text before the first stop text; true when there was one.
bool cut_at_stop(std::string& text, const std::vector<std::string>& stops) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  if (first == std::string::npos) return false;
  text.resize(first);
  return true;
}

}  // namespace

Generator::Generator(ops::Engine& engine, models::Llama& model, const tokenizers::Tokenizer& tokenizer,
                     const GenerateOptions& options)
    : engine_(engine), model_(model), tokenizer_(tokenizer), options_(options) {}

std::vector<Answer> Generator::run(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done,
                                   const OnText& on_text) {
  std::vector<Answer> answers(requests.size());
  for (const Request& request : requests) {
    const auto length = static_cast<std::int64_t>(request.prompt.size());
    if (length == 0) raise(ErrorCategory::kInvalidArgument, "a prompt is empty");
    if (length >= model_.config().context_length) {
      raise(ErrorCategory::kInvalidArgument, "the prompt has {} tokens, the model's context is {}", length,
            model_.config().context_length);
    }
  }
  // Neighbours in token order share most; batches are cut from that order.
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return requests[a].prompt < requests[b].prompt; });
  std::size_t begin = 0;
  while (begin < order.size()) {
    std::size_t end = begin;
    std::int64_t tokens = 0;
    while (end < order.size() && static_cast<std::int64_t>(end - begin) < options_.max_batch) {
      tokens += static_cast<std::int64_t>(requests[order[end]].prompt.size());
      if (end > begin && tokens > options_.max_batch_tokens) break;
      ++end;
    }
    run_batch(requests, std::span(order).subspan(begin, end - begin), answers, on_text);
    begin = end;
    if (on_done) on_done(static_cast<std::int64_t>(begin));
  }
  return answers;
}

void Generator::run_batch(std::span<const Request> requests, std::span<const std::size_t> indices,
                          std::vector<Answer>& answers, const OnText& on_text) {
  std::vector<data::EncodedRow> rows(indices.size());
  std::vector<const data::EncodedRow*> pointers;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    rows[i].tokens = requests[indices[i]].prompt;
    rows[i].trained.assign(rows[i].tokens.size(), 0);
    pointers.push_back(&rows[i]);
  }
  const data::Batch batch = data::make_batch(pointers, data::Layout::kTree);
  const auto prompt_slots = static_cast<std::int64_t>(batch.tokens.size());
  std::vector<Sequence> active;
  std::int64_t slots = prompt_slots;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const Request& request = requests[indices[i]];
    const auto length = static_cast<std::int64_t>(request.prompt.size());
    Sequence sequence{.index = indices[i],
                      .prompt = path_of(batch, batch.row_ends[i]),
                      .length = length,
                      .first_slot = slots,
                      .next_slot = slots,
                      .random = RandomStream(request.sampling.seed, RandomPurpose::kSample, indices[i])};
    slots += std::min(request.max_new_tokens, model_.config().context_length - length);
    active.push_back(std::move(sequence));
  }
  nn::KeyValueCache cache = model_.make_cache(slots, engine_.allocator());
  const ops::Context context = engine_.context();
  std::vector<std::int32_t> prompt_slot_ids(batch.tokens.size());
  std::iota(prompt_slot_ids.begin(), prompt_slot_ids.end(), 0);
  tensor::Tensor logits = model_.logits(context, {.tokens = batch.tokens,
                                                  .positions = batch.positions,
                                                  .plan = &batch.plan,
                                                  .cache = &cache,
                                                  .slots = prompt_slot_ids,
                                                  .rows = batch.row_ends});
  while (!active.empty()) {
    throw_if_cancelled("generation");
    std::vector<Sequence> still;
    for (std::size_t i = 0; i < active.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      Sequence& sequence = active[i];
      Answer& answer = answers[sequence.index];
      const std::span<float> scores(logits.data<float>() + row * logits.dim(1),
                                    static_cast<std::size_t>(tokenizer_.vocabulary_size()));
      const bool goes_on = step(requests[sequence.index], sequence, scores, answer);
      if (on_text) on_text(sequence.index, answer.text);
      if (goes_on) still.push_back(std::move(sequence));
    }
    active = std::move(still);
    if (active.empty()) break;
    std::vector<std::int32_t> tokens, positions, slot_ids;
    tensor::AttentionPlan plan;
    for (std::size_t i = 0; i < active.size(); ++i) {
      Sequence& sequence = active[i];
      const auto row = static_cast<std::int64_t>(i);
      tokens.push_back(sequence.last);
      positions.push_back(static_cast<std::int32_t>(sequence.length - 1));
      slot_ids.push_back(static_cast<std::int32_t>(sequence.next_slot));
      tensor::QuerySegment query{
          .begin = row, .end = row + 1, .self_begin = sequence.next_slot, .visible = sequence.prompt};
      if (sequence.next_slot > sequence.first_slot) query.visible.push_back({sequence.first_slot, sequence.next_slot});
      plan.queries.push_back(std::move(query));
      ++sequence.next_slot;
    }
    logits = model_.logits(
        context, {.tokens = tokens, .positions = positions, .plan = &plan, .cache = &cache, .slots = slot_ids});
  }
}

// Chooses the next token of one answer; false when the answer is complete.
bool Generator::step(const Request& request, Sequence& sequence, std::span<float> logits, Answer& answer) {
  const auto& ends = tokenizer_.end_of_generation();
  if (request.sampling.repetition_penalty != 1.0) {
    std::vector<std::int32_t> seen = request.prompt;
    seen.insert(seen.end(), answer.tokens.begin(), answer.tokens.end());
    penalise_repeats(logits, seen, request.sampling.repetition_penalty);
  }
  if (request.constraint != nullptr) {
    instructions::TokenMask mask(tokenizer_.vocabulary_size());
    request.constraint->allowed(mask);
    mask.apply(logits);
  }
  if (request.ignore_end) {
    for (const std::int32_t end : ends) logits[static_cast<std::size_t>(end)] = -INFINITY;
  }
  const std::int32_t token = sample(logits, request.sampling, sequence.random);
  if (!std::isfinite(logits[static_cast<std::size_t>(token)])) {
    if (request.constraint == nullptr) raise(ErrorCategory::kNumeric, "the model's logits are not finite");
    answer.finish = Finish::kStop;  // the constraint allows nothing more
    return false;
  }
  answer.log_probability += log_probability(logits, token);
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    answer.finish = Finish::kStop;
    return false;
  }
  answer.tokens.push_back(token);
  if (request.constraint != nullptr) request.constraint->advance(token);
  answer.text = tokenizer_.decode(answer.tokens, tokenizers::SpecialTokens::kSkip);
  if (cut_at_stop(answer.text, request.stop)) {
    answer.finish = Finish::kStop;
    return false;
  }
  sequence.last = token;
  ++sequence.length;
  if (static_cast<std::int64_t>(answer.tokens.size()) < request.max_new_tokens &&
      sequence.length < model_.config().context_length) {
    return true;
  }
  if (request.constraint != nullptr) answer.text += request.constraint->completion().value_or("");
  return false;
}

}  // namespace instruct::generate
