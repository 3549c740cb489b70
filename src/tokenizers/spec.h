// Everything a tokenizer is made of, as plain data. Readers of file formats fill it, Tokenizer works from it, writers
// turn it back into a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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

// kSpecial tokens steer the model and are found only where the caller allows it; kUserDefined ones are found anywhere
// in plain text, as the official libraries do; kUnused marks an id without a token.
enum class TokenKind : std::uint8_t { kNormal, kSpecial, kUserDefined, kByte, kUnknown, kUnused };

// What the first symbols of a piece are: bytes, spelled in GPT-2's byte alphabet, or characters with "<0x0A>" tokens
// for the bytes of those that are no token (SentencePiece).
enum class Alphabet : std::uint8_t { kBytes, kCharacters };

// How a piece of text becomes tokens: by merging neighbours, by the longest word part that fits again and again, or by
// the likeliest way to cut it.
enum class ModelKind : std::uint8_t { kBytePair, kWordPiece, kUnigram };

// What becomes of the matches of a pattern and of the text between them.
enum class SplitBehaviour : std::uint8_t { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };

// What a step of pre-tokenisation matches: a pattern, or single characters of a class (characters.h), which needs none.
enum class SplitMatch : std::uint8_t { kPattern, kSpace, kPunctuation, kDigit };

// One step of pre-tokenisation, applied to every piece the step before left.
struct SplitStep {
  std::string pattern;  // regular expression as in tokenizer.json (Oniguruma's Ruby dialect)
  SplitBehaviour behaviour = SplitBehaviour::kIsolated;
  bool invert = false;  // matches and the text between them change roles
  SplitMatch match = SplitMatch::kPattern;
};

// kPrefix puts `text` in front unless it is there; kPrefixFirst does so only at the start of the whole text. The Bert
// ones are the steps of BertNormalizer: control characters go and white space becomes a space, spaces are put around
// Chinese characters, accents go. kStrip takes white space from the ends that `text` names ("left", "right"),
// kStripAccents all marks, kNmt what Google's translation models never saw; `text` of kCharsmap is a table
// (charsmap.h).
enum class NormaliserKind : std::uint8_t {
  kNfc,
  kNfd,
  kNfkc,
  kNfkd,
  kReplace,
  kPrepend,
  kPrefix,
  kPrefixFirst,
  kLowercase,
  kStrip,
  kStripAccents,
  kNmt,
  kCharsmap,
  kLongestCharsmap,
  kBertClean,
  kBertChinese,
  kBertAccents,
};

struct NormaliserStep {
  NormaliserKind kind = NormaliserKind::kNfc;
  std::string pattern;  // kReplace: regular expression
  std::string text;     // what is put in, or what else the step needs
};

// How a token that is searched in the text is matched, where it differs from "exactly as it is spelled".
struct MatchRule {
  std::int32_t id = 0;
  bool strip_left = false;   // white space before it belongs to it
  bool strip_right = false;  // white space behind it belongs to it
  bool single_word = false;  // not inside a word
  bool normalised = false;   // searched, normalised, in the normalised text
};

// A part of a model's input: one of the texts, or a token put in around them.
struct FramePart {
  std::int32_t text = -1;  // 0 for the first text, 1 for the second, -1 for a token
  std::int32_t id = -1;    // of the token
  std::int32_t type_id = 0;
};

struct TokenizerSpec {
  ModelKind model = ModelKind::kBytePair;
  std::vector<std::string> tokens;  // by id, in the file's spelling
  std::vector<TokenKind> kinds;     // by id; missing ones are kNormal
  // Which neighbours are joined first: a list of pairs (best first), or for SentencePiece models a score by id.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<double> scores;  // kUnigram: log probabilities; not a number for tokens that text cannot become
  // kUnigram: pieces that text is cut into, by their log probability, for which there is no token: they are unknown.
  std::vector<std::pair<std::string, double>> foreign_pieces;
  bool keeps_single = false;  // kUnigram: sums are kept in f32 as in SentencePiece, which decides ties
  Alphabet alphabet = Alphabet::kBytes;
  std::vector<NormaliserStep> normalisers;   // of the text between tokens that are searched as they are spelled
  std::vector<NormaliserStep> preparations;  // of what is left between the other searched tokens, before splitting
  std::vector<SplitStep> splits;
  std::string piece_prefix;  // put in front of every piece that does not begin with it
  std::vector<MatchRule> match_rules;
  std::string space_symbol;             // kCharacters: what stands for a space in tokens ("▁"); empty: a space itself
  bool strip_leading_space = false;     // decoding drops one space at the start of the text
  bool ignore_merges = false;           // a piece that is itself a token is taken whole
  bool fuse_unknown = false;            // neighbouring unknown symbols become one token
  std::string continuing_prefix;        // kWordPiece: what parts of a word but the first begin with ("##")
  std::int64_t longest_word = 100;      // kWordPiece: characters; longer words are unknown
  bool clean_up_spaces = false;         // decoding leaves out the space before punctuation
  std::vector<FramePart> single, pair;  // the input of one text and of two; empty: bos and eos as the flags below say
  bool trim_offsets = false;            // offsets of an encoded input leave out spaces at the ends of a token
  bool keep_first_space = false;        // but not the one put in front of the text
  std::optional<std::int32_t> bos, eos, pad, unknown;
  std::vector<std::int32_t> end_of_turn;  // ids that end an answer besides eos
  bool add_bos = false;
  bool add_eos = false;
  std::string name;  // for messages: where it came from
};

}  // namespace instruct::tokenizers
