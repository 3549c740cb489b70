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
#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// The pre-tokenizer steps of a GGUF `tokenizer.ggml.pre` name. Raises Unsupported naming it and those known.
std::vector<SplitStep> splits_of_gguf_name(const std::string& name);

// From tokenizer.json and (optionally) tokenizer_config.json. Raises BadData or Unsupported naming the part.
TokenizerSpec spec_from_tokenizer_json(const Value& json, const Value* config, const std::string& origin);

// From the files of folders without tokenizer.json; `config` is tokenizer_config.json or an empty object. Each raises
// BadData or Unsupported naming `origin`.
//
// WordPiece as BERT has it, one token a line (vocab.txt).
TokenizerSpec spec_from_vocab_txt(std::string_view vocabulary, const Value& config, const std::string& origin);
// Byte-level BPE as GPT-2 and RoBERTa have it (vocab.json and merges.txt), by the config's tokenizer_class.
TokenizerSpec spec_from_merges(const Value& vocabulary, std::string_view merges, const Value& config,
                               const std::string& origin);
// SentencePiece's .model; for XLMRobertaTokenizer and T5Tokenizer with the tokens those add, for others as the file
// says.
TokenizerSpec spec_from_sentence_piece(std::string_view bytes, const Value& config, const std::string& origin);

// The same as MarianTokenizer has it: one of its two models (source.spm, target.spm) cuts the text, vocab.json numbers
// the pieces of both, and a piece that it lacks is unknown. Punctuation is not normalised first, as in transformers
// without sacremoses.
TokenizerSpec spec_from_marian(std::string_view bytes, const Value& vocabulary, const Value& config,
                               const std::string& origin);

// A tokenizer.json that the official library reads as this tokenizer. Raises Unsupported for what it cannot say.
Value tokenizer_json_of(const TokenizerSpec& spec);

// The merges that join as the scores of a SentencePiece model do, best first.
std::vector<std::pair<std::string, std::string>> merges_of_scores(const TokenizerSpec& spec);

// The scores by which SentencePiece joins as the merges do; those of the spec when it has some. Raises Unsupported when
// there is none: SentencePiece joins whatever makes a token, so each token of several characters needs a merge.
std::vector<float> scores_of(const TokenizerSpec& spec);

enum class SpecialTokens { kKeep, kSkip };

// What a model takes in: one or two texts with the special tokens around them that it was trained with.
struct EncodedInput {
  std::vector<Token> tokens;           // offsets are those in the token's own text; 0 to 0 for tokens put in
  std::vector<std::int32_t> type_ids;  // by token
  std::vector<std::int32_t> texts;     // by token: 0 for the first text, 1 for the second, -1 for tokens put in
};

class Tokenizer {
 public:
  // Raises BadData for merges or special ids that name unknown tokens, repeated tokens, or nothing to merge by.
  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Special tokens are recognised only where they lie wholly inside one of `special_ranges` (in order, not
  // overlapping); everything else is plain text, whatever it spells. User-defined tokens are found anywhere. Text that
  // is not valid UTF-8 is read with each invalid part as U+FFFD; offsets refer to the text as given, and
  // what a normaliser puts in front stands for the byte behind it.
  std::vector<Token> encode(std::string_view text, std::span<const TextRange> special_ranges) const;
  std::vector<Token> encode_plain(std::string_view text) const { return encode(text, {}); }
  std::vector<Token> encode_with_specials(std::string_view text) const;

  // The special tokens of the model put around the tokens of one text, or of two. Cutting long texts is the caller's:
  // cut the tokens first, to what frame_size() leaves of the model's length. Special tokens that the text itself may
  // spell ("[MASK]") come from encode_with_specials().
  EncodedInput frame(std::span<const Token> text) const;
  EncodedInput frame(std::span<const Token> first, std::span<const Token> second) const;
  // How many tokens frame() puts around `texts` (1 or 2) texts.
  std::size_t frame_size(std::size_t texts) const;
  // Both steps: a text that is plain, or a pair of them, as a model takes it in.
  EncodedInput encode_input(std::string_view text) const { return frame(encode_plain(text)); }
  EncodedInput encode_input(std::string_view first, std::string_view second) const {
    return frame(encode_plain(first), encode_plain(second));
  }

  // The bytes of the tokens in a row, which need not be valid UTF-8; without the space that encoding put in front.
  std::string decode(std::span<const std::int32_t> ids, SpecialTokens specials = SpecialTokens::kKeep) const;
  // The bytes a token adds to a text. Empty for ids without a token.
  const std::string& token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  // The token that adds just this to a text, or is written so in the vocabulary.
  std::optional<std::int32_t> find(std::string_view token) const;
  std::int64_t vocabulary_size() const;
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  std::optional<std::int32_t> pad() const;
  // What stands for a token that is left out: "[MASK]" or "<mask>", where it is a special token.
  std::optional<std::int32_t> mask() const;
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
