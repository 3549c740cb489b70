// The files that folders have where there is no tokenizer.json. Each is put into the tokenizer.json that the official
// library makes of it (transformers 5: BertTokenizer, GPT2Tokenizer, RobertaTokenizer, XLMRobertaTokenizer,
// T5Tokenizer, and SentencePiece's own settings for all other .model files), and read as such.
#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/base64.h"
#include "tokenizers/json_parts.h"
#include "tokenizers/sentence_piece.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

using json_parts::flag;

constexpr const char* kMark = "\xE2\x96\x81";  // SentencePiece's space
constexpr std::int64_t kMostExtraIds = 10'000;

Value typed(const char* type) {
  return Value::object({{"type", type}});
}

Value list(std::vector<Value> values) {
  return Value(Value::Array(std::move(values)));
}

// A special token of tokenizer_config.json, which spells it as a text or as an object.
struct Special {
  std::string text;
  bool strip_left = false;
};

Special special_of(const Value& config, const char* key, const char* otherwise) {
  const Value* value = config.find(key);
  if (value != nullptr && value->is_string()) return {value->as_string()};
  if (value != nullptr && value->is_object()) return {value->at("content").as_string(), flag(*value, "lstrip")};
  return {otherwise};
}

// The tokens of a vocabulary by text, and the special ones among them. Those that it lacks get the next ids.
class AddedList {
 public:
  explicit AddedList(std::unordered_map<std::string, std::int64_t> ids, std::int64_t next)
      : ids_(std::move(ids)), next_(next) {}

  void add(const Special& special) {
    if (special.text.empty() || has(special.text)) return;
    const auto [found, is_new] = ids_.emplace(special.text, next_);
    if (is_new) ++next_;
    added_.push(Value::object({{"id", found->second},
                               {"content", special.text},
                               {"lstrip", special.strip_left},
                               {"normalized", false},
                               {"special", true}}));
  }
  Value take() { return added_.is_null() ? Value::array() : std::move(added_); }

 private:
  bool has(const std::string& text) const {
    if (added_.is_null()) return false;
    const Value::Array& all = added_.as_array();
    return std::any_of(all.begin(), all.end(), [&](const Value& one) { return one.at("content").as_string() == text; });
  }

  std::unordered_map<std::string, std::int64_t> ids_;
  std::int64_t next_;
  Value added_;
};

AddedList added_list(const Value& vocabulary) {
  std::unordered_map<std::string, std::int64_t> ids;
  std::int64_t next = 0;
  for (const auto& [token, id] : vocabulary.as_object()) {
    ids.emplace(token, id.as_integer());
    next = std::max(next, id.as_integer() + 1);
  }
  return AddedList(std::move(ids), next);
}

Value token_part(const std::string& token, std::int64_t type) {
  return Value::object({{"SpecialToken", Value::object({{"id", token}, {"type_id", type}})}});
}
Value text_part(const char* name, std::int64_t type) {
  return Value::object({{"Sequence", Value::object({{"id", name}, {"type_id", type}})}});
}

Value template_of(std::vector<Value> single, std::vector<Value> pair) {
  return Value::object({{"type", "TemplateProcessing"},
                        {"single", list(std::move(single))},
                        {"pair", list(std::move(pair))},
                        {"special_tokens", Value::object()}});
}

std::string class_of(const Value& config) {
  std::string name = json_parts::text(config, "tokenizer_class", "");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

Value ids_of_lines(std::string_view text, const std::string& origin) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.empty()) raise(ErrorCategory::kBadData, "{}: the vocabulary is empty", origin);
  Value::Object vocabulary;
  for (std::string_view line : split(text, '\n')) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    vocabulary.emplace_back(repair_utf8(line), Value(static_cast<std::int64_t>(vocabulary.size())));
  }
  return Value(std::move(vocabulary));
}

Value merges_of_lines(std::string_view text) {
  Value::Array merges;
  for (std::string_view line : split(text, '\n')) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (merges.empty() && line.starts_with("#version"))) continue;
    merges.emplace_back(repair_utf8(line));
  }
  return Value(std::move(merges));
}

Value metaspace() {
  return Value::object({{"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "always"}, {"split", true}});
}

Value replace(const char* kind, const char* from, const char* to) {
  return Value::object({{"type", "Replace"}, {"pattern", Value::object({{kind, from}})}, {"content", to}});
}

// How SentencePiece itself normalises, as its file says.
Value own_normaliser(const SentencePieceModel& model) {
  Value parts = Value::array();
  if (!model.charsmap.empty()) {
    parts.push(Value::object({{"type", "Precompiled"}, {"precompiled_charsmap", base64_of_bytes(model.charsmap)}}));
  }
  if (model.remove_extra_whitespaces) {
    parts.push(replace("Regex", "\\A +| +\\z", ""));
    parts.push(replace("Regex", " {2,}", " "));
  }
  const char* space = model.escape_whitespaces ? kMark : " ";
  if (model.escape_whitespaces) parts.push(replace("String", " ", kMark));
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
      if (piece.kind == SentencePieceModel::Kind::kUnknown) unknown_ = next_ - 1;
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

Value as_its_file_says(const SentencePieceModel& model) {
  PieceList pieces(model);
  pieces.add_from(0);
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
                        {"model", std::move(encoder)}});
}

}  // namespace

TokenizerSpec spec_from_vocab_txt(std::string_view vocabulary, const Value& config, const std::string& origin) {
  const Value ids = ids_of_lines(vocabulary, origin);
  const bool mpnet = class_of(config) == "MPNetTokenizer";
  const Special cls = special_of(config, "cls_token", mpnet ? "<s>" : "[CLS]");
  const Special sep = special_of(config, "sep_token", mpnet ? "</s>" : "[SEP]");
  const Special unknown = special_of(config, "unk_token", "[UNK]");
  AddedList added = added_list(ids);
  for (const Special& special : {special_of(config, "pad_token", mpnet ? "<pad>" : "[PAD]"), unknown, cls, sep,
                                 special_of(config, "mask_token", mpnet ? "<mask>" : "[MASK]")})
    added.add(special);
  const bool lower = flag(config, "do_lower_case", true);
  const Value start = token_part(cls.text, 0);
  const Value end = token_part(sep.text, 0);
  std::vector<Value> pair{start, text_part("A", 0), end};
  if (mpnet) pair.push_back(end);
  const std::int64_t second = mpnet ? 0 : 1;
  pair.push_back(text_part("B", second));
  pair.push_back(token_part(sep.text, second));
  const Value json = Value::object(
      {{"added_tokens", added.take()},
       {"normalizer", Value::object({{"type", "BertNormalizer"},
                                     {"clean_text", true},
                                     {"handle_chinese_chars", flag(config, "tokenize_chinese_chars", true)},
                                     {"strip_accents", flag(config, "strip_accents", lower)},
                                     {"lowercase", lower}})},
       {"pre_tokenizer", typed("BertPreTokenizer")},
       {"decoder", Value::object({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}})},
       {"post_processor", template_of({start, text_part("A", 0), end}, std::move(pair))},
       {"model", Value::object({{"type", "WordPiece"}, {"unk_token", unknown.text}, {"vocab", ids}})}});
  return spec_from_tokenizer_json(json, &config, origin);
}

TokenizerSpec spec_from_merges(const Value& vocabulary, std::string_view merges, const Value& config,
                               const std::string& origin) {
  const std::string name = class_of(config);
  const bool framed =
      name == "RobertaTokenizer" || name == "BartTokenizer" || name == "LongformerTokenizer" || name == "LEDTokenizer";
  if (!framed && name != "GPT2Tokenizer") {
    raise(
        ErrorCategory::kUnsupported,
        "{}: tokenizer_class '{}': from vocab.json and merges.txt this program reads GPT2Tokenizer, RobertaTokenizer, "
        "BartTokenizer, LongformerTokenizer and LEDTokenizer; any other needs its tokenizer.json",
        origin, name);
  }
  const bool prefix = flag(config, "add_prefix_space");
  AddedList added = added_list(vocabulary);
  const auto special = [&](const char* key, const char* of_roberta, const char* of_gpt2) {
    Special found = special_of(config, key, framed ? of_roberta : of_gpt2);
    added.add(found);
    return found.text;
  };
  special("bos_token", "<s>", "<|endoftext|>");
  special("eos_token", "</s>", "<|endoftext|>");
  special("unk_token", "<unk>", "<|endoftext|>");
  const std::string sep = special("sep_token", "</s>", "");
  special("pad_token", "<pad>", "");
  const std::string cls = special("cls_token", "<s>", "");
  special("mask_token", "<mask>", "");
  const Value byte_level =
      Value::object({{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", true}});
  Value json = Value::object(
      {{"added_tokens", added.take()},
       {"pre_tokenizer", byte_level},
       {"decoder", byte_level},
       {"model", Value::object({{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges_of_lines(merges)}})}});
  if (framed) {
    json.set("post_processor", Value::object({{"type", "RobertaProcessing"},
                                              {"sep", list({Value(sep)})},
                                              {"cls", list({Value(cls)})},
                                              {"trim_offsets", flag(config, "trim_offsets", true)},
                                              {"add_prefix_space", prefix}}));
  }
  return spec_from_tokenizer_json(json, &config, origin);
}

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
  const Value json = xlm ? xlm_roberta(model, config) : of_t5 ? t5(model, config) : as_its_file_says(model);
  TokenizerSpec spec = spec_from_tokenizer_json(json, &config, origin);
  if (!merged) return spec;
  for (const SentencePieceModel::Piece& piece : model.pieces) spec.scores.push_back(static_cast<double>(piece.score));
  spec.scores.resize(spec.tokens.size(), 0.0);
  return spec;
}

}  // namespace instruct::tokenizers
