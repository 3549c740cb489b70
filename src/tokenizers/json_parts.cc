#include "tokenizers/json_parts.h"

#include "base/error.h"
#include "tokenizers/base64.h"
#include "tokenizers/pattern.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers::json_parts {
namespace {

constexpr int kDeepest = 16;  // sequences in sequences
constexpr const char* kSpaceSymbol = "\xE2\x96\x81";

using Step = std::function<void(const Value&, const std::string&)>;

void visit(const Value& part, const char* list, const TokenizerSpec& spec, const Step& step, int depth) {
  const std::string type = text(part, "type", "(none)");
  if (type != "Sequence") return step(part, type);
  if (depth == kDeepest) raise(ErrorCategory::kBadData, "{}: {} nested deeper than {}", spec.name, list, kDeepest);
  for (const Value& inner : part.at(list).as_array()) visit(inner, list, spec, step, depth + 1);
}

// Files before 2024 say it with a flag.
std::string prepend_scheme(const Value& part) {
  return text(part, "prepend_scheme", flag(part, "add_prefix_space", true) ? "always" : "never");
}

std::string pattern_of(const Value& part) {
  const Value& pattern = part.at("pattern");
  if (const Value* regex = pattern.find("Regex")) return regex->as_string();
  return quote_pattern(pattern.at("String").as_string());
}

void read_bert_normaliser(const Value& part, TokenizerSpec& spec) {
  const bool lower = flag(part, "lowercase", true);
  const auto add = [&](NormaliserKind kind, bool wanted) {
    if (wanted) spec.normalisers.push_back({kind, {}, {}});
  };
  add(NormaliserKind::kBertClean, flag(part, "clean_text", true));
  add(NormaliserKind::kBertChinese, flag(part, "handle_chinese_chars", true));
  add(NormaliserKind::kBertAccents, flag(part, "strip_accents", lower));  // null means as lowercase says
  add(NormaliserKind::kLowercase, lower);
}

void read_strip(const Value& part, TokenizerSpec& spec) {
  const bool left = flag(part, "strip_left", true);
  const bool right = flag(part, "strip_right", true);
  if (!left && !right) return;
  spec.normalisers.push_back({NormaliserKind::kStrip, {}, left && right ? "both" : left ? "left" : "right"});
}

SplitBehaviour behaviour_of(const std::string& name, const TokenizerSpec& spec) {
  if (name == "Isolated") return SplitBehaviour::kIsolated;
  if (name == "Removed") return SplitBehaviour::kRemoved;
  if (name == "Contiguous") return SplitBehaviour::kContiguous;
  if (name == "MergedWithPrevious") return SplitBehaviour::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehaviour::kMergedWithNext;
  unsupported(spec, "split behavior", name, "Isolated, Removed, Contiguous, MergedWithPrevious and MergedWithNext");
}

void prepare(TokenizerSpec& spec, const std::string& type, NormaliserStep step) {
  if (!spec.splits.empty()) unsupported(spec, "pre_tokenizer behind a split", type, "it as the first");
  spec.preparations.push_back(std::move(step));
}

void read_metaspace(const Value& part, TokenizerSpec& spec) {
  const std::string symbol = text(part, "replacement", kSpaceSymbol);
  const std::string scheme = prepend_scheme(part);
  const bool split = flag(part, "split", true);
  if (!spec.splits.empty()) {  // behind a split it sees pieces, which without spaces need only what goes in front
    const bool spaces_gone = spec.splits[0].match == SplitMatch::kSpace &&
                             spec.splits[0].behaviour == SplitBehaviour::kRemoved && !spec.splits[0].invert;
    if (!spaces_gone || scheme == "first")
      unsupported(spec, "pre_tokenizer behind a split", "Metaspace", "it as the first, or behind WhitespaceSplit");
    if (scheme == "always") spec.piece_prefix = symbol;
    if (split) spec.splits.push_back({quote_pattern(symbol), SplitBehaviour::kMergedWithNext});
    return;
  }
  prepare(spec, "Metaspace", {NormaliserKind::kReplace, " ", symbol});
  if (scheme == "always") {
    prepare(spec, "Metaspace", {NormaliserKind::kPrefix, {}, symbol});
  } else if (scheme == "first") {
    prepare(spec, "Metaspace", {NormaliserKind::kPrefixFirst, {}, symbol});
  } else if (scheme != "never") {
    unsupported(spec, "prepend_scheme", scheme, "always, first and never");
  }
  if (split) spec.splits.push_back({quote_pattern(symbol), SplitBehaviour::kMergedWithNext});
}

void read_byte_level(const Value& part, TokenizerSpec& spec) {
  if (flag(part, "add_prefix_space", true)) prepare(spec, "ByteLevel", {NormaliserKind::kPrefix, {}, " "});
  if (flag(part, "use_regex", true)) {
    for (SplitStep& step : splits_of_gguf_name("gpt-2")) spec.splits.push_back(std::move(step));
  }
  spec.alphabet = Alphabet::kBytes;
}

SplitStep of_class(SplitMatch match, SplitBehaviour behaviour) {
  return {{}, behaviour, false, match};
}

void read_pre_tokenizer_part(const Value& part, const std::string& type, TokenizerSpec& spec) {
  if (spec.alphabet == Alphabet::kBytes)
    unsupported(spec, "pre_tokenizer behind ByteLevel", type, "ByteLevel as the last");
  const auto behaviour = [&](const char* otherwise) { return behaviour_of(text(part, "behavior", otherwise), spec); };
  std::vector<SplitStep>& splits = spec.splits;
  if (type == "ByteLevel") {
    read_byte_level(part, spec);
  } else if (type == "Metaspace") {
    read_metaspace(part, spec);
  } else if (type == "BertPreTokenizer") {
    splits.push_back(of_class(SplitMatch::kSpace, SplitBehaviour::kRemoved));
    splits.push_back(of_class(SplitMatch::kPunctuation, SplitBehaviour::kIsolated));
  } else if (type == "Digits") {
    const bool single = flag(part, "individual_digits");
    splits.push_back(of_class(SplitMatch::kDigit, single ? SplitBehaviour::kIsolated : SplitBehaviour::kContiguous));
  } else if (type == "Split") {
    splits.push_back({pattern_of(part), behaviour_of(part.at("behavior").as_string(), spec), flag(part, "invert")});
  } else if (type == "CharDelimiterSplit") {
    splits.push_back({quote_pattern(part.at("delimiter").as_string()), SplitBehaviour::kRemoved});
  } else if (type == "Whitespace") {
    splits.push_back({R"(\w+|[^\w\s]+)", SplitBehaviour::kRemoved, true});
  } else if (type == "WhitespaceSplit") {
    splits.push_back(of_class(SplitMatch::kSpace, SplitBehaviour::kRemoved));
  } else if (type == "Punctuation") {
    splits.push_back(of_class(SplitMatch::kPunctuation, behaviour("Isolated")));
  } else {
    unsupported(spec, "pre_tokenizer", type,
                "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, Metaspace, Punctuation, Sequence, Split, "
                "Whitespace and WhitespaceSplit");
  }
}

void read_normaliser_part(const Value& part, const std::string& type, TokenizerSpec& spec) {
  const auto add = [&](NormaliserKind kind) { spec.normalisers.push_back({kind, {}, {}}); };
  if (type == "NFC") {
    add(NormaliserKind::kNfc);
  } else if (type == "NFD") {
    add(NormaliserKind::kNfd);
  } else if (type == "NFKC") {
    add(NormaliserKind::kNfkc);
  } else if (type == "NFKD") {
    add(NormaliserKind::kNfkd);
  } else if (type == "Lowercase") {
    add(NormaliserKind::kLowercase);
  } else if (type == "StripAccents") {
    add(NormaliserKind::kStripAccents);
  } else if (type == "Nmt") {
    add(NormaliserKind::kNmt);
  } else if (type == "Strip") {
    read_strip(part, spec);
  } else if (type == "Precompiled") {
    if (const Value* map = part.find("precompiled_charsmap"); map != nullptr && !map->is_null())
      spec.normalisers.push_back({NormaliserKind::kCharsmap, {}, bytes_of_base64(map->as_string(), spec.name)});
  } else if (type == "BertNormalizer") {
    read_bert_normaliser(part, spec);
  } else if (type == "Prepend") {
    spec.normalisers.push_back({NormaliserKind::kPrepend, {}, part.at("prepend").as_string()});
  } else if (type == "Replace") {
    spec.normalisers.push_back({NormaliserKind::kReplace, pattern_of(part), part.at("content").as_string()});
  } else {
    unsupported(
        spec, "normalizer", type,
        "BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, Sequence, Strip and "
        "StripAccents");
  }
}

// Tokens are joined and their spaces spelled out by token_bytes(); read is what that needs to know.
void read_decoder_part(const Value& part, const std::string& type, TokenizerSpec& spec) {
  if (type == "Metaspace") {
    spec.space_symbol = text(part, "replacement", kSpaceSymbol);
    spec.strip_leading_space = prepend_scheme(part) != "never";
  } else if (type == "Replace") {
    const std::string from = text(part.at("pattern"), "String", "");
    const std::string to = part.at("content").as_string();
    if (from.empty() || to != " ")
      unsupported(spec, "Replace decoder", from + "' to '" + to, "a symbol that becomes a space");
    spec.space_symbol = from;
  } else if (type == "Strip") {
    const std::int64_t start = part.at("start").as_integer();
    if (text(part, "content", "") != " " || part.at("stop").as_integer() != 0 || start < 0 || start > 1)
      unsupported(spec, "Strip decoder", text(part, "content", ""), "one space at the start");
    spec.strip_leading_space = start == 1;
  } else if (type == "WordPiece" && spec.model == ModelKind::kWordPiece) {
    if (const std::string prefix = text(part, "prefix", "##"); prefix != spec.continuing_prefix)
      unsupported(spec, "WordPiece decoder's prefix", prefix, "the prefix of the model");
    spec.clean_up_spaces = flag(part, "cleanup", true);
    spec.strip_leading_space = true;
  } else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse") {
    unsupported(spec, "decoder", type,
                "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip and, for its model, WordPiece");
  }
}

}  // namespace

void unsupported(const TokenizerSpec& spec, const char* part, const std::string& received, const char* known) {
  raise(ErrorCategory::kUnsupported, "{}: {} '{}': this program knows {}", spec.name, part, received, known);
}

bool flag(const Value& object, const char* key, bool otherwise) {
  const Value* value = object.find(key);
  return value != nullptr && value->is_bool() ? value->as_bool() : otherwise;
}

std::string text(const Value& object, const char* key, const char* otherwise) {
  const Value* value = object.find(key);
  return value != nullptr && value->is_string() ? value->as_string() : otherwise;
}

void for_each_part(const Value& json, const char* key, const char* list, const TokenizerSpec& spec, const Step& step) {
  if (const Value* part = json.find(key); part != nullptr && !part->is_null()) visit(*part, list, spec, step, 0);
}

void read_normaliser(const Value& json, TokenizerSpec& spec) {
  for_each_part(json, "normalizer", "normalizers", spec,
                [&](const Value& part, const std::string& type) { read_normaliser_part(part, type, spec); });
}

void read_pre_tokenizer(const Value& json, TokenizerSpec& spec) {
  for_each_part(json, "pre_tokenizer", "pretokenizers", spec,
                [&](const Value& part, const std::string& type) { read_pre_tokenizer_part(part, type, spec); });
}

void read_decoder(const Value& json, TokenizerSpec& spec) {
  for_each_part(json, "decoder", "decoders", spec,
                [&](const Value& part, const std::string& type) { read_decoder_part(part, type, spec); });
}

}  // namespace instruct::tokenizers::json_parts
