// Text to token ids and back, exactly as the model's official tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace instruct::tokenizers {

// A token and the bytes of the encoded text it came from.
struct Token {
  std::int32_t id = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

// Bytes [begin, end) of a text.
struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

enum class TokenKind : std::uint8_t { kNormal, kSpecial, kUserDefined, kByte, kUnknown, kUnused };

// One step of pre-tokenisation: what matches becomes a piece of its own, what lies between stays a piece.
struct SplitStep {
  std::string pattern;  // PCRE syntax, Unicode
};

// Everything a tokenizer is made of, as plain data.
struct TokenizerSpec {
  std::vector<std::string> tokens;                          // by id, in the file's spelling
  std::vector<TokenKind> kinds;                             // by id
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::vector<SplitStep> splits;
  bool normalise_nfc = false;
  bool add_prefix_space = false;
  bool ignore_merges = false;  // a piece that is itself a token is taken whole
  std::optional<std::int32_t> bos, eos, pad, unknown;
  bool add_bos = false;
  std::string name;  // for messages: where it came from
};

// The pre-tokenizer steps of a GGUF `tokenizer.ggml.pre` name. Raises Unsupported naming it and those known.
std::vector<SplitStep> splits_of_gguf_name(const std::string& name);

// From tokenizer.json and (optionally) tokenizer_config.json. Raises BadData or Unsupported naming the part.
TokenizerSpec spec_from_tokenizer_json(const Value& json, const Value* config, const std::string& origin);

enum class SpecialTokens { kKeep, kSkip };

class Tokenizer {
 public:
  // Raises BadData for merges or special ids that name unknown tokens, repeated tokens, or missing bytes.
  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Special tokens are recognised only where they lie wholly inside one of `special_ranges` (in order, not
  // overlapping); everything else is plain text, whatever it spells. Text that is not valid UTF-8 is read with each
  // invalid part as U+FFFD; offsets refer to the text as given.
  std::vector<Token> encode(std::string_view text, std::span<const TextRange> special_ranges) const;
  std::vector<Token> encode_plain(std::string_view text) const { return encode(text, {}); }
  std::vector<Token> encode_with_specials(std::string_view text) const;

  std::string decode(std::span<const std::int32_t> ids, SpecialTokens specials = SpecialTokens::kKeep) const;
  // The bytes a token stands for. Empty for ids without a token.
  const std::string& token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  std::optional<std::int32_t> find(std::string_view token) const;
  std::int64_t vocabulary_size() const;
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  std::optional<std::int32_t> pad() const;
  bool add_bos() const;
  // Ids that end an answer: eos and the end-of-turn tokens chat models use.
  const std::vector<std::int32_t>& end_of_generation() const;
  const TokenizerSpec& spec() const;
  // SHA-256 over everything that decides which ids a text gets.
  const std::string& fingerprint() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace instruct::tokenizers
