#include "generate/beam_search.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>

#include "base/cancel.h"
#include "base/error.h"
#include "base/text.h"
#include "generate/pass_tokens.h"
#include "ops/cross_entropy.h"

namespace instruct::generate {
namespace {

// An answer that goes on.
struct Beam {
  std::unique_ptr<Path> path;
  double score = 0;            // by which beams are compared: log P, less what repetitions cost
  double log_probability = 0;  // log P
};

// A token behind a beam.
struct Continuation {
  std::size_t beam = 0;
  std::int32_t token = 0;
  double score = 0;
};

struct Complete {
  double score = 0;  // by length
  Answer answer;
};

// The search for one answer.
class Search {
 public:
  Search(const Request& request, const tokenizers::Tokenizer& tokenizer, const BeamOptions& options, std::int64_t room,
         BlockPool& pool)
      : request_(request),
        tokenizer_(tokenizer),
        options_(options),
        // A token that answers are made to begin with is a part of them where lengths count.
        given_(request.source > 0 ? size_of(request.prompt) - request.source - 1 : 0),
        most_(std::min(request.max_new_tokens, room)),
        pool_(pool) {
    beams_.push_back({.path = std::make_unique<Path>(request, pool)});
  }

  // False when the search is over.
  bool add_to(PassTokens& pass) {
    for (Beam& beam : beams_) {
      INSTRUCT_CHECK(beam.path->blocks.reserve(beam.path->end()));
      pass.add(*beam.path);
    }
    return !beams_.empty();
  }

  // Looks at the logits of a pass; searches may do so side by side.
  void look(const tensor::Tensor& logits) { best_ = continuations(logits); }
  // Chooses the next beams.
  void step(const tensor::Tensor& logits) {
    const std::vector<Continuation> best = std::move(best_);
    ++length_;
    const bool last = length_ >= most_;
    std::vector<Continuation> open;
    bool any_open = false;
    for (std::size_t i = 0; i < best.size(); ++i) {
      const std::optional<Answer> ended = end_of(best[i], logits, last);
      any_open = any_open || !ended;
      if (!ended && open.size() < beams()) open.push_back(best[i]);
      // Those behind the first are there so that enough beams go on.
      if (ended && i < beams()) add_complete(best[i], *ended);
    }
    std::stable_sort(complete_.begin(), complete_.end(),
                     [](const Complete& a, const Complete& b) { return a.score > b.score; });
    if (complete_.size() > beams()) complete_.resize(beams());
    extend(open, logits);
    const bool full = complete_.size() == beams();
    hopeful_ = hopeful_ && (!full || (!beams_.empty() && best_possible() > complete_.back().score));
    if (!hopeful_ || !any_open || (full && options_.early_stopping == EarlyStopping::kYes)) beams_.clear();
  }

  Answer take() {
    INSTRUCT_CHECK(!complete_.empty());
    return std::move(complete_.front().answer);
  }

 private:
  std::size_t beams() const { return static_cast<std::size_t>(options_.count); }
  double by_length(double score, std::int64_t length) const {
    return score / std::pow(static_cast<double>(length + given_), options_.length_penalty);
  }
  // The best score that the first beam may get.
  double best_possible() const {
    const bool far = options_.early_stopping == EarlyStopping::kNever && options_.length_penalty > 0;
    return by_length(beams_.front().score, far ? most_ : length_);
  }

  std::span<const float> row_of(const Beam& beam, const tensor::Tensor& logits) const {
    const float* row = logits.data<float>() + beam.path->first_row * logits.row_stride();
    return {row, static_cast<std::size_t>(tokenizer_.vocabulary_size())};
  }

  // The best continuations of all beams, the best first: so many that as many go on as there are beams, whichever end.
  std::vector<Continuation> continuations(const tensor::Tensor& logits) const {
    const std::size_t wanted = beams() * std::max<std::size_t>(2, 1 + tokenizer_.end_of_generation().size());
    const auto better = [](const Continuation& a, const Continuation& b) { return a.score > b.score; };
    std::vector<Continuation> best;  // a heap, the worst first
    std::vector<float> scores;
    for (std::size_t b = 0; b < beams_.size(); ++b) {
      const std::span<const float> row = row_of(beams_[b], logits);
      const double log_sum = static_cast<double>(row[0]) - ops::log_probability(row, 0);
      if (!std::isfinite(log_sum)) raise(ErrorCategory::kNumeric, "the model's logits are not finite");
      scores.resize(row.size());
      for (std::size_t v = 0; v < row.size(); ++v)
        scores[v] = static_cast<float>(static_cast<double>(row[v]) - log_sum);
      const std::span seen = std::span(beams_[b].path->tokens).subspan(static_cast<std::size_t>(request_.source));
      penalise_repeats(scores, seen, request_.sampling.repetition_penalty);
      if (request_.ignore_end) {
        for (const std::int32_t end : tokenizer_.end_of_generation()) scores[static_cast<std::size_t>(end)] = -INFINITY;
      }
      for (std::size_t v = 0; v < scores.size(); ++v) {
        const Continuation next{b, static_cast<std::int32_t>(v), beams_[b].score + static_cast<double>(scores[v])};
        if (best.size() == wanted && !better(next, best.front())) continue;
        if (best.size() == wanted) {
          std::pop_heap(best.begin(), best.end(), better);
          best.pop_back();
        }
        best.push_back(next);
        std::push_heap(best.begin(), best.end(), better);
      }
    }
    std::sort(best.begin(), best.end(), [](const Continuation& a, const Continuation& b) {
      return std::tuple(-a.score, a.beam, a.token) < std::tuple(-b.score, b.beam, b.token);
    });
    return best;
  }

  // The answer that a continuation completes, if it does.
  std::optional<Answer> end_of(const Continuation& next, const tensor::Tensor& logits, bool last) const {
    const Beam& beam = beams_[next.beam];
    const auto& ends = tokenizer_.end_of_generation();
    const bool ended = std::find(ends.begin(), ends.end(), next.token) != ends.end();
    if (!ended && !last && request_.stop.empty()) return std::nullopt;
    Answer answer;
    answer.tokens.assign(beam.path->tokens.begin() + size_of(request_.prompt), beam.path->tokens.end());
    if (!ended) answer.tokens.push_back(next.token);
    answer.text = repair_utf8(tokenizer_.decode(answer.tokens, tokenizers::SpecialTokens::kSkip));
    answer.log_probability = beam.log_probability + ops::log_probability(row_of(beam, logits), next.token);
    const bool cut = cut_at(request_.stop, answer.text);
    answer.finish = ended || cut ? Finish::kStop : Finish::kLength;
    return ended || cut || last ? std::optional(std::move(answer)) : std::nullopt;
  }

  static bool cut_at(const std::vector<std::string>& stops, std::string& text) {
    std::size_t first = std::string::npos;
    for (const std::string& stop : stops) {
      if (!stop.empty()) first = std::min(first, text.find(stop));
    }
    if (first != std::string::npos) text.resize(first);
    return first != std::string::npos;
  }

  void add_complete(const Continuation& next, const Answer& answer) {
    const bool full = complete_.size() >= beams() && options_.early_stopping == EarlyStopping::kYes;
    if (hopeful_ && !full) complete_.push_back({by_length(next.score, length_), answer});
  }

  // The beams that go on: one takes over its parent's place in the cache, others share it.
  void extend(const std::vector<Continuation>& open, const tensor::Tensor& logits) {
    std::vector<Beam> next(open.size());
    std::vector<std::size_t> children(beams_.size(), 0);
    for (const Continuation& one : open) ++children[one.beam];
    for (std::size_t i = 0; i < open.size(); ++i) {
      Beam& parent = beams_[open[i].beam];
      next[i].score = open[i].score;
      next[i].log_probability = parent.log_probability + ops::log_probability(row_of(parent, logits), open[i].token);
      if (--children[open[i].beam] == 0) continue;
      next[i].path = std::make_unique<Path>(request_, pool_);
      next[i].path->tokens = parent.path->tokens;
      next[i].path->blocks.share(parent.path->blocks, size_of(parent.path->tokens));
    }
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (next[i].path == nullptr) next[i].path = std::move(beams_[open[i].beam].path);
      next[i].path->computed = size_of(next[i].path->tokens);
      next[i].path->tokens.push_back(open[i].token);
    }
    beams_ = std::move(next);
  }

  const Request& request_;
  const tokenizers::Tokenizer& tokenizer_;
  const BeamOptions& options_;
  std::int64_t given_;
  std::int64_t most_;        // tokens of the answer
  std::int64_t length_ = 0;  // so many are written
  BlockPool& pool_;
  std::vector<Beam> beams_;         // the best first
  std::vector<Complete> complete_;  // the best first
  std::vector<Continuation> best_;
  bool hopeful_ = true;  // an open answer may become one of the best
};

}  // namespace

EarlyStopping early_stopping_from_name(std::string_view name) {
  if (name == "false") return EarlyStopping::kNo;
  if (name == "true") return EarlyStopping::kYes;
  if (name == "never") return EarlyStopping::kNever;
  raise(ErrorCategory::kInvalidArgument, "early stopping '{}': expected false, true or never", name);
}

std::vector<Answer> beam_search(ops::Engine& engine, models::LanguageModel& model,
                                const tokenizers::Tokenizer& tokenizer, std::span<const Request> requests,
                                const BeamOptions& options, const BeamLimits& limits,
                                const std::function<void(std::int64_t)>& on_done) {
  const auto room = [&](const Request& request) {
    return model.sizes().context_length - size_of(request.prompt) + request.source;
  };
  const auto slots_of = [&](const Request& request) {
    return size_of(request.prompt) + options.count * std::min(request.max_new_tokens, room(request));
  };
  for (const Request& request : requests) {
    if (request.sampling.temperature > 0)
      raise(ErrorCategory::kInvalidArgument,
            "beam search takes the likeliest answer and does not sample: temperature 0");
    INSTRUCT_CHECK(request.constraint == nullptr);
  }
  std::vector<Answer> answers;
  while (answers.size() < requests.size()) {
    // As many searches at a time as the batch and the cache have room for.
    std::size_t end = answers.size();
    std::int64_t slots = 0;
    while (end < requests.size()) {
      const auto begun = static_cast<std::int64_t>(end - answers.size());
      const std::int64_t more = slots_of(requests[end]);
      if (begun > 0 && ((begun + 1) * options.count > limits.max_batch || slots + more > limits.max_slots)) break;
      slots += more;
      ++end;
    }
    BlockPool pool(slots, 1);  // a slot each: beams part at any token
    nn::KeyValueCache cache = model.make_cache(slots, engine.allocator(), limits.cache_type);
    std::vector<Search> searches;
    for (std::size_t i = answers.size(); i < end; ++i)
      searches.emplace_back(requests[i], tokenizer, options, room(requests[i]), pool);
    for (std::vector<Search*> active;; active.clear()) {
      throw_if_cancelled("generation");
      PassTokens pass;
      for (Search& search : searches) {
        if (search.add_to(pass)) active.push_back(&search);
      }
      if (on_done) on_done(static_cast<std::int64_t>(end - active.size()));
      if (active.empty()) break;
      const tensor::Tensor logits = model.logits(engine.context(), {.tokens = pass.tokens,
                                                                    .positions = pass.positions,
                                                                    .plan = &pass.plan,
                                                                    .cache = &cache,
                                                                    .slots = pass.slots,
                                                                    .rows = pass.rows,
                                                                    .adapters = pass.adapters});
      engine.threads().run(static_cast<std::int64_t>(active.size()),
                           [&](std::int64_t i) { active[static_cast<std::size_t>(i)]->look(logits); });
      for (Search* search : active) search->step(logits);
    }
    for (Search& search : searches) answers.push_back(search.take());
  }
  return answers;
}

}  // namespace instruct::generate
