// Byte-level byte-pair encoding (Sennrich et al., 2016; on bytes: Radford et al., 2019).
//
// Text is cut into pieces by regular expressions; the bytes of a piece start as one token each, and the neighbouring
// pair whose merge comes first in the list is joined until none is left. Short pieces scan for the best pair, long ones
// keep a heap. Whole pieces are looked up first when the model says so.
#include "tokenizers/tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/split.h"

namespace instruct::tokenizers {
namespace {

constexpr std::size_t kShortPiece = 48;  // symbols; longer pieces use the heap

std::uint64_t pair_key(std::int32_t a, std::int32_t b) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 | static_cast<std::uint32_t>(b);
}

struct PairHash {
  std::size_t operator()(std::uint64_t key) const {
    key *= 0x9E3779B97F4A7C15U;
    return static_cast<std::size_t>(key ^ key >> 32);
  }
};

struct Merge {
  std::int32_t rank;
  std::int32_t result;
};

struct Symbol {
  std::int32_t id;
  std::uint32_t begin;
  std::uint32_t end;
};

// Names chat models give their end-of-turn token.
constexpr std::string_view kEndNames[] = {"<|im_end|>",    "<|eot_id|>", "<|end_of_text|>",
                                          "<|endoftext|>", "<|end|>",    "<end_of_turn>",
                                          "<|eom_id|>",    "</s>",       "<|end_of_turn|>"};

// The text as UTF-8 that the rules apply to, and where its bytes came from.
struct Prepared {
  std::string text;                   // empty when the input is used as it is
  std::vector<std::uint32_t> origin;  // of every byte of text, and one past the end; empty when used as it is
  bool changed = false;
};

// Valid UTF-8 with invalid parts replaced.
Prepared repaired(std::string_view text) {
  Prepared prepared;
  if (!find_invalid_utf8(text)) return prepared;
  prepared.changed = true;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto bad = find_invalid_utf8(text.substr(at));
    const std::size_t good = bad.value_or(text.size() - at);
    for (std::size_t i = 0; i < good; ++i) prepared.origin.push_back(static_cast<std::uint32_t>(at + i));
    prepared.text.append(text.substr(at, good));
    at += good;
    if (!bad) break;
    // Length of this one invalid part: the repaired prefix grows by one U+FFFD at a time.
    std::size_t length = 1;
    while (at + length < text.size() && length < 3 && repair_utf8(text.substr(at, length + 1)) == "\xEF\xBF\xBD") {
      ++length;
    }
    for (int i = 0; i < 3; ++i) prepared.origin.push_back(static_cast<std::uint32_t>(at));
    prepared.text += "\xEF\xBF\xBD";
    at += length;
  }
  prepared.origin.push_back(static_cast<std::uint32_t>(text.size()));
  return prepared;
}

std::string nfc(std::string_view text) {
  utf8proc_uint8_t* result = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0) return std::string(text);
  std::string normal(reinterpret_cast<const char*>(result), static_cast<std::size_t>(length));
  std::free(result);
  return normal;
}

}  // namespace

struct Tokenizer::State {
  TokenizerSpec spec;
  std::vector<std::string> bytes;                          // by id
  std::unordered_map<std::string, std::int32_t> ids;       // by raw bytes, normal tokens
  std::unordered_map<std::string, std::int32_t> specials;  // by text, special and user-defined tokens
  std::size_t longest_special = 0;
  std::array<bool, 256> special_first{};  // first bytes of special tokens
  std::array<std::int32_t, 256> byte_ids{};
  std::unordered_map<std::uint64_t, Merge, PairHash> merges;
  std::unique_ptr<Splitter> splitter;
  std::vector<std::int32_t> ends;
  std::string fingerprint;
  std::string nothing;

  explicit State(TokenizerSpec given) : spec(std::move(given)) {
    index_tokens();
    index_merges();
    splitter = std::make_unique<Splitter>(spec.splits);
    if (spec.eos) ends.push_back(*spec.eos);
    for (const std::string_view name : kEndNames) {
      const auto found = specials.find(std::string(name));
      if (found != specials.end() && std::find(ends.begin(), ends.end(), found->second) == ends.end()) {
        ends.push_back(found->second);
      }
    }
    fingerprint = make_fingerprint();
  }

  void index_tokens() {
    const auto count = spec.tokens.size();
    if (count == 0) raise(ErrorCategory::kBadData, "{}: the vocabulary is empty", spec.name);
    spec.kinds.resize(count, TokenKind::kNormal);
    bytes.resize(count);
    byte_ids.fill(-1);
    for (std::size_t i = 0; i < count; ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const TokenKind kind = spec.kinds[i];
      if (spec.tokens[i].empty() || kind == TokenKind::kUnused) continue;
      if (kind == TokenKind::kSpecial || kind == TokenKind::kUserDefined || kind == TokenKind::kUnknown) {
        bytes[i] = spec.tokens[i];
        specials.emplace(spec.tokens[i], id);
        longest_special = std::max(longest_special, spec.tokens[i].size());
        special_first[static_cast<unsigned char>(spec.tokens[i][0])] = true;
        continue;
      }
      bytes[i] = bytes_of_spelling(spec.tokens[i]).value_or(spec.tokens[i]);
      if (!ids.emplace(bytes[i], id).second) {
        raise(ErrorCategory::kBadData, "{}: token '{}' appears twice (ids {} and {})", spec.name, spec.tokens[i],
              ids.at(bytes[i]), id);
      }
      if (bytes[i].size() == 1) byte_ids[static_cast<unsigned char>(bytes[i][0])] = id;
    }
    for (const auto& [name, id] : {std::pair{"bos", spec.bos}, {"eos", spec.eos}, {"pad", spec.pad}}) {
      if (id && (*id < 0 || *id >= static_cast<std::int64_t>(count))) {
        raise(ErrorCategory::kBadData, "{}: {} token id {} is outside the vocabulary of {}", spec.name, name, *id,
              count);
      }
    }
  }

  std::int32_t id_of_spelling(const std::string& spelling) const {
    const auto raw = bytes_of_spelling(spelling);
    const auto found = ids.find(raw.value_or(spelling));
    return found == ids.end() ? -1 : found->second;
  }

  void index_merges() {
    if (spec.merges.empty()) raise(ErrorCategory::kBadData, "{}: the tokenizer has no merges", spec.name);
    merges.reserve(spec.merges.size());
    for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
      const auto& [left, right] = spec.merges[rank];
      const std::int32_t a = id_of_spelling(left);
      const std::int32_t b = id_of_spelling(right);
      const std::int32_t result = id_of_spelling(left + right);
      if (a < 0 || b < 0 || result < 0) {
        raise(ErrorCategory::kBadData, "{}: merge {} ('{}' '{}') names a token the vocabulary does not have", spec.name,
              rank + 1, left, right);
      }
      merges.emplace(pair_key(a, b), Merge{static_cast<std::int32_t>(rank), result});
    }
  }

  std::string make_fingerprint() const {
    std::string all;
    const auto put = [&all](std::string_view part) {
      all += fmt::format("{}:", part.size());
      all += part;
    };
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
      put(spec.tokens[i]);
      all += static_cast<char>('0' + static_cast<int>(spec.kinds[i]));
    }
    for (const auto& [left, right] : spec.merges) {
      put(left);
      put(right);
    }
    for (const SplitStep& step : spec.splits) put(step.pattern);
    all += fmt::format("{}{}{}{}", spec.normalise_nfc, spec.add_prefix_space, spec.ignore_merges, spec.add_bos);
    return sha256_hex(all);
  }

  const Merge* merge_of(std::int32_t a, std::int32_t b) const {
    const auto found = merges.find(pair_key(a, b));
    return found == merges.end() ? nullptr : &found->second;
  }

  void merge_short(std::vector<Symbol>& symbols) const {
    while (symbols.size() > 1) {
      const Merge* best = nullptr;
      std::size_t place = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        const Merge* merge = merge_of(symbols[i].id, symbols[i + 1].id);
        if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
          best = merge;
          place = i;
        }
      }
      if (best == nullptr) return;
      symbols[place].id = best->result;
      symbols[place].end = symbols[place + 1].end;
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
  }

  void merge_long(std::vector<Symbol>& symbols) const {
    struct Candidate {
      std::int32_t rank;
      std::size_t left, right;
      std::int32_t left_id, right_id, result;
      bool operator>(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : left > other.left;
      }
    };
    constexpr std::size_t kNone = SIZE_MAX;
    std::vector<std::size_t> previous(symbols.size()), next(symbols.size());
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
    const auto consider = [&](std::size_t left, std::size_t right) {
      if (left == kNone || right == kNone) return;
      if (const Merge* merge = merge_of(symbols[left].id, symbols[right].id)) {
        heap.push({merge->rank, left, right, symbols[left].id, symbols[right].id, merge->result});
      }
    };
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      previous[i] = i == 0 ? kNone : i - 1;
      next[i] = i + 1 == symbols.size() ? kNone : i + 1;
    }
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) consider(i, i + 1);
    while (!heap.empty()) {
      const Candidate best = heap.top();
      heap.pop();
      if (symbols[best.left].id != best.left_id || symbols[best.right].id != best.right_id ||
          next[best.left] != best.right) {
        continue;  // one of the two was merged since
      }
      symbols[best.left].id = best.result;
      symbols[best.left].end = symbols[best.right].end;
      symbols[best.right].id = -1;
      next[best.left] = next[best.right];
      if (next[best.left] != kNone) previous[next[best.left]] = best.left;
      consider(previous[best.left], best.left);
      consider(best.left, next[best.left]);
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.id < 0; });
  }

  // Tokens of one piece at byte `offset` of the prepared text.
  void encode_piece(std::string_view piece, std::size_t offset, std::vector<Token>& out) const {
    if (spec.ignore_merges) {
      if (const auto found = ids.find(std::string(piece)); found != ids.end()) {
        out.push_back(
            {found->second, static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(offset + piece.size())});
        return;
      }
    }
    std::vector<Symbol> symbols;
    symbols.reserve(piece.size());
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::int32_t id = byte_ids[static_cast<unsigned char>(piece[i])];
      const auto at = static_cast<std::uint32_t>(offset + i);
      if (id >= 0) {
        symbols.push_back({id, at, at + 1});
      } else if (spec.unknown) {
        symbols.push_back({*spec.unknown, at, at + 1});
      }  // without an unknown token the official tokenizer drops such a byte too
    }
    if (symbols.size() <= kShortPiece) {
      merge_short(symbols);
    } else {
      merge_long(symbols);
    }
    for (const Symbol& symbol : symbols) out.push_back({symbol.id, symbol.begin, symbol.end});
  }

  // Plain text between special tokens. `origin` maps its bytes when it is not the caller's text.
  void encode_text(std::string_view text, std::size_t offset, std::vector<Token>& out) const {
    if (text.empty()) return;
    std::string changed;
    Prepared fixed = repaired(text);
    std::string_view use = fixed.changed ? std::string_view(fixed.text) : text;
    if (spec.normalise_nfc) {
      changed = nfc(use);
      if (changed != use) {
        // Composition moves bytes: every token of the stretch points at all of it, which keeps masks on the safe side.
        fixed.changed = true;
        fixed.origin.assign(changed.size() + 1, 0);
        fixed.origin.back() = static_cast<std::uint32_t>(text.size());
        use = changed;
      }
    }
    if (spec.add_prefix_space && use.front() != ' ') {
      std::string prefixed(1, ' ');
      prefixed += use;
      if (!fixed.changed) {
        for (std::size_t i = 0; i <= use.size(); ++i) fixed.origin.push_back(static_cast<std::uint32_t>(i));
        fixed.changed = true;
      }
      fixed.origin.insert(fixed.origin.begin(), 0);
      changed = std::move(prefixed);
      use = changed;
    }
    const std::size_t first = out.size();
    const std::size_t base = fixed.changed ? 0 : offset;
    for (const TextRange& piece : splitter->split(use)) {
      encode_piece(use.substr(piece.begin, piece.end - piece.begin), base + piece.begin, out);
    }
    if (!fixed.changed) return;
    for (std::size_t i = first; i < out.size(); ++i) {
      out[i].begin = static_cast<std::uint32_t>(offset) + fixed.origin[out[i].begin];
      out[i].end = static_cast<std::uint32_t>(offset) + fixed.origin[out[i].end];
    }
  }

  // The longest special token that starts at `at` and ends by `limit`.
  std::pair<std::int32_t, std::size_t> special_at(std::string_view text, std::size_t at, std::size_t limit) const {
    if (!special_first[static_cast<unsigned char>(text[at])]) return {-1, 0};
    for (std::size_t length = std::min(longest_special, limit - at); length > 0; --length) {
      const auto found = specials.find(std::string(text.substr(at, length)));
      if (found != specials.end()) return {found->second, length};
    }
    return {-1, 0};
  }
};

Tokenizer::Tokenizer(TokenizerSpec spec) : state_(std::make_unique<State>(std::move(spec))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<Token> Tokenizer::encode(std::string_view text, std::span<const TextRange> special_ranges) const {
  if (text.size() > UINT32_MAX)
    raise(ErrorCategory::kInvalidArgument, "a text of {} bytes is too long to tokenize", text.size());
  std::vector<Token> tokens;
  std::size_t done = 0;  // everything before is encoded
  for (const TextRange& range : special_ranges) {
    for (std::size_t at = range.begin; at < range.end;) {
      const auto [id, length] = state_->special_at(text, at, range.end);
      if (id < 0) {
        ++at;
        continue;
      }
      state_->encode_text(text.substr(done, at - done), done, tokens);
      tokens.push_back({id, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + length)});
      done = at = at + length;
    }
  }
  state_->encode_text(text.substr(done), done, tokens);
  return tokens;
}

std::vector<Token> Tokenizer::encode_with_specials(std::string_view text) const {
  const TextRange all{0, text.size()};
  return encode(text, {&all, 1});
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, SpecialTokens specials) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (specials == SpecialTokens::kSkip && is_special(id)) continue;
    text += token_bytes(id);
  }
  return text;
}

const std::string& Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return state_->nothing;
  return state_->bytes[static_cast<std::size_t>(id)];
}

bool Tokenizer::is_special(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return false;
  const TokenKind kind = state_->spec.kinds[static_cast<std::size_t>(id)];
  return kind == TokenKind::kSpecial || kind == TokenKind::kUnknown;
}

std::optional<std::int32_t> Tokenizer::find(std::string_view token) const {
  if (const auto found = state_->specials.find(std::string(token)); found != state_->specials.end())
    return found->second;
  if (const auto found = state_->ids.find(std::string(token)); found != state_->ids.end()) return found->second;
  return std::nullopt;
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
  return state_->fingerprint;
}

}  // namespace instruct::tokenizers
