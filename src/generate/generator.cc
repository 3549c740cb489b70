#include "generate/generator.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <tuple>

#include "base/cancel.h"
#include "base/error.h"
#include "data/layout.h"
#include "generate/pass_tokens.h"

namespace instruct::generate {

namespace {

// One answer in the making.
struct Sequence : Path {
  Sequence(std::size_t request_index, const Request& request, const tokenizers::Tokenizer& tokenizer, std::int64_t room,
           BlockPool& pool)
      : Path(request, pool), index(request_index), writer(request, tokenizer, room) {}

  std::size_t index;  // of the request
  Writer writer;
  LookupCounts counts;
};

}  // namespace

// Answers written side by side over one cache. Every pass adds tokens to each answer that goes on, and computes the
// prompts of requests that begin where there is room.
class Generator::Run {
 public:
  Run(Generator& generator, std::span<const Request> requests, const OnText& on_text)
      : generator_(generator),
        requests_(requests),
        on_text_(on_text),
        answers_(requests.size()),
        order_(requests.size()),
        pool_(blocks_needed(), generator.options_.block_tokens),
        cache_(generator.model_.make_cache(pool_.blocks() * pool_.block_tokens(), generator.engine_.allocator(),
                                           generator.options_.cache_type)) {
    // Neighbours in token order share most, where their adapter is the same.
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return std::tie(requests[a].adapter, requests[a].prompt) < std::tie(requests[b].adapter, requests[b].prompt);
    });
  }

  std::vector<Answer> answers(const std::function<void(std::int64_t)>& on_done) {
    while (done_ < size_of_requests()) {
      throw_if_cancelled("generation");
      const std::int64_t before = done_;
      propose_and_reserve();
      admit();
      step();
      if (on_done && done_ > before) on_done(done_);
    }
    const std::int64_t slots = pool_.most_used() * pool_.block_tokens();
    generator_.cache_bytes_ = std::max(generator_.cache_bytes_, slots * cache_.bytes_per_slot());
    return std::move(answers_);
  }

 private:
  std::int64_t size_of_requests() const { return static_cast<std::int64_t>(requests_.size()); }
  std::int64_t room(const Request& request) const {
    return generator_.model_.sizes().context_length - size_of(request.prompt) + request.source;
  }

  // Enough for any answer alone, and for all together up to max_slots. Memory that no token was written to is none.
  std::int64_t blocks_needed() const {
    const GenerateOptions& options = generator_.options_;
    std::int64_t longest = 0;
    std::int64_t all = 0;
    for (const Request& request : requests_) {
      const std::int64_t tokens = size_of(request.prompt) + std::min(request.max_new_tokens, room(request));
      const std::int64_t blocks = (tokens + options.block_tokens - 1) / options.block_tokens;
      longest = std::max(longest, blocks);
      all += blocks;
    }
    const std::int64_t together = std::min(all, longest * options.max_batch);
    return std::max(longest, std::min(together, options.max_slots / options.block_tokens));
  }

  // Slots for the next tokens of all active sequences, the oldest first. Where there are none the youngest sequence
  // gives up its own and waits; it is computed again later.
  void propose_and_reserve() {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      Sequence& sequence = *active_[i];
      sequence.proposal =
          look_up(sequence.tokens, std::min(generator_.options_.prompt_lookup, sequence.writer.room() - 1));
      while (!sequence.blocks.reserve(sequence.end())) {
        if (!complete_.empty()) {
          complete_.clear();
        } else if (!sequence.proposal.empty()) {
          sequence.proposal.clear();
        } else {
          wait(std::move(active_.back()));
          active_.pop_back();
          if (i == active_.size()) return;
        }
      }
    }
  }

  void wait(std::unique_ptr<Sequence> sequence) {
    sequence->blocks.clear();
    sequence->proposal.clear();
    sequence->computed = 0;
    waiting_.push_back(std::move(sequence));
  }

  // The sequence that begins next; null when all have begun.
  std::unique_ptr<Sequence> next() {
    std::unique_ptr<Sequence> sequence;
    if (!waiting_.empty()) {
      sequence = std::move(waiting_.back());
      waiting_.pop_back();
    } else if (begun_ < order_.size()) {
      const Request& request = requests_[order_[begun_]];
      sequence = std::make_unique<Sequence>(order_[begun_], request, generator_.tokenizer_, room(request), pool_);
      ++begun_;
    }
    return sequence;
  }

  // Lets requests begin while the batch, the pass and the cache have room.
  void admit() {
    std::int64_t pass_tokens = 0;
    for (const std::unique_ptr<Sequence>& sequence : active_) pass_tokens += sequence->end() - sequence->computed;
    bool begins = false;
    while (static_cast<std::int64_t>(active_.size()) < generator_.options_.max_batch) {
      std::unique_ptr<Sequence> sequence = next();
      if (sequence == nullptr) break;
      share_prefix(*sequence);
      const std::int64_t more = size_of(sequence->tokens) - sequence->computed;
      const bool too_long = begins && pass_tokens + more > generator_.options_.max_pass_tokens;
      if (too_long || !reserve_with_slack(*sequence)) {
        wait(std::move(sequence));
        if (too_long || complete_.empty()) break;
        complete_.clear();  // once more with their blocks
        continue;
      }
      begins = true;
      pass_tokens += more;
      active_.push_back(std::move(sequence));
    }
    complete_.clear();
  }

  // Leaves a block to each active sequence that may still grow: it will soon ask for one.
  bool reserve_with_slack(Sequence& sequence) const {
    const std::int64_t size = pool_.block_tokens();
    const std::int64_t need = (sequence.end() - sequence.computed + size - 1) / size;
    const auto slack = std::count_if(active_.begin(), active_.end(), [](const std::unique_ptr<Sequence>& active) {
      return active->blocks.capacity() < size_of(active->tokens) + active->writer.room();
    });
    return need + slack <= pool_.free() && sequence.blocks.reserve(sequence.end());
  }

  // Takes over the longest start that the sequence has in common with one in the cache or in this pass. Its last token
  // is computed all the same: its logits are what is asked for.
  void share_prefix(Sequence& sequence) const {
    if (generator_.options_.layout == data::Layout::kRows) return;
    const auto limit = sequence.tokens.end() - 1;
    const Sequence* best = nullptr;
    std::int64_t longest = data::kMinSavedTokens - 1;
    for (const auto* others : {&active_, &complete_}) {
      for (const std::unique_ptr<Sequence>& other : *others) {
        if (other->adapter != sequence.adapter || other->source != sequence.source) continue;
        const auto end = std::mismatch(sequence.tokens.begin(), limit, other->tokens.begin(), other->tokens.end());
        const std::int64_t common = end.first - sequence.tokens.begin();
        // A part of a source is of no use: each of its tokens has seen the rest.
        if (common <= longest || common < sequence.source) continue;
        longest = common;
        best = other.get();
      }
    }
    if (best == nullptr) return;
    sequence.blocks.share(best->blocks, longest);
    sequence.computed = longest;
  }

  void step() {
    PassTokens pass;
    for (const std::unique_ptr<Sequence>& sequence : active_) {
      if (!sequence->writer.answer().tokens.empty()) ++sequence->counts.steps;
      pass.add(*sequence);
    }
    write(generator_.model_.logits(generator_.engine_.context(), {.tokens = pass.tokens,
                                                                  .positions = pass.positions,
                                                                  .plan = &pass.plan,
                                                                  .cache = &cache_,
                                                                  .slots = pass.slots,
                                                                  .rows = pass.rows,
                                                                  .adapters = pass.adapters}));
  }

  // Adds tokens to each sequence by its rows of logits. Sequences do not depend on each other.
  void write(const tensor::Tensor& logits) {
    std::vector<std::uint8_t> goes_on(active_.size());
    generator_.engine_.threads().run(static_cast<std::int64_t>(active_.size()), [&](std::int64_t i) {
      Sequence& sequence = *active_[static_cast<std::size_t>(i)];
      const std::int64_t end = sequence.first_row + size_of(sequence.proposal) + 1;
      // Weights may be padded past the tokenizer's vocabulary: those logits belong to no token.
      const bool more = write_verified(sequence.writer, sequence.proposal, logits.rows(sequence.first_row, end),
                                       generator_.tokenizer_.vocabulary_size(), sequence.counts);
      goes_on[static_cast<std::size_t>(i)] = more ? 1 : 0;
    });
    std::vector<std::unique_ptr<Sequence>> still;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      Sequence& sequence = *active_[i];
      const Answer& answer = sequence.writer.answer();
      if (on_text_) on_text_(sequence.index, answer.text);
      if (goes_on[i] != 0) {
        sequence.tokens.resize(requests_[sequence.index].prompt.size());
        sequence.tokens.insert(sequence.tokens.end(), answer.tokens.begin(), answer.tokens.end());
        sequence.computed = size_of(sequence.tokens) - 1;
        still.push_back(std::move(active_[i]));
      } else {
        ++done_;
        generator_.counts_ += sequence.counts;
        answers_[sequence.index] = sequence.writer.take();
        complete_.push_back(std::move(active_[i]));
      }
    }
    active_ = std::move(still);
  }

  Generator& generator_;
  std::span<const Request> requests_;
  const OnText& on_text_;
  std::vector<Answer> answers_;
  std::int64_t done_ = 0;
  std::vector<std::size_t> order_;  // of the requests
  std::size_t begun_ = 0;           // how many of them have begun
  BlockPool pool_;
  nn::KeyValueCache cache_;
  std::vector<std::unique_ptr<Sequence>> active_;    // the oldest first
  std::vector<std::unique_ptr<Sequence>> waiting_;   // begun, but out of the cache; the oldest last
  std::vector<std::unique_ptr<Sequence>> complete_;  // in the last pass; others may still take over their prefix
};

void check_request(const Request& request, std::int64_t context_length) {
  const std::int64_t length = size_of(request.prompt) - request.source;  // of what the answer is written behind
  if (request.source < 0 || length == 0) raise(ErrorCategory::kInvalidArgument, "a prompt is empty");
  if (request.max_new_tokens < 1)
    raise(ErrorCategory::kInvalidArgument, "max_new_tokens is {}, at least 1 is needed", request.max_new_tokens);
  if (length >= context_length) {
    raise(ErrorCategory::kInvalidArgument, "the prompt has {} tokens, the model's context is {}", length,
          context_length);
  }
  if (request.source > context_length) {
    raise(ErrorCategory::kInvalidArgument, "the source has {} tokens, the model's context is {}", request.source,
          context_length);
  }
}

Generator::Generator(ops::Engine& engine, models::LanguageModel& model, const tokenizers::Tokenizer& tokenizer,
                     const GenerateOptions& options)
    : engine_(engine), model_(model), tokenizer_(tokenizer), options_(options) {}

std::vector<Answer> Generator::run(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done,
                                   const OnText& on_text) {
  if (requests.empty()) return {};
  for (const Request& request : requests) check_request(request, model_.sizes().context_length);
  if (options_.beams.count == 1) return Run(*this, requests, on_text).answers(on_done);
  return with_beams(requests, on_done, on_text);
}

// What a constraint leads is written token by token, the rest is searched for.
std::vector<Answer> Generator::with_beams(std::span<const Request> requests,
                                          const std::function<void(std::int64_t)>& on_done, const OnText& on_text) {
  std::vector<Request> parts[2];
  std::vector<std::size_t> places[2];
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const std::size_t part = requests[i].constraint != nullptr ? 1 : 0;
    parts[part].push_back(requests[i]);
    places[part].push_back(i);
  }
  std::vector<Answer> found = beam_search(
      engine_, model_, tokenizer_, parts[0], options_.beams,
      {.max_batch = options_.max_batch, .max_slots = options_.max_slots, .cache_type = options_.cache_type}, on_done);
  std::vector<Answer> answers(requests.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (on_text) on_text(places[0][i], found[i].text);
    answers[places[0][i]] = std::move(found[i]);
  }
  const auto done = static_cast<std::int64_t>(parts[0].size());
  if (parts[1].empty()) return answers;
  std::vector<Answer> led = Run(*this, parts[1], {}).answers([&](std::int64_t count) {
    if (on_done) on_done(done + count);
  });
  for (std::size_t i = 0; i < led.size(); ++i) {
    if (on_text) on_text(places[1][i], led[i].text);
    answers[places[1][i]] = std::move(led[i]);
  }
  return answers;
}

}  // namespace instruct::generate
