#include "data/wording.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "instructions/instruction_set.h"

namespace instruct::data {
namespace {

using tokenizers::TextRange;
using tokenizers::Token;

constexpr std::string_view kSeparator = "[SEP]";

bool is_given(const Token& token, const Worded::Part& part) {
  return std::any_of(part.given.begin(), part.given.end(),
                     [&](const TextRange& given) { return token.begin >= given.begin && token.end <= given.end; });
}

}  // namespace

Worded cut(const templates::Rendered& rendered, const std::string& gap) {
  Worded worded;
  const auto add = [&](std::string_view text, bool own) {
    Worded::Part& part = worded.parts.back();
    const std::size_t begin = part.text.size();
    part.text += text;
    if (!text.empty()) (own ? part.own : part.given).push_back({begin, part.text.size()});
  };
  for (const templates::TextSpan& span : rendered.spans) {
    std::string text = rendered.text.substr(span.begin, span.end - span.begin);
    if (span.source != 0) {
      add(text, false);
      continue;
    }
    for (std::size_t at = text.find(instructions::kMaskMark); at != std::string::npos;
         at = text.find(instructions::kMaskMark, at + gap.size()))
      text.replace(at, instructions::kMaskMark.size(), gap);
    const std::size_t at = worded.parts.size() == 1 ? text.find(kSeparator) : std::string::npos;
    if (at != std::string::npos) {
      add(std::string_view(text).substr(0, at), true);
      worded.parts.emplace_back();
      text.erase(0, at + kSeparator.size());
    }
    add(text, true);
  }
  return worded;
}

std::size_t total(const Texts& texts) {
  std::size_t sum = 0;
  for (const auto& text : texts) sum += text.size();
  return sum;
}

void shorten(Texts& texts, const Worded& worded, std::size_t room, Overflow overflow) {
  std::vector<std::vector<std::size_t>> given(texts.size());  // what may go, the first to go last
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t at = 0; at < texts[i].size(); ++at) {
      if (is_given(texts[i][at], worded.parts[i])) given[i].push_back(at);
    }
    if (overflow == Overflow::kLeft) std::reverse(given[i].begin(), given[i].end());
    sizes.push_back(texts[i].size());
  }
  for (std::size_t excess = total(texts) > room ? total(texts) - room : 0; excess > 0; --excess) {
    std::optional<std::size_t> longest;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      if (!given[i].empty() && (!longest || sizes[i] > sizes[*longest])) longest = i;
    }
    if (!longest) raise(ErrorCategory::kBadData, "the template's own text is longer than the {} tokens that fit", room);
    constexpr std::int32_t kGone = -1;
    texts[*longest][given[*longest].back()].id = kGone;
    given[*longest].pop_back();
    --sizes[*longest];
  }
  for (auto& text : texts) std::erase_if(text, [](const Token& token) { return token.id < 0; });
}

tokenizers::EncodedInput frame(const tokenizers::Tokenizer& tokenizer, const Texts& texts) {
  return texts.size() == 1 ? tokenizer.frame(texts[0]) : tokenizer.frame(texts[0], texts[1]);
}

}  // namespace instruct::data
