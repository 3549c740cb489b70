// SentencePiece's .model as the tokenizer.json that the official library makes of it: XLMRobertaTokenizer and
// T5Tokenizer of transformers 5, and SentencePiece's own settings for all others.
#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "tokenizers/base64.h"
#include "tokenizers/sentence_piece.h"
#include "tokenizers/tokenizer.h"
#include "tokenizers/vocab_json.h"

namespace instruct::tokenizers {
namespace {

using vocab_json::class_of;
using vocab_json::list;
using vocab_json::Special;
using vocab_json::special_of;
using vocab_json::template_of;
using vocab_json::text_part;
using vocab_json::token_part;
using vocab_json::typed;

constexpr const char* kMark = "\xE2\x96\x81";  // SentencePiece's space
constexpr std::int64_t kMostExtraIds = 10'000;

Value metaspace() {
  return Value::object({{"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "always"}, {"split", true}});
}

Value replace(const char* kind, const std::string& from, const char* to) {
  return Value::object({{"type", "Replace"}, {"pattern", Value::object({{kind, from}})}, {"content", to}});
}

// How SentencePiece itself normalises, as its file says.
Value own_normaliser(const SentencePieceModel& model) {
  Value parts = Value::array();
  if (!model.charsmap.empty()) {
    parts.push(Value::object({{"type", "Precompiled"}, {"precompiled_charsmap", base64_of_bytes(model.charsmap)}}));
  }
  const char* space = model.escape_whitespaces ? kMark : " ";
  if (model.remove_extra_whitespaces) {
    parts.push(replace("Regex", "\\A +", ""));
    parts.push(replace("Regex", " {2,}", " "));
  }
  if (model.escape_whitespaces) parts.push(replace("String", " ", kMark));
  if (model.remove_extra_whitespaces) parts.push(replace("Regex", std::string("(?:") + space + ")+\\z", ""));
  if (model.add_dummy_prefix) parts.push(Value::object({{"type", "Prepend"}, {"prepend", space}}));
  return Value::object({{"type", "Sequence"}, {"normalizers", std::move(parts)}});
}

// The pieces of a file in the order that the model counts them, and what is special among them.
class PieceList {
 public:
  explicit PieceList(const SentencePieceModel& model) : model_(model) {}

  // Pieces from `first` on.
  void add_from(std::size_t first) {
    for (std::size_t i = first; i < model_.pieces.size(); ++i) {
      const SentencePieceModel::Piece& piece = model_.pieces[i];
      add(piece.text, static_cast<double>(piece.score));
      if (piece.kind == SentencePieceModel::Kind::kUnknown) {
        unknown_ = next_ - 1;
        mark({piece.text}, next_ - 1, true);
      }
      if (piece.kind == SentencePieceModel::Kind::kUserDefined) mark({piece.text}, next_ - 1, false);
      if (piece.kind == SentencePieceModel::Kind::kControl) mark({piece.text}, next_ - 1, true);
    }
  }
  void add_special(const Special& special) {
    add(special.text, 0.0);
    mark(special, next_ - 1, true);
  }
  // A token that is special whatever the file says of it; a new one when there is none of that text.
  void mark_special(const Special& special) {
    if (special.text.empty()) return;
    const auto found = ids_.find(special.text);
    mark(special, found == ids_.end() ? next_++ : found->second, true);
  }
  void set_unknown(std::int64_t id) { unknown_ = id; }

  Value model(const char* type) const {
    return Value::object({{"type", type}, {"unk_id", unknown_ ? Value(*unknown_) : Value()}, {"vocab", pieces_}});
  }
  Value added() const { return added_.is_null() ? Value::array() : added_; }
  std::optional<std::string> unknown_text() const {
    return unknown_ ? std::optional(pieces_.as_array()[static_cast<std::size_t>(*unknown_)].as_array()[0].as_string())
                    : std::nullopt;
  }
  bool has(const std::string& text) const { return ids_.contains(text); }
  // As BPE's vocabulary has it.
  Value by_text() const {
    Value::Object vocabulary;
    for (std::size_t i = 0; i < pieces_.size(); ++i)
      vocabulary.emplace_back(pieces_.as_array()[i].as_array()[0].as_string(), Value(static_cast<std::int64_t>(i)));
    return Value(std::move(vocabulary));
  }

 private:
  void add(const std::string& text, double score) {
    pieces_.push(list({Value(text), Value(score)}));
    ids_.emplace(text, next_++);
  }
  void mark(const Special& special, std::int64_t id, bool is_special) {
    added_.push(Value::object({{"id", id},
                               {"content", special.text},
                               {"lstrip", special.strip_left},
                               {"normalized", false},
                               {"special", is_special}}));
  }

  const SentencePieceModel& model_;
  Value pieces_;
  Value added_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::int64_t next_ = 0;
  std::optional<std::int64_t> unknown_;
};

Value charsmap_normaliser(const SentencePieceModel& model) {
  if (model.charsmap.empty()) return {};
  return Value::object({{"type", "Precompiled"}, {"precompiled_charsmap", base64_of_bytes(model.charsmap)}});
}

// XLMRobertaTokenizer and T5Tokenizer cut words first, and put the mark in front of each.
Value by_words(const SentencePieceModel& model, const PieceList& pieces, Value frame) {
  const Value words =
      Value::object({{"type", "Sequence"}, {"pretokenizers", list({typed("WhitespaceSplit"), metaspace()})}});
  return Value::object({{"added_tokens", pieces.added()},
                        {"normalizer", charsmap_normaliser(model)},
                        {"pre_tokenizer", words},
                        {"decoder", metaspace()},
                        {"post_processor", std::move(frame)},
                        {"model", pieces.model("Unigram")}});
}

// fairseq's ids: its own four tokens, the pieces behind the file's first three, the mask.
Value xlm_roberta(const SentencePieceModel& model, const Value& config) {
  const auto special = [&](const char* key, const char* otherwise) { return special_of(config, key, otherwise); };
  const Special bos = special("bos_token", "<s>");
  const Special eos = special("eos_token", "</s>");
  PieceList pieces(model);
  pieces.add_special(bos);
  pieces.add_special(special("pad_token", "<pad>"));
  pieces.add_special(eos);
  pieces.add_special(special("unk_token", "<unk>"));
  pieces.add_from(3);
  pieces.add_special(special("mask_token", "<mask>"));
  pieces.set_unknown(3);
  const Value start = token_part(bos.text, 0);
  const Value end = token_part(eos.text, 0);
  return by_words(
      model, pieces,
      template_of({start, text_part("A", 0), end}, {start, text_part("A", 0), end, end, text_part("B", 0), end}));
}

// The pieces, then the sentinels of T5's training from the last to the first.
Value t5(const SentencePieceModel& model, const Value& config) {
  PieceList pieces(model);
  pieces.add_from(0);
  std::int64_t count = 100;
  if (const Value* given = config.find("extra_ids"); given != nullptr && given->is_integer())
    count = given->as_integer();
  if (count < 0 || count > kMostExtraIds)
    raise(ErrorCategory::kBadData, "tokenizer_config.json: extra_ids {}; expected 0 to {}", count, kMostExtraIds);
  for (std::int64_t i = count; i-- > 0;) {
    const std::string name = "<extra_id_" + std::to_string(i) + ">";
    if (!pieces.has(name)) pieces.add_special({name});
  }
  const Special eos = special_of(config, "eos_token", "</s>");
  for (const Special& special :
       {special_of(config, "pad_token", "<pad>"), eos, special_of(config, "unk_token", "<unk>")})
    pieces.mark_special(special);
  const Value end = token_part(eos.text, 0);
  return by_words(model, pieces,
                  template_of({text_part("A", 0), end}, {text_part("A", 0), end, text_part("B", 0), end}));
}

// What BigBird puts around texts; null for others.
Value big_bird_frame(const std::string& name, const Value& config, PieceList& pieces) {
  if (name != "BigBirdTokenizer") return {};
  const Special cls = special_of(config, "cls_token", "[CLS]");
  const Special sep = special_of(config, "sep_token", "[SEP]");
  Special mask = special_of(config, "mask_token", "[MASK]");
  mask.strip_left = true;
  for (const Special& special : {special_of(config, "pad_token", "<pad>"), cls, sep, mask})
    pieces.mark_special(special);
  const Value start = token_part(cls.text, 0);
  const Value end = token_part(sep.text, 0);
  return template_of({start, text_part("A", 0), end},
                     {start, text_part("A", 0), end, text_part("B", 1), token_part(sep.text, 1)});
}

Value as_its_file_says(const SentencePieceModel& model, const std::string& name, const Value& config) {
  PieceList pieces(model);
  pieces.add_from(0);
  Value frame = big_bird_frame(name, config, pieces);
  const bool merged = model.trainer == SentencePieceModel::Trainer::kBytePair;
  Value encoder = pieces.model("Unigram");
  if (merged) {
    const auto unknown = pieces.unknown_text();
    encoder = Value::object({{"type", "BPE"},
                             {"vocab", pieces.by_text()},
                             {"merges", Value::array()},
                             {"fuse_unk", true},
                             {"unk_token", unknown ? Value(*unknown) : Value()}});
  }
  encoder.set("byte_fallback", std::any_of(model.pieces.begin(), model.pieces.end(), [](const auto& piece) {
                return piece.kind == SentencePieceModel::Kind::kByte;
              }));
  const char* space = model.escape_whitespaces ? kMark : " ";
  Value decoders = list({replace("String", space, " "), typed("ByteFallback"), typed("Fuse")});
  if (model.add_dummy_prefix)
    decoders.push(Value::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
  return Value::object({{"added_tokens", pieces.added()},
                        {"normalizer", own_normaliser(model)},
                        {"decoder", Value::object({{"type", "Sequence"}, {"decoders", std::move(decoders)}})},
                        {"post_processor", std::move(frame)},
                        {"model", std::move(encoder)}});
}

// The tokens of a vocabulary, which numbers them from 0 on without a gap.
std::vector<std::string> tokens_by_id(const Value& vocabulary, const std::string& origin) {
  std::vector<std::string> tokens(vocabulary.as_object().size());
  for (const auto& [token, id] : vocabulary.as_object()) {
    const std::int64_t at = id.as_integer();
    if (at < 0 || at >= static_cast<std::int64_t>(tokens.size()) || !tokens[static_cast<std::size_t>(at)].empty()) {
      raise(ErrorCategory::kBadData, "{}: vocab.json has id {} for '{}': expected 0 to {}, each once", origin, at,
            token, tokens.size() - 1);
    }
    tokens[static_cast<std::size_t>(at)] = token;
  }
  return tokens;
}

}  // namespace

TokenizerSpec spec_from_sentence_piece(std::string_view bytes, const Value& config, const std::string& origin) {
  const SentencePieceModel model = read_sentence_piece(bytes, origin);
  const std::string name = class_of(config);
  const bool merged = model.trainer == SentencePieceModel::Trainer::kBytePair;
  if (!merged && model.trainer != SentencePieceModel::Trainer::kUnigram)
    raise(ErrorCategory::kUnsupported, "{}: model type {}; this program reads unigram (1) and bpe (2)", origin,
          static_cast<int>(model.trainer));
  const bool xlm = name == "XLMRobertaTokenizer";
  const bool of_t5 = name == "T5Tokenizer" || name == "MT5Tokenizer";
  if (merged && (xlm || of_t5)) raise(ErrorCategory::kBadData, "{}: a bpe model; {} needs a unigram one", origin, name);
  const Value json = xlm     ? xlm_roberta(model, config)
                     : of_t5 ? t5(model, config)
                             : as_its_file_says(model, name, config);
  TokenizerSpec spec = spec_from_tokenizer_json(json, &config, origin);
  if (!xlm && !of_t5) {
    for (NormaliserStep& step : spec.normalisers) {
      if (step.kind == NormaliserKind::kCharsmap) step.kind = NormaliserKind::kLongestCharsmap;
    }
    spec.keeps_single = true;
  }
  if (!merged) return spec;
  for (const SentencePieceModel::Piece& piece : model.pieces) spec.scores.push_back(static_cast<double>(piece.score));
  spec.scores.resize(spec.tokens.size(), 0.0);
  return spec;
}

TokenizerSpec spec_from_marian(std::string_view bytes, const Value& vocabulary, const Value& config,
                               const std::string& origin) {
  TokenizerSpec pieces = spec_from_sentence_piece(bytes, Value::object(), origin);
  if (pieces.model != ModelKind::kUnigram)
    raise(ErrorCategory::kUnsupported, "{}: a bpe model; this program reads Marian's unigram ones", origin);
  TokenizerSpec spec = pieces;
  spec.tokens = tokens_by_id(vocabulary, origin);
  spec.kinds.assign(spec.tokens.size(), TokenKind::kNormal);
  spec.scores.assign(spec.tokens.size(), std::nan(""));
  spec.match_rules.clear();
  std::unordered_map<std::string, std::size_t> ids;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    ids.emplace(spec.tokens[i], i);
    // The language that is wanted, in front of a text.
    if (spec.tokens[i].starts_with(">>") && spec.tokens[i].ends_with("<<")) spec.kinds[i] = TokenKind::kUserDefined;
  }
  for (std::size_t i = 0; i < pieces.tokens.size(); ++i) {
    if (pieces.kinds[i] != TokenKind::kNormal) continue;
    const auto found = ids.find(pieces.tokens[i]);
    if (found == ids.end()) {
      spec.foreign_pieces.emplace_back(pieces.tokens[i], pieces.scores[i]);
    } else {
      spec.scores[found->second] = pieces.scores[i];
    }
  }
  const auto special = [&](const char* key, const char* otherwise) {
    const std::string text = special_of(config, key, otherwise).text;
    const auto found = ids.find(text);
    if (found == ids.end()) raise(ErrorCategory::kBadData, "{}: vocab.json has no '{}', the {}", origin, text, key);
    spec.kinds[found->second] = TokenKind::kSpecial;
    return static_cast<std::int32_t>(found->second);
  };
  spec.bos = std::nullopt;
  spec.eos = special("eos_token", "</s>");
  spec.pad = special("pad_token", "<pad>");
  spec.unknown = special("unk_token", "<unk>");
  spec.single = {{.text = 0}, {.id = *spec.eos}};
  spec.pair = {{.text = 0}, {.text = 1}, {.id = *spec.eos}};
  spec.add_bos = spec.add_eos = false;
  return spec;
}

}  // namespace instruct::tokenizers
