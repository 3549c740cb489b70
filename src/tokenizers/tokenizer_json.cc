// tokenizer.json (and tokenizer_config.json) of Hugging Face to a TokenizerSpec.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/json_parts.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

using json_parts::flag;
using json_parts::text;
using json_parts::unsupported;

class Reader {
 public:
  Reader(const Value& json, const Value* config, const std::string& origin) : json_(json), config_(config) {
    spec_.name = origin;
  }

  TokenizerSpec read() {
    read_model();
    spec_.alphabet = Alphabet::kCharacters;
    json_parts::read_normaliser(json_, spec_);
    json_parts::read_pre_tokenizer(json_, spec_);
    json_parts::read_decoder(json_, spec_);
    if (byte_fallback_) mark_byte_tokens();
    if (const Value* added = json_.find("added_tokens"); added != nullptr && !added->is_null()) read_added(*added);
    index_ids();
    if (const Value* unknown = json_.at("model").find("unk_token"); unknown != nullptr && !unknown->is_null())
      spec_.unknown = id_of(unknown->as_string());
    json_parts::read_post_processor(json_, spec_, [&](const std::string& token) { return id_of(token); });
    if (config_ != nullptr) read_config();
    if (spec_.model == ModelKind::kUnigram) spec_.scores.resize(spec_.tokens.size(), std::nan(""));  // added tokens
    return std::move(spec_);
  }

 private:
  // Model.

  void read_model() {
    const Value& model = json_.at("model");
    // Files of the library's first years name no type.
    const bool scored = model.at("vocab").is_array();
    const std::string type = text(model, "type",
                                  scored                            ? "Unigram"
                                  : model.find("merges") == nullptr ? "WordPiece"
                                                                    : "BPE");
    if (type == "WordPiece") {
      read_word_piece(model);
    } else if (type == "Unigram") {
      read_unigram(model);
    } else if (type == "BPE") {
      read_byte_pair(model);
    } else {
      unsupported(spec_, "model type", type, "BPE, Unigram and WordPiece");
    }
  }

  void read_vocabulary(const Value& model) {
    limit_ = model.at("vocab").size();
    if (const Value* added = json_.find("added_tokens")) limit_ += added->size();
    limit_ = limit_ * 2 + (1 << 16);
    for (const auto& [token, id] : model.at("vocab").as_object()) place(id.as_integer(), token, TokenKind::kNormal);
  }

  void read_word_piece(const Value& model) {
    spec_.model = ModelKind::kWordPiece;
    spec_.continuing_prefix = text(model, "continuing_subword_prefix", "##");
    if (const Value* longest = model.find("max_input_chars_per_word")) spec_.longest_word = longest->as_integer();
    read_vocabulary(model);
  }

  // "vocab": [["piece", score], ...], by id.
  void read_unigram(const Value& model) {
    spec_.model = ModelKind::kUnigram;
    byte_fallback_ = flag(model, "byte_fallback");
    const Value::Array& pieces = model.at("vocab").as_array();
    limit_ = pieces.size();
    if (const Value* added = json_.find("added_tokens")) limit_ += added->size();
    limit_ = limit_ * 2 + (1 << 16);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (!pieces[i].is_array() || pieces[i].size() != 2)
        raise(ErrorCategory::kBadData, "{}: piece {} of the vocabulary is no pair of text and score", spec_.name, i);
      place(static_cast<std::int64_t>(i), pieces[i].as_array()[0].as_string(), TokenKind::kNormal);
      spec_.scores.push_back(pieces[i].as_array()[1].as_double());
    }
    const Value* unknown = model.find("unk_id");
    if (unknown == nullptr || unknown->is_null()) return;
    const std::int64_t id = unknown->as_integer();
    if (id < 0 || static_cast<std::size_t>(id) >= pieces.size())
      raise(ErrorCategory::kBadData, "{}: unk_id {} in a vocabulary of {}", spec_.name, id, pieces.size());
    spec_.unknown = static_cast<std::int32_t>(id);
  }

  void read_byte_pair(const Value& model) {
    for (const char* option : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text(model, option, "").empty()) unsupported(spec_, "model option", option, "BPE without it");
    }
    spec_.ignore_merges = flag(model, "ignore_merges");
    spec_.fuse_unknown = flag(model, "fuse_unk");
    byte_fallback_ = flag(model, "byte_fallback");
    read_vocabulary(model);
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
    if (config_->find("add_bos_token") != nullptr || config_->find("add_eos_token") != nullptr) {
      spec_.single.clear();
      spec_.pair.clear();
    }
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
