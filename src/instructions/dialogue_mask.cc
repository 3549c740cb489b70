#include "instructions/dialogue_mask.h"

#include <algorithm>
#include <optional>

namespace instruct::instructions {
namespace {

using templates::Rendered;
using tokenizers::TextRange;
using tokenizers::Token;

// From the first to the last byte that came from message k.
std::optional<TextRange> content_range(const Rendered& rendered, std::size_t k) {
  std::optional<TextRange> range;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source != static_cast<int>(k) + 1 || span.begin == span.end) continue;
    if (!range) range = TextRange{span.begin, span.end};
    range->end = span.end;
  }
  return range;
}

// Where the answers start, given where their own words do.
class Beginnings {
 public:
  Beginnings(const Rendered& rendered, const ServedPrompt& served, std::size_t last_own)
      : text_(rendered.text), served_(served) {
    if (!text_.starts_with(served.text) || served.text.size() > last_own) return;
    const std::string lead = text_.substr(served.text.size(), last_own - served.text.size());
    // A template that opens no answers is served without what names their speaker: nobody wants that in an answer.
    const bool blank = lead.find_first_not_of(" \t\r\n") == std::string::npos;
    if (served.opening.empty() && !blank) return;
    known_ = served.text.size();
    lead_ = lead;
  }

  // The last answer is served with a known prompt.
  std::size_t of_last(std::size_t own, std::size_t done) const { return known_ ? *known_ : of_earlier(own, done); }

  // Earlier ones start behind what opens the last one too, or with what stands between its prompt and its words.
  // `done`: where the messages before end.
  std::size_t of_earlier(std::size_t own, std::size_t done) const {
    const std::string& opening = served_.opening;
    if (!opening.empty() && own >= opening.size()) {
      const std::size_t at = text_.rfind(opening, own - opening.size());
      if (at != std::string::npos && at >= done) return at + opening.size();
    }
    const bool led = own >= lead_.size() + done && text_.compare(own - lead_.size(), lead_.size(), lead_) == 0;
    return led ? own - lead_.size() : own;
  }

 private:
  const std::string& text_;
  const ServedPrompt& served_;
  std::optional<std::size_t> known_;
  std::string lead_;  // between the served prompt and the last answer's own words: the model has to write it
};

class Marker {
 public:
  Marker(std::span<const Token> tokens, const tokenizers::Tokenizer& tokenizer, const Rendered& rendered,
         const ServedPrompt& served, EncodedDialogue& result)
      : tokens_(tokens), tokenizer_(tokenizer), own_text_(template_ranges(rendered)), result_(result) {
    for (const Token& token : tokenizer.encode_with_specials(served.opening)) {
      if (!opener_ && tokenizer.is_special(token.id)) opener_ = token.id;
    }
  }

  void mark(TextRange answer) {
    std::size_t i = 0;
    while (i < tokens_.size() && tokens_[i].end <= answer.begin) ++i;
    bool ended = false;
    for (; i < tokens_.size() && tokens_[i].begin < answer.end; ++i) {
      if (tokens_[i].begin < answer.begin || tokens_[i].end > answer.end) result_.seams.push_back(i);
      result_.trained[i] = 1;
      // The answer may hold its end-of-turn token, and white space behind that.
      ended = ends_turn(tokens_[i]) || (ended && by_template(tokens_[i]) && !tokenizer_.is_special(tokens_[i].id));
    }
    result_.end_trained = ended || mark_end(i);
  }

 private:
  // What the template itself writes from token `from` to the end-of-turn token must be produced to end the turn, other
  // special tokens too (<|END_RESPONSE|><|END_OF_TURN_TOKEN|>). Where text of a message or a new turn comes first,
  // there is no end.
  bool mark_end(std::size_t from) {
    for (std::size_t j = from; j < tokens_.size() && by_template(tokens_[j]); ++j) {
      const std::int32_t id = tokens_[j].id;
      if (ends_turn(tokens_[j])) {
        for (std::size_t t = from; t <= j; ++t) result_.trained[t] = 1;
        return true;
      }
      if (id == opener_ || id == tokenizer_.bos()) return false;
    }
    return false;
  }

  bool ends_turn(const Token& token) const {
    const std::vector<std::int32_t>& ends = tokenizer_.end_of_generation();
    return by_template(token) && std::find(ends.begin(), ends.end(), token.id) != ends.end();
  }
  bool by_template(const Token& token) const {
    return std::any_of(own_text_.begin(), own_text_.end(),
                       [&](const TextRange& range) { return range.begin <= token.begin && token.end <= range.end; });
  }

  std::span<const Token> tokens_;
  const tokenizers::Tokenizer& tokenizer_;
  std::vector<TextRange> own_text_;
  EncodedDialogue& result_;
  std::optional<std::int32_t> opener_;  // the special token that opens an answer, and for most templates any turn
};

}  // namespace

std::vector<TextRange> template_ranges(const Rendered& rendered) {
  std::vector<TextRange> ranges;
  for (const templates::TextSpan& span : rendered.spans) {
    if (span.source != 0 || span.begin == span.end) continue;
    if (!ranges.empty() && ranges.back().end == span.begin)
      ranges.back().end = span.end;
    else
      ranges.push_back({span.begin, span.end});
  }
  return ranges;
}

std::vector<TextRange> answer_ranges(const Rendered& rendered, std::span<const Message> messages,
                                     const ServedPrompt& served) {
  std::vector<TextRange> ranges;
  for (const auto& [begin, end] : rendered.generation) ranges.push_back({begin, end});
  if (!ranges.empty()) return ranges;
  std::size_t last = 0;
  for (std::size_t k = 0; k < messages.size(); ++k) {
    if (messages[k].role == "assistant") last = k;
  }
  const std::optional<TextRange> last_range = content_range(rendered, last);
  const Beginnings beginnings(rendered, served, last_range ? last_range->begin : 0);
  std::size_t done = 0;  // bytes of earlier messages
  for (std::size_t k = 0; k < messages.size(); ++k) {
    std::optional<TextRange> range = content_range(rendered, k);
    if (!range) continue;
    if (messages[k].role == "assistant") {
      const std::size_t begin =
          k == last ? beginnings.of_last(range->begin, done) : beginnings.of_earlier(range->begin, done);
      ranges.push_back({begin, range->end});
    }
    done = std::max(done, range->end);
  }
  return ranges;
}

void mark_answers(std::span<const TextRange> answers, std::span<const Token> tokens,
                  const tokenizers::Tokenizer& tokenizer, const Rendered& rendered, const ServedPrompt& served,
                  EncodedDialogue& result) {
  Marker marker(tokens, tokenizer, rendered, served, result);
  for (const TextRange& answer : answers) marker.mark(answer);
}

}  // namespace instruct::instructions
