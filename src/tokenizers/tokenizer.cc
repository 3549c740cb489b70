// A text is cut at the tokens that are searched in it (added_tokens.h); what lies between is normalised, cut again at
// the tokens searched in normalised text, prepared, split into pieces, and each piece merged (byte_pair.h). Offsets
// are led back through every change (normalise.h).
#include "tokenizers/tokenizer.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/added_tokens.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/byte_pair.h"
#include "tokenizers/fingerprint.h"
#include "tokenizers/normalise.h"
#include "tokenizers/split.h"
#include "tokenizers/unigram.h"
#include "tokenizers/word_piece.h"

namespace instruct::tokenizers {
namespace {

// Names chat models give their end-of-turn token.
constexpr std::string_view kEndNames[] = {"<|im_end|>",    "<|eot_id|>", "<|end_of_text|>",
                                          "<|endoftext|>", "<|end|>",    "<end_of_turn>",
                                          "<|eom_id|>",    "</s>",       "<|end_of_turn|>"};

bool is_searched(TokenKind kind) {
  return kind == TokenKind::kSpecial || kind == TokenKind::kUserDefined || kind == TokenKind::kUnknown;
}

std::string with_replaced(std::string text, std::string_view from, std::string_view to) {
  if (from.empty()) return text;
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

void check_id(const TokenizerSpec& spec, const char* name, std::int32_t id) {
  if (id >= 0 && static_cast<std::size_t>(id) < spec.tokens.size()) return;
  raise(ErrorCategory::kBadData, "{}: {} token id {} is outside the vocabulary of {}", spec.name, name, id,
        spec.tokens.size());
}

void check_part(const TokenizerSpec& spec, const FramePart& part, std::int32_t texts) {
  if (part.text < 0) check_id(spec, "post-processor", part.id);
  if (part.type_id < 0) raise(ErrorCategory::kBadData, "{}: post-processor: type id {}", spec.name, part.type_id);
  if (part.text < texts) return;
  raise(ErrorCategory::kBadData, "{}: a post-processor's template names text {} of {}", spec.name, part.text + 1,
        texts);
}

void check(TokenizerSpec& spec) {
  if (spec.tokens.empty()) raise(ErrorCategory::kBadData, "{}: the vocabulary is empty", spec.name);
  spec.kinds.resize(spec.tokens.size(), TokenKind::kNormal);
  for (const auto& [name, id] :
       {std::pair{"bos", spec.bos}, {"eos", spec.eos}, {"pad", spec.pad}, {"unknown", spec.unknown}}) {
    if (id) check_id(spec, name, *id);
  }
  for (const std::int32_t id : spec.end_of_turn) check_id(spec, "end-of-turn", id);
  for (const MatchRule& rule : spec.match_rules) check_id(spec, "added", rule.id);
  if (spec.longest_word < 0)
    raise(ErrorCategory::kBadData, "{}: longest word: {} characters", spec.name, spec.longest_word);
  for (const FramePart& part : spec.single) check_part(spec, part, 1);
  for (const FramePart& part : spec.pair) check_part(spec, part, 2);
}

// What pieces of text are looked up as; empty for what text cannot become.
std::string text_of(const TokenizerSpec& spec, std::size_t id) {
  const TokenKind kind = spec.kinds[id];
  const std::string& token = spec.tokens[id];
  if (kind != TokenKind::kNormal && kind != TokenKind::kUserDefined && kind != TokenKind::kByte) return {};
  if (kind == TokenKind::kUserDefined && spec.model == ModelKind::kWordPiece) return {};  // searched, never cut to
  if (spec.alphabet == Alphabet::kCharacters) return token;
  auto bytes = bytes_of_spelling(token);
  if (kind == TokenKind::kUserDefined) return std::move(bytes).value_or("");
  return std::move(bytes).value_or(token);
}

// What a token of characters adds to a decoded text.
std::string decoded_characters(const TokenizerSpec& spec, std::size_t id) {
  const std::string& token = spec.tokens[id];
  if (spec.kinds[id] == TokenKind::kByte) {
    if (const auto byte = byte_of_fallback_token(token)) return std::string(1, static_cast<char>(*byte));
  }
  return with_replaced(token, spec.space_symbol, " ");
}

// What a token of WordPiece adds behind another: a space, unless it goes on with a word.
std::string decoded_word_part(const TokenizerSpec& spec, std::size_t id) {
  const std::string& token = spec.tokens[id];
  const std::string& prefix = spec.continuing_prefix;
  if (!prefix.empty() && token.starts_with(prefix)) return token.substr(prefix.size());
  const bool joins = spec.clean_up_spaces && (token == "." || token == "?" || token == "!" || token == ",");
  return joins ? token : " " + token;
}

std::string decoded_token(const TokenizerSpec& spec, std::size_t id) {
  return spec.model == ModelKind::kWordPiece ? decoded_word_part(spec, id) : decoded_characters(spec, id);
}

std::unique_ptr<const PieceEncoder> make_encoder(const TokenizerSpec& spec, const std::vector<std::string>& texts) {
  if (spec.model == ModelKind::kWordPiece) return std::make_unique<WordPieceEncoder>(spec, texts);
  if (spec.model == ModelKind::kUnigram) return std::make_unique<UnigramEncoder>(spec, texts);
  return std::make_unique<BytePairEncoder>(spec, texts);
}

template <typename Make>
std::vector<std::string> of_all(const TokenizerSpec& spec, const Make& make) {
  std::vector<std::string> result(spec.tokens.size());
  for (std::size_t id = 0; id < result.size(); ++id) result[id] = make(spec, id);
  return result;
}

TokenizerSpec checked(TokenizerSpec spec) {
  check(spec);
  return spec;
}

}  // namespace

struct Tokenizer::State {
  TokenizerSpec spec;
  std::vector<std::string> texts;    // by id, see text_of
  std::vector<std::string> decoded;  // by id, see decoded_token; empty for Alphabet::kBytes
  std::unique_ptr<const PieceEncoder> encoder;
  Normaliser normaliser;
  Normaliser preparer;
  Splitter splitter;
  AddedTokens added;                              // searched as they are spelled
  std::unique_ptr<AddedTokens> normalised_added;  // searched in normalised text; null when there is none
  std::vector<std::int32_t> ends;
  std::once_flag fingerprint_made;
  std::string fingerprint;  // made when it is asked for
  std::string nothing;

  explicit State(TokenizerSpec given)
      : spec(checked(std::move(given))),
        texts(of_all(spec, text_of)),
        decoded(spec.alphabet == Alphabet::kBytes ? std::vector<std::string>() : of_all(spec, decoded_token)),
        encoder(make_encoder(spec, texts)),
        normaliser(spec.normalisers, spec.name),
        preparer(spec.preparations, spec.name),
        splitter(spec.splits),
        added(searched(false)) {
    if (auto entries = searched(true); !entries.empty())
      normalised_added = std::make_unique<AddedTokens>(std::move(entries));
    find_ends();
  }

  // Special tokens are always searched as they are spelled: only the template's own text is searched for them.
  std::vector<AddedTokens::Entry> searched(bool normalised) const {
    std::map<std::int32_t, MatchRule> rules;
    for (const MatchRule& rule : spec.match_rules) rules[rule.id] = rule;
    std::vector<AddedTokens::Entry> entries;
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
      if (!is_searched(spec.kinds[i]) || spec.tokens[i].empty()) continue;
      AddedTokens::Entry entry{spec.tokens[i], {}, spec.kinds[i] != TokenKind::kUserDefined};
      if (const auto rule = rules.find(static_cast<std::int32_t>(i)); rule != rules.end()) entry.rule = rule->second;
      entry.rule.id = static_cast<std::int32_t>(i);
      if ((entry.rule.normalised && !entry.special && !normaliser.empty()) != normalised) continue;
      if (normalised) entry.text = normal_form(entry.text);
      entries.push_back(std::move(entry));
    }
    return entries;
  }

  std::string normal_form(std::string_view token) const {
    AlignedText text(token, 0);
    normaliser.apply(text);
    return std::string(text.view());
  }

  void find_ends() {
    const auto add = [&](std::int32_t id) {
      if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
    };
    if (spec.eos) add(*spec.eos);
    for (const std::int32_t id : spec.end_of_turn) add(id);
    for (const std::string_view name : kEndNames) {
      if (const auto id = added.id_of(name)) add(*id);
    }
  }

  bool joins_words() const { return spec.model == ModelKind::kWordPiece; }

  struct Output {
    Workspace workspace;
    std::vector<Token> tokens;

    void add(std::int32_t id, TextRange range) {
      tokens.push_back({id, static_cast<std::uint32_t>(range.begin), static_cast<std::uint32_t>(range.end)});
    }
  };

  // What is put in front stands for the byte behind it.
  void encode_prefixed(std::string_view piece, std::size_t offset, Output& out) const {
    const std::size_t first = out.tokens.size();
    std::string& text = out.workspace.text;
    text = spec.piece_prefix;
    text += piece;
    encoder->encode(text, 0, out.workspace, out.tokens);
    const auto size = static_cast<std::uint32_t>(spec.piece_prefix.size());
    const auto start = static_cast<std::uint32_t>(offset);
    for (std::size_t i = first; i < out.tokens.size(); ++i) {
      Token& token = out.tokens[i];
      token.begin = start + (token.begin < size ? 0 : token.begin - size);
      token.end = start + (token.end <= size ? 1 : token.end - size);
    }
  }

  // Text without tokens that are searched, normalised.
  void encode_plain(AlignedText text, Output& out) const {
    preparer.apply(text);
    const std::string_view view = text.view();
    const std::size_t first = out.tokens.size();
    for (const TextRange& piece : splitter.split(view)) {
      const std::string_view part = view.substr(piece.begin, piece.end - piece.begin);
      if (spec.piece_prefix.empty() || part.starts_with(spec.piece_prefix)) {
        encoder->encode(part, piece.begin, out.workspace, out.tokens);
      } else {
        encode_prefixed(part, piece.begin, out);
      }
    }
    for (std::size_t i = first; i < out.tokens.size(); ++i) {
      const TextRange range = text.origin(out.tokens[i].begin, out.tokens[i].end);
      out.tokens[i].begin = static_cast<std::uint32_t>(range.begin);
      out.tokens[i].end = static_cast<std::uint32_t>(range.end);
    }
  }

  // Text between tokens that are searched as they are spelled; it is at byte `offset`.
  void encode_between(std::string_view source, std::size_t offset, Output& out) const {
    if (source.empty()) return;
    AlignedText text(source, offset);
    repair(text);
    normaliser.apply(text);
    if (!normalised_added) {
      encode_plain(std::move(text), out);
      return;
    }
    std::size_t done = 0;
    for (const AddedTokens::Match& match : normalised_added->find(text.view(), {})) {
      if (match.begin > done) encode_plain(text.part(done, match.begin), out);
      out.add(match.id, text.origin(match.begin, match.end));
      done = match.end;
    }
    if (done < text.view().size()) encode_plain(text.part(done, text.view().size()), out);
  }
};

Tokenizer::Tokenizer(TokenizerSpec spec) : state_(std::make_unique<State>(std::move(spec))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<Token> Tokenizer::encode(std::string_view text, std::span<const TextRange> special_ranges) const {
  if (text.size() > UINT32_MAX)
    raise(ErrorCategory::kInvalidArgument, "a text of {} bytes is too long to tokenize", text.size());
  State::Output out;
  std::size_t done = 0;
  for (const AddedTokens::Match& match : state_->added.find(text, special_ranges)) {
    state_->encode_between(text.substr(done, match.begin - done), done, out);
    out.add(match.id, {match.begin, match.end});
    done = match.end;
  }
  state_->encode_between(text.substr(done), done, out);
  return std::move(out.tokens);
}

std::vector<Token> Tokenizer::encode_with_specials(std::string_view text) const {
  const TextRange all{0, text.size()};
  return encode(text, {&all, 1});
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, SpecialTokens specials) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (specials == SpecialTokens::kSkip && is_special(id)) continue;
    if (state_->joins_words() && is_special(id)) text += ' ';
    text += token_bytes(id);
  }
  if (state_->spec.strip_leading_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

const std::string& Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return state_->nothing;
  const auto i = static_cast<std::size_t>(id);
  const TokenizerSpec& spec = state_->spec;
  const TokenKind kind = spec.kinds[i];
  if (kind == TokenKind::kUnused) return state_->nothing;
  if (kind == TokenKind::kSpecial || kind == TokenKind::kUnknown) return spec.tokens[i];
  if (spec.alphabet == Alphabet::kCharacters) return state_->decoded[i];
  return kind == TokenKind::kUserDefined ? spec.tokens[i] : state_->texts[i];
}

bool Tokenizer::is_special(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return false;
  const TokenKind kind = state_->spec.kinds[static_cast<std::size_t>(id)];
  return kind == TokenKind::kSpecial || kind == TokenKind::kUnknown;
}

std::optional<std::int32_t> Tokenizer::find(std::string_view token) const {
  if (const auto id = state_->added.id_of(token)) return id;
  if (state_->normalised_added) {
    if (const auto id = state_->normalised_added->id_of(state_->normal_form(token))) return id;
  }
  std::int32_t id = state_->encoder->find(token);
  if (id < 0 && state_->spec.alphabet == Alphabet::kCharacters && !state_->spec.space_symbol.empty())
    id = state_->encoder->find(with_replaced(std::string(token), " ", state_->spec.space_symbol));
  return id < 0 ? std::nullopt : std::optional(id);
}

std::int64_t Tokenizer::vocabulary_size() const {
  return static_cast<std::int64_t>(state_->spec.tokens.size());
}
std::optional<std::int32_t> Tokenizer::bos() const {
  return state_->spec.bos;
}
std::optional<std::int32_t> Tokenizer::eos() const {
  return state_->spec.eos;
}
std::optional<std::int32_t> Tokenizer::pad() const {
  return state_->spec.pad;
}
std::optional<std::int32_t> Tokenizer::mask() const {
  for (const std::string_view spelling : {"[MASK]", "<mask>"}) {
    if (const auto id = find(spelling); id && is_special(*id)) return id;
  }
  return std::nullopt;
}
bool Tokenizer::add_bos() const {
  return state_->spec.add_bos;
}
const std::vector<std::int32_t>& Tokenizer::end_of_generation() const {
  return state_->ends;
}
const TokenizerSpec& Tokenizer::spec() const {
  return state_->spec;
}
const std::string& Tokenizer::fingerprint() const {
  State& state = *state_;
  std::call_once(state.fingerprint_made, [&] { state.fingerprint = fingerprint_of(state.spec); });
  return state.fingerprint;
}

}  // namespace instruct::tokenizers
