// The tokenizer's part of a GGUF file, in llama.cpp's words.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "models/export_parts.h"
#include "tokenizers/pattern.h"

namespace instruct::models {
namespace {

using tokenizers::TokenKind;

constexpr const char* kCharsmapKey = "tokenizer.ggml.precompiled_charsmap";

// llama.cpp's name for the way a byte-level tokenizer prepares and splits text. A name also says whether whole pieces
// are looked up before merging; for a trained vocabulary that makes no difference, so such a name is second choice.
std::string split_name(const tokenizers::TokenizerSpec& spec) {
  const bool nfc = spec.normalisers.size() == 1 && spec.normalisers[0].kind == tokenizers::NormaliserKind::kNfc;
  std::string second;
  for (const std::string name : {"smollm", "llama-bpe", "dbrx", "qwen2", "stablelm2", "tekken", "gpt-2"}) {
    const auto steps = tokenizers::splits_of_gguf_name(name);
    const auto same = [](const auto& a, const auto& b) {
      return a.pattern == b.pattern && a.behaviour == b.behaviour && a.invert == b.invert && a.match == b.match;
    };
    if (!std::equal(steps.begin(), steps.end(), spec.splits.begin(), spec.splits.end(), same)) continue;
    if (name == "qwen2" ? !nfc : !spec.normalisers.empty()) continue;
    if (spec.ignore_merges == (name == "llama-bpe" || name == "tekken")) return name;
    if (second.empty()) second = name;
  }
  if (!second.empty()) return second;
  raise(ErrorCategory::kUnsupported, "{}: llama.cpp has no name for this pre-tokenizer", spec.name);
}

std::int32_t type_of(TokenKind kind) {
  switch (kind) {
    case TokenKind::kUnknown:
      return 2;
    case TokenKind::kSpecial:
      return 3;
    case TokenKind::kUserDefined:
      return 4;
    case TokenKind::kUnused:
      return 5;
    case TokenKind::kByte:
      return 6;
    default:
      return 1;
  }
}

void set_tokens(formats::GgufWriter& writer, const tokenizers::TokenizerSpec& spec, std::int64_t vocabulary) {
  std::vector<std::string> tokens = spec.tokens;
  std::vector<std::int32_t> types;
  for (std::size_t i = 0; i < static_cast<std::size_t>(vocabulary); ++i) {
    if (i >= tokens.size()) tokens.emplace_back();
    const TokenKind kind = i < spec.kinds.size() ? spec.kinds[i] : TokenKind::kUnused;
    if (kind == TokenKind::kUnused) tokens[i] = fmt::format("[PAD{}]", i);
    types.push_back(type_of(kind));
  }
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.token_type", types);
}

// SentencePiece as llama.cpp knows it: scores, a prefix before every stretch of text or none.
void set_sentence_piece(formats::GgufWriter& writer, const tokenizers::TokenizerSpec& spec, std::int64_t vocabulary) {
  using tokenizers::NormaliserKind;
  const std::size_t steps = spec.normalisers.size();
  const bool prefix = steps == 2 && spec.normalisers[0].kind == NormaliserKind::kPrepend;
  const bool spaces = steps > 0 && spec.normalisers.back().kind == NormaliserKind::kReplace &&
                      spec.normalisers.back().pattern == " " && spec.normalisers.back().text == spec.space_symbol;
  if (!spaces || steps != (prefix ? 2 : 1) || !spec.preparations.empty() || !spec.splits.empty()) {
    raise(ErrorCategory::kUnsupported, "{}: llama.cpp has no name for how this tokenizer prepares text", spec.name);
  }
  std::vector<float> scores = tokenizers::scores_of(spec);
  scores.resize(static_cast<std::size_t>(vocabulary), 0);
  writer.set("tokenizer.ggml.scores", scores);
  writer.set("tokenizer.ggml.add_space_prefix", prefix);
}

// How a Unigram tokenizer prepares text, in llama.cpp's words.
struct Preparation {
  std::string charsmap;
  bool marked = false;   // the mark stands for every space
  bool prefix = false;   // the mark goes in front
  bool once = false;     // but not in front of another one
  bool first = false;    // and not behind a special token
  bool strip = false;    // spaces at the ends go
  bool squeeze = false;  // and several become one
};

constexpr const char* kContinued = "##";
constexpr const char* kMark = "\xE2\x96\x81";  // SentencePiece's space

// One step of it; false for one that llama.cpp has no words for.
bool add_step(const tokenizers::NormaliserStep& step, Preparation& preparation) {
  using tokenizers::NormaliserKind;
  const std::string end = std::string("(?:") + kMark + ")+\\z";
  switch (step.kind) {
    case NormaliserKind::kCharsmap:
    case NormaliserKind::kLongestCharsmap:
      preparation.charsmap = step.text;
      return true;
    case NormaliserKind::kNfkc:
      log_warning(
          "GGUF can say NFKC by a table alone, which this tokenizer does not bring: texts that it changes have other "
          "ids there");
      return true;
    case NormaliserKind::kPrepend:
    case NormaliserKind::kPrefix:
    case NormaliserKind::kPrefixFirst:
      preparation.prefix = true;
      preparation.once = step.kind != NormaliserKind::kPrepend;
      preparation.first = step.kind == NormaliserKind::kPrefixFirst;
      return step.text == kMark;
    case NormaliserKind::kStrip:
      preparation.strip = true;
      return true;
    case NormaliserKind::kReplace:
      if (step.pattern == " ") {
        preparation.marked = true;
        return step.text == kMark;
      }
      if (step.pattern == " {2,}") {
        preparation.squeeze = true;
        return step.text == " " || step.text == kMark;
      }
      return step.text.empty() && (step.pattern == "\\A +" || step.pattern == end);
    default:
      return false;
  }
}

Preparation preparation_of(const tokenizers::TokenizerSpec& spec) {
  using tokenizers::SplitBehaviour;
  using tokenizers::SplitMatch;
  Preparation preparation{.prefix = spec.piece_prefix == kMark};
  bool known = spec.space_symbol == kMark && spec.foreign_pieces.empty() &&
               std::find(spec.kinds.begin(), spec.kinds.end(), TokenKind::kByte) == spec.kinds.end();
  for (const auto* steps : {&spec.normalisers, &spec.preparations}) {
    for (const auto& step : *steps) known = add_step(step, preparation) && known;
  }
  for (const tokenizers::SplitStep& split : spec.splits) {
    const bool words = split.match == SplitMatch::kSpace && split.behaviour == SplitBehaviour::kRemoved;
    if (words) preparation.marked = preparation.squeeze = true;
    // In front of every mark: no token goes on behind one, so that nothing is cut.
    const bool marks =
        split.pattern == tokenizers::quote_pattern(kMark) && split.behaviour == SplitBehaviour::kMergedWithNext;
    known = known && (words || marks);
  }
  if (!known || !preparation.marked || (preparation.strip && !preparation.squeeze))
    raise(ErrorCategory::kUnsupported, "{}: llama.cpp has no words for how this tokenizer prepares text", spec.name);
  if (preparation.once && !preparation.squeeze)
    log_warning("llama.cpp puts a space before texts that begin with one too: their first words have other ids there");
  if (preparation.first)
    log_warning("llama.cpp puts a space behind special tokens inside a text too: what follows has other ids there");
  return preparation;
}

// Unigram as llama.cpp knows it, which is T5's.
void set_unigram(formats::GgufWriter& writer, const tokenizers::TokenizerSpec& spec, std::int64_t vocabulary) {
  constexpr float kNever = -10000;  // as its converter has it for what is no token
  const Preparation preparation = preparation_of(spec);
  std::vector<float> scores(static_cast<std::size_t>(vocabulary), kNever);
  for (std::size_t i = 0; i < std::min(scores.size(), spec.scores.size()); ++i) {
    if (!std::isnan(spec.scores[i])) scores[i] = static_cast<float>(spec.scores[i]);
  }
  writer.set("tokenizer.ggml.pre", std::string("default"));
  writer.set("tokenizer.ggml.scores", scores);
  writer.set("tokenizer.ggml.add_space_prefix", preparation.prefix);
  writer.set("tokenizer.ggml.remove_extra_whitespaces", preparation.squeeze);
  if (!preparation.charsmap.empty())
    writer.set(kCharsmapKey, std::vector<std::uint8_t>(preparation.charsmap.begin(), preparation.charsmap.end()));
}

// WordPiece as llama.cpp knows it: uncased, what begins a word spelled with the mark and what goes on without "##".
tokenizers::TokenizerSpec word_piece_of(const tokenizers::TokenizerSpec& spec) {
  using tokenizers::NormaliserKind;
  std::vector<NormaliserKind> kinds;
  for (const auto& step : spec.normalisers) kinds.push_back(step.kind);
  std::sort(kinds.begin(), kinds.end());
  const std::vector<NormaliserKind> uncased{NormaliserKind::kLowercase, NormaliserKind::kBertClean,
                                            NormaliserKind::kBertChinese, NormaliserKind::kBertAccents};
  if (kinds != uncased || spec.continuing_prefix != kContinued)
    raise(ErrorCategory::kUnsupported,
          "{}: llama.cpp lowers all letters and takes off accents before WordPiece, this tokenizer does not",
          spec.name);
  tokenizers::TokenizerSpec respelled = spec;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    std::string& token = respelled.tokens[i];
    if (spec.kinds[i] != TokenKind::kNormal) continue;
    token = token.starts_with(kContinued) ? token.substr(std::string_view(kContinued).size()) : kMark + token;
  }
  return respelled;
}

// Of a GGUF source: what it says of its tokenizer, and of itself where that is still so.
void copy_metadata(formats::GgufWriter& writer, const formats::GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("tokenizer.") && key != "general.name" && key != "general.license" &&
        key != "general.languages")
      continue;
    std::visit(
        [&, name = key](const auto& stored) {
          using T = std::remove_cvref_t<decltype(stored)>;
          if constexpr (std::is_same_v<T, std::int64_t>) {
            if (stored < 0 || stored > UINT32_MAX) return;  // an id of -1 means there is none
            writer.set(name, static_cast<std::uint32_t>(stored));
          } else if constexpr (std::is_same_v<T, double>) {
            writer.set(name, static_cast<float>(stored));
          } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
            if (name == kCharsmapKey)  // bytes, which llama.cpp refuses as anything else
              return writer.set(name, std::vector<std::uint8_t>(stored.begin(), stored.end()));
            writer.set(name, std::vector<std::int32_t>(stored.begin(), stored.end()));
          } else if constexpr (std::is_same_v<T, std::vector<double>>) {
            writer.set(name, std::vector<float>(stored.begin(), stored.end()));
          } else if constexpr (std::is_same_v<T, std::vector<std::string_view>>) {
            writer.set(name, std::vector<std::string>(stored.begin(), stored.end()));
          } else {
            writer.set(name, stored);
          }
        },
        value);
  }
}

}  // namespace

void set_tokenizer(formats::GgufWriter& writer, const Package& package) {
  if (package.gguf != nullptr) return copy_metadata(writer, *package.gguf);
  using tokenizers::ModelKind;
  const bool words = package.tokenizer->spec().model == ModelKind::kWordPiece;
  const tokenizers::TokenizerSpec& spec = words ? word_piece_of(package.tokenizer->spec()) : package.tokenizer->spec();
  const auto id = [&](const char* key, std::optional<std::int32_t> value) {
    if (value) writer.set(key, static_cast<std::uint32_t>(*value));
  };
  const bool unigram = spec.model == ModelKind::kUnigram;
  const bool bytes = spec.alphabet == tokenizers::Alphabet::kBytes;
  writer.set("tokenizer.ggml.model", std::string(words ? "bert" : unigram ? "t5" : bytes ? "gpt2" : "llama"));
  if (words) {
    writer.set("tokenizer.ggml.pre", std::string("default"));
    id("tokenizer.ggml.cls_token_id", spec.bos);
    id("tokenizer.ggml.seperator_token_id", spec.eos);  // as it is spelled there
    id("tokenizer.ggml.mask_token_id", package.tokenizer->mask());
  } else if (unigram) {
    set_unigram(writer, spec, package.config.vocabulary);
  } else if (bytes) {
    std::vector<std::string> merges;
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    writer.set("tokenizer.ggml.pre", split_name(spec));
    writer.set("tokenizer.ggml.merges", merges);
    if (!spec.preparations.empty()) {
      writer.set("tokenizer.ggml.add_space_prefix", true);
      log_warning("llama.cpp puts no space before a text for this tokenizer: first words have other ids there");
    }
  } else {
    set_sentence_piece(writer, spec, package.config.vocabulary);
  }
  set_tokens(writer, spec, package.config.vocabulary);
  for (const tokenizers::MatchRule& rule : spec.match_rules) {
    if (!rule.strip_left && !rule.strip_right && !rule.single_word) continue;
    log_warning("GGUF cannot say that token '{}' takes white space with it or stands alone: it is written without that",
                spec.tokens[static_cast<std::size_t>(rule.id)]);
  }
  id("tokenizer.ggml.bos_token_id", spec.bos);
  id("tokenizer.ggml.eos_token_id", spec.eos);
  id("tokenizer.ggml.padding_token_id", spec.pad);
  id("tokenizer.ggml.unknown_token_id", spec.unknown);
  writer.set("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.set("tokenizer.ggml.add_eos_token", spec.add_eos);
}

}  // namespace instruct::models
