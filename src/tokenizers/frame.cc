// The special tokens around the texts of a model's input.
#include "tokenizers/frame.h"

#include <algorithm>

#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

std::vector<FramePart> frame_of_flags(const TokenizerSpec& spec, std::int32_t texts) {
  std::vector<FramePart> parts;
  for (std::int32_t text = 0; text < texts; ++text) {
    if (spec.add_bos && spec.bos) parts.push_back({-1, *spec.bos, text});
    parts.push_back({text, -1, text});
    if (spec.add_eos && spec.eos) parts.push_back({-1, *spec.eos, text});
  }
  return parts;
}

// What a searched token swallowed before or behind it is no part of it.
Token bare(const TokenizerSpec& spec, Token token) {
  const auto rule = std::find_if(spec.match_rules.begin(), spec.match_rules.end(),
                                 [&](const MatchRule& each) { return each.id == token.id; });
  if (rule == spec.match_rules.end() || rule->strip_left == rule->strip_right) return token;
  const auto size = static_cast<std::uint32_t>(spec.tokens[static_cast<std::size_t>(token.id)].size());
  if (token.end - token.begin <= size) return token;
  if (rule->strip_left) {
    token.begin = token.end - size;
  } else {
    token.end = token.begin + size;
  }
  return token;
}

// Neither are a token's spaces at its ends; but the one that was put before the text never was in it.
Token trimmed(const Tokenizer& tokenizer, Token token, bool first) {
  if (tokenizer.is_special(token.id)) return bare(tokenizer.spec(), token);
  const std::string& bytes = tokenizer.token_bytes(token.id);
  const std::size_t word = std::min(bytes.find_first_not_of(' '), bytes.size());
  auto before = static_cast<std::uint32_t>(word);
  const auto behind = static_cast<std::uint32_t>(bytes.size() - (bytes.find_last_not_of(' ') + 1));
  if (before == 1 && tokenizer.spec().keep_first_space && (first || token.begin == 0)) before = 0;
  token.begin = std::min(token.begin + before, token.end);
  if (token.end >= behind) token.end = std::max(token.end - behind, token.begin);
  return token;
}

EncodedInput put_together(const Tokenizer& tokenizer, std::span<const std::span<const Token>> texts) {
  EncodedInput input;
  const auto add = [&](const Token& token, const FramePart& part) {
    input.tokens.push_back(token);
    input.type_ids.push_back(part.type_id);
    input.texts.push_back(part.text);
  };
  for (const FramePart& part : frame_of(tokenizer.spec(), static_cast<std::int32_t>(texts.size()))) {
    if (part.text < 0) {
      add({part.id, 0, 0}, part);
      continue;
    }
    bool first = true;
    for (const Token& token : texts[static_cast<std::size_t>(part.text)]) {
      add(tokenizer.spec().trim_offsets ? trimmed(tokenizer, token, first) : token, part);
      first = false;
    }
  }
  return input;
}

}  // namespace

std::vector<FramePart> frame_of(const TokenizerSpec& spec, std::int32_t texts) {
  const std::vector<FramePart>& given = texts == 1 ? spec.single : spec.pair;
  return given.empty() ? frame_of_flags(spec, texts) : given;
}

EncodedInput Tokenizer::frame(std::span<const Token> text) const {
  return put_together(*this, {&text, 1});
}

EncodedInput Tokenizer::frame(std::span<const Token> first, std::span<const Token> second) const {
  const std::span<const Token> both[] = {first, second};
  return put_together(*this, both);
}

std::size_t Tokenizer::frame_size(std::size_t texts) const {
  const auto parts = frame_of(spec(), texts == 1 ? 1 : 2);
  return static_cast<std::size_t>(
      std::count_if(parts.begin(), parts.end(), [](const FramePart& part) { return part.text < 0; }));
}

}  // namespace instruct::tokenizers
