// tokenizer.json (and tokenizer_config.json) of Hugging Face to a TokenizerSpec.
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pattern.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

constexpr int kDeepest = 16;  // sequences in sequences

class Reader {
 public:
  Reader(const Value& json, const Value* config, const std::string& origin) : json_(json), config_(config) {
    spec_.name = origin;
  }

  TokenizerSpec read() {
    read_model();
    const auto part = [&](const char* key, void (Reader::*step)(const Value&, int)) {
      if (const Value* value = json_.find(key); value != nullptr && !value->is_null()) (this->*step)(*value, 0);
    };
    spec_.alphabet = Alphabet::kCharacters;
    part("normalizer", &Reader::read_normaliser);
    part("pre_tokenizer", &Reader::read_pre_tokenizer);
    part("decoder", &Reader::read_decoder);
    if (byte_fallback_) mark_byte_tokens();
    if (const Value* added = json_.find("added_tokens"); added != nullptr && !added->is_null()) read_added(*added);
    index_ids();
    if (const Value* unknown = json_.at("model").find("unk_token"); unknown != nullptr && !unknown->is_null())
      spec_.unknown = id_of(unknown->as_string());
    part("post_processor", &Reader::read_post_processor);
    if (config_ != nullptr) read_config();
    return std::move(spec_);
  }

 private:
  [[noreturn]] void unsupported(const char* part, const std::string& received, const char* known) const {
    raise(ErrorCategory::kUnsupported, "{}: {} '{}': this program knows {}", spec_.name, part, received, known);
  }
  static bool flag(const Value& object, const char* key, bool otherwise = false) {
    const Value* value = object.find(key);
    return value != nullptr && value->is_bool() ? value->as_bool() : otherwise;
  }
  static std::string text(const Value& object, const char* key, const char* otherwise) {
    const Value* value = object.find(key);
    return value != nullptr && value->is_string() ? value->as_string() : otherwise;
  }
  static std::string type_of(const Value& object) { return text(object, "type", "(none)"); }

  // The parts of a sequence, or the thing itself.
  void each(const Value& part, const char* key, int depth, void (Reader::*step)(const Value&, int)) {
    if (depth > kDeepest) raise(ErrorCategory::kBadData, "{}: {} nested deeper than {}", spec_.name, key, kDeepest);
    for (const Value& inner : part.at(key).as_array()) (this->*step)(inner, depth + 1);
  }

  // Model.

  void read_model() {
    const Value& model = json_.at("model");
    if (const std::string type = text(model, "type", "BPE"); type != "BPE") unsupported("model type", type, "BPE");
    for (const char* option : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text(model, option, "").empty()) unsupported("model option", option, "BPE without it");
    }
    spec_.ignore_merges = flag(model, "ignore_merges");
    spec_.fuse_unknown = flag(model, "fuse_unk");
    byte_fallback_ = flag(model, "byte_fallback");
    limit_ = model.at("vocab").size();
    if (const Value* added = json_.find("added_tokens")) limit_ += added->size();
    limit_ = limit_ * 2 + (1 << 16);
    for (const auto& [token, id] : model.at("vocab").as_object()) place(id.as_integer(), token, TokenKind::kNormal);
    read_merges(model.at("merges"));
  }

  // Ids may have gaps, but a small file may not ask for a large table.
  std::size_t place(std::int64_t id, const std::string& token, TokenKind kind) {
    if (id < 0 || static_cast<std::uint64_t>(id) >= limit_) {
      raise(ErrorCategory::kBadData, "{}: token '{}' has id {}; expected 0 to {} in a vocabulary of this size",
            spec_.name, token, id, limit_ - 1);
    }
    const auto index = static_cast<std::size_t>(id);
    if (index >= spec_.tokens.size()) {
      spec_.tokens.resize(index + 1);
      spec_.kinds.resize(index + 1, TokenKind::kUnused);
    }
    if (kind == TokenKind::kNormal && spec_.kinds[index] != TokenKind::kUnused) {
      raise(ErrorCategory::kBadData, "{}: tokens '{}' and '{}' have the same id {}", spec_.name, spec_.tokens[index],
            token, id);
    }
    spec_.tokens[index] = token;
    spec_.kinds[index] = kind;
    return index;
  }

  void read_merges(const Value& merges) {
    for (const Value& merge : merges.as_array()) {
      if (merge.is_array()) {
        if (merge.size() != 2)
          raise(ErrorCategory::kBadData, "{}: a merge needs two tokens, got {}", spec_.name, merge.size());
        spec_.merges.emplace_back(merge.as_array()[0].as_string(), merge.as_array()[1].as_string());
        continue;
      }
      const std::string& both = merge.as_string();
      const std::size_t space = both.find(' ', 1);
      if (space == std::string::npos) raise(ErrorCategory::kBadData, "{}: merge '{}' has no space", spec_.name, both);
      spec_.merges.emplace_back(both.substr(0, space), both.substr(space + 1));
    }
  }

  void mark_byte_tokens() {
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
      if (spec_.kinds[i] == TokenKind::kNormal && byte_of_fallback_token(spec_.tokens[i]))
        spec_.kinds[i] = TokenKind::kByte;
    }
  }

  // Normaliser and pre-tokenizer.

  std::string pattern_of(const Value& part) const {
    const Value& pattern = part.at("pattern");
    if (const Value* regex = pattern.find("Regex")) return regex->as_string();
    return quote_pattern(pattern.at("String").as_string());
  }

  void read_normaliser(const Value& part, int depth) {
    const std::string type = type_of(part);
    if (type == "Sequence") {
      each(part, "normalizers", depth, &Reader::read_normaliser);
    } else if (type == "NFC") {
      spec_.normalisers.push_back({NormaliserKind::kNfc, {}, {}});
    } else if (type == "NFD") {
      spec_.normalisers.push_back({NormaliserKind::kNfd, {}, {}});
    } else if (type == "NFKC") {
      spec_.normalisers.push_back({NormaliserKind::kNfkc, {}, {}});
    } else if (type == "NFKD") {
      spec_.normalisers.push_back({NormaliserKind::kNfkd, {}, {}});
    } else if (type == "Prepend") {
      spec_.normalisers.push_back({NormaliserKind::kPrepend, {}, part.at("prepend").as_string()});
    } else if (type == "Replace") {
      spec_.normalisers.push_back({NormaliserKind::kReplace, pattern_of(part), part.at("content").as_string()});
    } else {
      unsupported("normalizer", type, "NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence");
    }
  }

  void read_pre_tokenizer(const Value& part, int depth) {
    const std::string type = type_of(part);
    if (type == "Sequence") {
      each(part, "pretokenizers", depth, &Reader::read_pre_tokenizer);
      return;
    }
    if (spec_.alphabet == Alphabet::kBytes)
      unsupported("pre_tokenizer behind ByteLevel", type, "ByteLevel as the last");
    if (type == "ByteLevel") {
      if (flag(part, "add_prefix_space", true)) prepare(type, {NormaliserKind::kPrefix, {}, " "});
      if (flag(part, "use_regex", true)) add_steps(splits_of_gguf_name("gpt-2"));
      spec_.alphabet = Alphabet::kBytes;
    } else if (type == "Metaspace") {
      read_metaspace(part);
    } else if (type == "Digits") {
      add_split(R"(\p{N})", flag(part, "individual_digits") ? SplitBehaviour::kIsolated : SplitBehaviour::kContiguous);
    } else if (type == "Split") {
      add_split(pattern_of(part), behaviour_of(part.at("behavior").as_string()), flag(part, "invert"));
    } else if (type == "Whitespace") {
      add_split(R"(\w+|[^\w\s]+)", SplitBehaviour::kRemoved, true);
    } else if (type == "WhitespaceSplit") {
      add_split(R"(\s)", SplitBehaviour::kRemoved);
    } else if (type == "Punctuation") {
      add_split(R"([\p{P}$+<=>^`|~])", behaviour_of(text(part, "behavior", "Isolated")));
    } else {
      unsupported("pre_tokenizer", type,
                  "ByteLevel, Digits, Metaspace, Punctuation, Sequence, Split, Whitespace and WhitespaceSplit");
    }
  }

  SplitBehaviour behaviour_of(const std::string& name) const {
    if (name == "Isolated") return SplitBehaviour::kIsolated;
    if (name == "Removed") return SplitBehaviour::kRemoved;
    if (name == "Contiguous") return SplitBehaviour::kContiguous;
    if (name == "MergedWithPrevious") return SplitBehaviour::kMergedWithPrevious;
    if (name == "MergedWithNext") return SplitBehaviour::kMergedWithNext;
    unsupported("split behavior", name, "Isolated, Removed, Contiguous, MergedWithPrevious and MergedWithNext");
  }

  void read_metaspace(const Value& part) {
    const std::string symbol = text(part, "replacement", "\xE2\x96\x81");
    const char* usual = flag(part, "add_prefix_space", true) ? "always" : "never";  // as files before 2024 say it
    const std::string scheme = text(part, "prepend_scheme", usual);
    prepare("Metaspace", {NormaliserKind::kReplace, " ", symbol});
    if (scheme == "always") {
      prepare("Metaspace", {NormaliserKind::kPrefix, {}, symbol});
    } else if (scheme == "first") {
      prepare("Metaspace", {NormaliserKind::kPrefixFirst, {}, symbol});
    } else if (scheme != "never") {
      unsupported("prepend_scheme", scheme, "always, first and never");
    }
    if (flag(part, "split", true)) add_split(quote_pattern(symbol), SplitBehaviour::kMergedWithNext);
  }

  void prepare(const std::string& type, NormaliserStep step) {
    if (!spec_.splits.empty()) unsupported("pre_tokenizer behind a split", type, "it as the first");
    spec_.preparations.push_back(std::move(step));
  }
  void add_split(std::string pattern, SplitBehaviour behaviour, bool invert = false) {
    spec_.splits.push_back({std::move(pattern), behaviour, invert});
  }
  void add_steps(const std::vector<SplitStep>& steps) {
    spec_.splits.insert(spec_.splits.end(), steps.begin(), steps.end());
  }

  // Decoder: tokens are joined and their spaces spelled out by token_bytes(); read is what that needs to know.
  void read_decoder(const Value& part, int depth) {
    const std::string type = type_of(part);
    if (type == "Sequence") {
      each(part, "decoders", depth, &Reader::read_decoder);
    } else if (type == "Metaspace") {
      spec_.space_symbol = text(part, "replacement", "\xE2\x96\x81");
      const char* usual = flag(part, "add_prefix_space", true) ? "always" : "never";
      spec_.strip_leading_space = text(part, "prepend_scheme", usual) != "never";
    } else if (type == "Replace") {
      const std::string from = text(part.at("pattern"), "String", "");
      const std::string to = part.at("content").as_string();
      if (from.empty() || to != " ")
        unsupported("Replace decoder", from + "' to '" + to, "a symbol that becomes a space");
      spec_.space_symbol = from;
    } else if (type == "Strip") {
      const std::int64_t start = part.at("start").as_integer();
      if (text(part, "content", "") != " " || part.at("stop").as_integer() != 0 || start < 0 || start > 1)
        unsupported("Strip decoder", text(part, "content", ""), "one space at the start");
      spec_.strip_leading_space = start == 1;
    } else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse") {
      unsupported("decoder", type, "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence and Strip");
    }
  }

  // Added tokens.

  void add_token(std::int64_t number, const Value& token) {
    const std::size_t index = place(number, token.at("content").as_string(),
                                    flag(token, "special") ? TokenKind::kSpecial : TokenKind::kUserDefined);
    const MatchRule rule{static_cast<std::int32_t>(index), flag(token, "lstrip"), flag(token, "rstrip"),
                         flag(token, "single_word"), flag(token, "normalized")};
    std::erase_if(spec_.match_rules, [&](const MatchRule& other) { return other.id == rule.id; });
    if (rule.strip_left || rule.strip_right || rule.single_word || rule.normalised) spec_.match_rules.push_back(rule);
  }

  void read_added(const Value& added) {
    for (const Value& token : added.as_array()) add_token(token.at("id").as_integer(), token);
  }

  void index_ids() {
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) ids_.emplace(spec_.tokens[i], static_cast<std::int32_t>(i));
  }
  std::optional<std::int32_t> id_of(const std::string& token) const {
    const auto found = token.empty() ? ids_.end() : ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  // TemplateProcessing that puts a special token before or behind a single text means "add bos" and "add eos".
  void read_post_processor(const Value& part, int depth) {
    const std::string type = type_of(part);
    if (type == "Sequence") {
      each(part, "processors", depth, &Reader::read_post_processor);
    } else if (type == "TemplateProcessing") {
      const Value::Array& single = part.at("single").as_array();
      if (single.empty()) return;
      if (const Value* special = single.front().find("SpecialToken")) {
        spec_.bos = id_of(special->at("id").as_string());
        spec_.add_bos = spec_.bos.has_value();
      }
      if (const Value* special = single.back().find("SpecialToken"); special != nullptr && single.size() > 1) {
        spec_.eos = id_of(special->at("id").as_string());
        spec_.add_eos = spec_.eos.has_value();
      }
    }
  }

  // tokenizer_config.json.

  std::optional<std::int32_t> special(const char* key) const {
    const Value* value = config_->find(key);
    if (value == nullptr || value->is_null()) return std::nullopt;
    if (value->is_object()) value = value->find("content");
    if (value == nullptr || !value->is_string()) return std::nullopt;
    return id_of(value->as_string());
  }

  void read_config() {
    if (const Value* decoder = config_->find("added_tokens_decoder"); decoder != nullptr && decoder->is_object()) {
      for (const auto& [key, token] : decoder->as_object()) {
        std::int64_t id = -1;
        const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
        if (error != std::errc() || end != key.data() + key.size())
          raise(ErrorCategory::kBadData, "{}: added_tokens_decoder: '{}' is no token id", spec_.name, key);
        add_token(id, token);
      }
      index_ids();
    }
    if (const auto id = special("bos_token")) spec_.bos = id;
    if (const auto id = special("eos_token")) spec_.eos = id;
    spec_.pad = special("pad_token");
    spec_.add_bos = flag(*config_, "add_bos_token", spec_.add_bos) && spec_.bos.has_value();
    spec_.add_eos = flag(*config_, "add_eos_token", spec_.add_eos) && spec_.eos.has_value();
  }

  const Value& json_;
  const Value* config_;
  TokenizerSpec spec_;
  bool byte_fallback_ = false;
  std::size_t limit_ = 0;  // of ids
  std::unordered_map<std::string, std::int32_t> ids_;
};

}  // namespace

TokenizerSpec spec_from_tokenizer_json(const Value& json, const Value* config, const std::string& origin) {
  return Reader(json, config, origin).read();
}

}  // namespace instruct::tokenizers
