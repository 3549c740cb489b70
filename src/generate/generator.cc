#include "generate/generator.h"

#include <algorithm>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "data/layout.h"

namespace instruct::generate {

using tensor::KeyRange;

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

std::vector<KeyRange> shifted(std::vector<KeyRange> ranges, std::int64_t slots) {
  for (KeyRange& range : ranges) range = {range.begin + slots, range.end + slots};
  return ranges;
}

// What a prompt adds to a batch in token order, roughly: all of it, or what it does not share with the one before.
std::int64_t added_tokens(std::span<const std::int32_t> prompt, std::span<const std::int32_t> before) {
  const auto shared = std::mismatch(prompt.begin(), prompt.end(), before.begin(), before.end()).first - prompt.begin();
  const auto length = static_cast<std::int64_t>(prompt.size());
  return shared >= data::kMinSharedTokens ? length - shared : length;
}

}  // namespace

// Answers written side by side over one cache. Prompts are computed pass by pass, then every pass adds a token to each
// answer that goes on.
class Generator::Batch {
 public:
  Batch(Generator& generator, std::span<const Request> requests, const OnText& on_text)
      : generator_(generator), requests_(requests), on_text_(on_text) {}

  // `passes` are the requests by pass, in token order.
  void run(const std::vector<std::vector<std::size_t>>& passes, std::vector<Answer>& answers) {
    std::vector<PromptPass> prompts;
    for (const std::vector<std::size_t>& pass : passes) prompts.push_back(lay_out(pass));
    nn::KeyValueCache cache = generator_.model_.make_cache(used_slots_, generator_.engine_.allocator());
    cache_ = &cache;
    std::vector<Sequence> active;
    for (PromptPass& pass : prompts) {
      throw_if_cancelled("generation");
      compute(pass, answers);
      std::move(pass.sequences.begin(), pass.sequences.end(), std::back_inserter(active));
    }
    while (!active.empty()) {
      throw_if_cancelled("generation");
      advance(active, answers);
    }
  }

 private:
  // One answer in the making.
  struct Sequence {
    std::size_t index = 0;             // of the request
    std::vector<KeyRange> prompt;      // cache slots of the prompt's path through the tree
    std::int64_t first_slot = 0;       // of the answer
    std::vector<std::int32_t> tokens;  // of prompt and answer
    std::vector<std::int32_t> proposal;
    std::int64_t first_row = 0;  // of its logits in the pass
    Writer writer;
    LookupCounts counts;
    // Of the last token. What was proposed and not chosen leaves slots that are written again.
    std::int64_t next_slot() const { return first_slot + static_cast<std::int64_t>(writer.answer().tokens.size()) - 1; }
  };

  // Prompts of one pass with the answers they begin.
  struct PromptPass {
    data::Batch batch;
    std::vector<std::int32_t> slots;
    std::vector<Sequence> sequences;
  };

  // Gives prompts, and the answers to come, their slots.
  PromptPass lay_out(const std::vector<std::size_t>& indices) {
    std::vector<data::EncodedRow> rows(indices.size());
    std::vector<const data::EncodedRow*> pointers;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      rows[i].tokens = requests_[indices[i]].prompt;
      rows[i].trained.assign(rows[i].tokens.size(), 0);
      pointers.push_back(&rows[i]);
    }
    PromptPass pass{.batch = data::make_batch(pointers, data::Layout::kTree)};
    const auto prompt_tokens = static_cast<std::int64_t>(pass.batch.tokens.size());
    pass.slots.resize(pass.batch.tokens.size());
    std::iota(pass.slots.begin(), pass.slots.end(), static_cast<std::int32_t>(used_slots_));
    std::int64_t next_slot = used_slots_ + prompt_tokens;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const Request& request = requests_[indices[i]];
      const auto length = static_cast<std::int64_t>(request.prompt.size());
      const std::int64_t room = generator_.model_.config().context_length - length;
      pass.sequences.push_back({.index = indices[i],
                                .prompt = shifted(path_of(pass.batch, pass.batch.row_ends[i]), used_slots_),
                                .first_slot = next_slot,
                                .tokens = request.prompt,
                                .first_row = static_cast<std::int64_t>(i),
                                .writer = Writer(request, generator_.tokenizer_, room)});
      next_slot += std::min(request.max_new_tokens, room);
    }
    for (tensor::QuerySegment& query : pass.batch.plan.queries) {
      query.self_begin += used_slots_;
      query.visible = shifted(std::move(query.visible), used_slots_);
    }
    used_slots_ = next_slot;
    return pass;
  }

  // Computes prompts and writes their answers' first tokens.
  void compute(PromptPass& pass, std::vector<Answer>& answers) {
    write(generator_.model_.logits(generator_.engine_.context(), {.tokens = pass.batch.tokens,
                                                                  .positions = pass.batch.positions,
                                                                  .plan = &pass.batch.plan,
                                                                  .cache = cache_,
                                                                  .slots = pass.slots,
                                                                  .rows = pass.batch.row_ends}),
          pass.sequences, answers);
  }

  // One pass over the last tokens of all sequences and what is proposed behind them; those that are complete leave.
  void advance(std::vector<Sequence>& sequences, std::vector<Answer>& answers) {
    std::vector<std::int32_t> tokens, positions, slots;
    tensor::AttentionPlan plan;
    for (Sequence& sequence : sequences) {
      sequence.proposal =
          look_up(sequence.tokens, std::min(generator_.options_.prompt_lookup, sequence.writer.room() - 1));
      sequence.first_row = static_cast<std::int64_t>(tokens.size());
      tokens.push_back(sequence.tokens.back());
      tokens.insert(tokens.end(), sequence.proposal.begin(), sequence.proposal.end());
      const auto position = static_cast<std::int64_t>(sequence.tokens.size()) - 1;
      const std::int64_t slot = sequence.next_slot();
      for (std::int64_t i = 0; i <= static_cast<std::int64_t>(sequence.proposal.size()); ++i) {
        // Each token for itself: its attention is then computed as in a step of its own.
        const std::int64_t row = sequence.first_row + i;
        tensor::QuerySegment query{.begin = row, .end = row + 1, .self_begin = slot + i, .visible = sequence.prompt};
        if (slot + i > sequence.first_slot) query.visible.push_back({sequence.first_slot, slot + i});
        plan.queries.push_back(std::move(query));
        positions.push_back(static_cast<std::int32_t>(position + i));
        slots.push_back(static_cast<std::int32_t>(slot + i));
      }
      ++sequence.counts.steps;
    }
    const tensor::Tensor logits = generator_.model_.logits(
        generator_.engine_.context(),
        {.tokens = tokens, .positions = positions, .plan = &plan, .cache = cache_, .slots = slots});
    write(logits, sequences, answers);
  }

  // Adds tokens to each sequence by its rows of logits. Sequences do not depend on each other.
  void write(const tensor::Tensor& logits, std::vector<Sequence>& sequences, std::vector<Answer>& answers) {
    std::vector<std::uint8_t> goes_on(sequences.size());
    generator_.engine_.threads().run(static_cast<std::int64_t>(sequences.size()), [&](std::int64_t i) {
      Sequence& sequence = sequences[static_cast<std::size_t>(i)];
      const auto rows = static_cast<std::int64_t>(sequence.proposal.size()) + 1;
      // Weights may be padded past the tokenizer's vocabulary: those logits belong to no token.
      goes_on[static_cast<std::size_t>(i)] =
          write_verified(sequence.writer, sequence.proposal, logits.rows(sequence.first_row, sequence.first_row + rows),
                         generator_.tokenizer_.vocabulary_size(), sequence.counts)
              ? 1
              : 0;
    });
    std::vector<Sequence> still;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      Sequence& sequence = sequences[i];
      if (on_text_) on_text_(sequence.index, sequence.writer.answer().text);
      if (goes_on[i] != 0) {
        const std::vector<std::int32_t>& written = sequence.writer.answer().tokens;
        sequence.tokens.resize(requests_[sequence.index].prompt.size());
        sequence.tokens.insert(sequence.tokens.end(), written.begin(), written.end());
        still.push_back(std::move(sequence));
      } else {
        generator_.counts_ += sequence.counts;
        answers[sequence.index] = sequence.writer.take();
      }
    }
    sequences = std::move(still);
  }

  Generator& generator_;
  std::span<const Request> requests_;
  const OnText& on_text_;
  nn::KeyValueCache* cache_ = nullptr;
  std::int64_t used_slots_ = 0;
};

void check_request(const Request& request, std::int64_t context_length) {
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  if (length == 0) raise(ErrorCategory::kInvalidArgument, "a prompt is empty");
  if (request.max_new_tokens < 1)
    raise(ErrorCategory::kInvalidArgument, "max_new_tokens is {}, at least 1 is needed", request.max_new_tokens);
  if (length >= context_length) {
    raise(ErrorCategory::kInvalidArgument, "the prompt has {} tokens, the model's context is {}", length,
          context_length);
  }
}

Generator::Generator(ops::Engine& engine, models::Llama& model, const tokenizers::Tokenizer& tokenizer,
                     const GenerateOptions& options)
    : engine_(engine), model_(model), tokenizer_(tokenizer), options_(options) {}

std::vector<Answer> Generator::run(std::span<const Request> requests, const std::function<void(std::int64_t)>& on_done,
                                   const OnText& on_text) {
  std::vector<Answer> answers(requests.size());
  const std::int64_t context_length = model_.config().context_length;
  for (const Request& request : requests) check_request(request, context_length);
  // Neighbours in token order share most; passes and batches are cut from that order.
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return requests[a].prompt < requests[b].prompt; });
  std::size_t begin = 0;
  while (begin < order.size()) {
    std::vector<std::vector<std::size_t>> passes;
    std::size_t end = begin;
    std::int64_t slots = 0;
    std::int64_t pass_tokens = 0;
    for (; end < order.size() && static_cast<std::int64_t>(end - begin) < options_.max_batch; ++end) {
      const Request& request = requests[order[end]];
      const auto length = static_cast<std::int64_t>(request.prompt.size());
      std::int64_t added = passes.empty() ? length : added_tokens(request.prompt, requests[order[end - 1]].prompt);
      const bool new_pass = passes.empty() || pass_tokens + added > options_.max_pass_tokens;
      if (new_pass) added = length;  // nothing is shared across passes
      const std::int64_t need = added + std::min(request.max_new_tokens, context_length - length);
      if (end > begin && slots + need > options_.max_slots) break;
      if (new_pass) {
        passes.emplace_back();
        pass_tokens = 0;
      }
      passes.back().push_back(order[end]);
      pass_tokens += added;
      slots += need;
    }
    Batch(*this, requests, on_text).run(passes, answers);
    begin = end;
    if (on_done) on_done(static_cast<std::int64_t>(begin));
  }
  return answers;
}

}  // namespace instruct::generate
