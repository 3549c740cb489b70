#include "generate/generator.h"

#include <algorithm>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "data/layout.h"

namespace instruct::generate {

using tensor::KeyRange;

namespace {

// The first `count` slots of ranges.
std::vector<KeyRange> first_slots(std::vector<KeyRange> ranges, std::int64_t count) {
  std::size_t i = 0;
  for (; i < ranges.size() && count > 0; ++i) {
    ranges[i].end = std::min(ranges[i].end, ranges[i].begin + count);
    count -= ranges[i].end - ranges[i].begin;
  }
  ranges.resize(i);
  return ranges;
}

// What a prompt adds to a batch in token order, roughly: all of it, or what it does not share with the one before.
std::int64_t added_tokens(std::span<const std::int32_t> prompt, std::span<const std::int32_t> before) {
  const std::int64_t shared = data::common_prefix(prompt, before);
  const auto length = static_cast<std::int64_t>(prompt.size());
  return shared >= data::kMinSavedTokens ? length - shared : length;
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
    for (const std::vector<std::size_t>& pass : passes)
      prompts.push_back(lay_out(pass, prompts.empty() ? nullptr : &prompts.back()));
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
  // One answer in the making. Its tokens' keys and values lie in cache slots [first_slot, next_slot).
  struct Sequence {
    std::size_t index = 0;         // of the request
    std::vector<KeyRange> prompt;  // cache slots of the prompt's path through the tree
    std::int64_t length = 0;       // tokens so far, prompt included
    std::int64_t first_slot = 0;
    std::int64_t next_slot = 0;
    Writer writer;
  };

  // Prompts of one pass with the answers they begin.
  struct PromptPass {
    data::Batch batch;
    std::vector<std::int32_t> slots;
    std::vector<Sequence> sequences;
  };

  // Tokens at the start of all prompts of a pass that an earlier prompt has too; each keeps one of its own, which gives
  // the answer's first token.
  std::int64_t shared_with(const Request& before, const std::vector<std::size_t>& indices) const {
    auto shared = static_cast<std::int64_t>(before.prompt.size());
    for (const std::size_t index : indices) {
      const auto& prompt = requests_[index].prompt;
      shared =
          std::min({shared, data::common_prefix(before.prompt, prompt), static_cast<std::int64_t>(prompt.size()) - 1});
    }
    return shared;
  }

  // Gives prompts, and the answers to come, their slots. What they share with the last prompt of the pass before is in
  // the cache already.
  PromptPass lay_out(const std::vector<std::size_t>& indices, const PromptPass* before) {
    const data::Layout layout = generator_.options_.layout;
    std::int64_t shared = 0;
    std::vector<KeyRange> prefix;
    if (before != nullptr && layout == data::Layout::kTree) {
      shared = shared_with(requests_[before->sequences.back().index], indices);
      prefix = first_slots(before->sequences.back().prompt, shared);
    }
    std::vector<data::EncodedRow> rows(indices.size());
    std::vector<const data::EncodedRow*> pointers;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const auto& prompt = requests_[indices[i]].prompt;
      rows[i].tokens.assign(prompt.begin() + shared, prompt.end());
      rows[i].trained.assign(rows[i].tokens.size(), 0);
      pointers.push_back(&rows[i]);
    }
    PromptPass pass{.batch = data::make_batch(pointers, layout), .slots = {}, .sequences = {}};
    std::vector<std::vector<KeyRange>> paths;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      paths.push_back(prefix);
      for (const KeyRange& range : data::path_of(pass.batch, i, static_cast<std::int64_t>(rows[i].tokens.size())))
        paths.back().push_back({range.begin + used_slots_, range.end + used_slots_});
    }
    pass.slots = data::put_behind(pass.batch, prefix, used_slots_);
    std::int64_t next_slot = used_slots_ + static_cast<std::int64_t>(pass.slots.size());
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const Request& request = requests_[indices[i]];
      const auto length = static_cast<std::int64_t>(request.prompt.size());
      const std::int64_t room = generator_.model_.config().context_length - length;
      pass.sequences.push_back({.index = indices[i],
                                .prompt = std::move(paths[i]),
                                .length = length,
                                .first_slot = next_slot,
                                .next_slot = next_slot,
                                .writer = Writer(request, generator_.tokenizer_, room)});
      next_slot += std::min(request.max_new_tokens, room);
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

  // One pass over the last tokens of all sequences; those that are complete leave.
  void advance(std::vector<Sequence>& sequences, std::vector<Answer>& answers) {
    std::vector<std::int32_t> tokens, positions, slots;
    tensor::AttentionPlan plan;
    for (Sequence& sequence : sequences) {
      const auto row = static_cast<std::int64_t>(tokens.size());
      tokens.push_back(sequence.writer.answer().tokens.back());
      positions.push_back(static_cast<std::int32_t>(sequence.length++));
      slots.push_back(static_cast<std::int32_t>(sequence.next_slot));
      tensor::QuerySegment query{
          .begin = row, .end = row + 1, .self_begin = sequence.next_slot, .visible = sequence.prompt};
      if (sequence.next_slot > sequence.first_slot) query.visible.push_back({sequence.first_slot, sequence.next_slot});
      plan.queries.push_back(std::move(query));
      ++sequence.next_slot;
    }
    write(generator_.model_.logits(
              generator_.engine_.context(),
              {.tokens = tokens, .positions = positions, .plan = &plan, .cache = cache_, .slots = slots}),
          sequences, answers);
  }

  // Adds a token to each sequence by its row of logits. The rows do not depend on each other.
  void write(tensor::Tensor logits, std::vector<Sequence>& sequences, std::vector<Answer>& answers) {
    const auto vocabulary = static_cast<std::size_t>(generator_.tokenizer_.vocabulary_size());
    std::vector<std::uint8_t> goes_on(sequences.size());
    generator_.engine_.threads().run(static_cast<std::int64_t>(sequences.size()), [&](std::int64_t row) {
      // Weights may be padded past the tokenizer's vocabulary: those logits belong to no token.
      const std::span<float> scores(logits.data<float>() + row * logits.dim(1), vocabulary);
      const auto i = static_cast<std::size_t>(row);
      goes_on[i] = sequences[i].writer.step(scores) ? 1 : 0;
    });
    std::vector<Sequence> still;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      Sequence& sequence = sequences[i];
      if (on_text_) on_text_(sequence.index, sequence.writer.answer().text);
      if (goes_on[i] != 0) {
        still.push_back(std::move(sequence));
      } else {
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
      const bool shares = !passes.empty() && options_.layout == data::Layout::kTree;
      std::int64_t added = shares ? added_tokens(request.prompt, requests[order[end - 1]].prompt) : length;
      const bool new_pass = passes.empty() || pass_tokens + added > options_.max_pass_tokens;
      if (new_pass) added = length;  // at most: it may share with the pass before
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
