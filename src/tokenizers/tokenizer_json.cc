// tokenizer.json (and tokenizer_config.json) of Hugging Face to a TokenizerSpec.
#include <algorithm>

#include "base/error.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

class Reader {
 public:
  Reader(const Value& json, const Value* config, const std::string& origin) : json_(json), config_(config) {
    spec_.name = origin;
  }

  TokenizerSpec read() {
    const Value& model = json_.at("model");
    const Value* type = model.find("type");
    if (type == nullptr || !type->is_string() || type->as_string() != "BPE") {
      unsupported("model type", type != nullptr && type->is_string() ? type->as_string() : "(none)", "BPE");
    }
    if (flag(model, "byte_fallback")) unsupported("model option", "byte_fallback", "byte-level BPE");
    spec_.ignore_merges = flag(model, "ignore_merges");
    read_vocabulary(model.at("vocab"));
    read_merges(model.at("merges"));
    if (const Value* normaliser = json_.find("normalizer")) read_normaliser(*normaliser);
    if (const Value* pre = json_.find("pre_tokenizer")) read_pre_tokenizer(*pre);
    if (const Value* added = json_.find("added_tokens")) read_added(*added);
    if (const Value* post = json_.find("post_processor")) read_post_processor(*post);
    if (config_ != nullptr) read_config();
    return std::move(spec_);
  }

 private:
  [[noreturn]] void unsupported(const char* part, const std::string& received, const char* known) const {
    raise(ErrorCategory::kUnsupported, "{}: {} '{}': this program knows {}", spec_.name, part, received, known);
  }
  static bool flag(const Value& object, const char* key) {
    const Value* value = object.find(key);
    return value != nullptr && value->is_bool() && value->as_bool();
  }
  static std::string type_of(const Value& object) {
    const Value* type = object.find("type");
    return type != nullptr && type->is_string() ? type->as_string() : "(none)";
  }

  void place(std::int64_t id, const std::string& token, TokenKind kind) {
    if (id < 0 || id > (1 << 24)) raise(ErrorCategory::kBadData, "{}: token '{}' has id {}", spec_.name, token, id);
    const auto index = static_cast<std::size_t>(id);
    if (index >= spec_.tokens.size()) {
      spec_.tokens.resize(index + 1);
      spec_.kinds.resize(index + 1, TokenKind::kUnused);
    }
    spec_.tokens[index] = token;
    spec_.kinds[index] = kind;
  }

  void read_vocabulary(const Value& vocabulary) {
    for (const auto& [token, id] : vocabulary.as_object()) place(id.as_integer(), token, TokenKind::kNormal);
  }

  void read_merges(const Value& merges) {
    for (const Value& merge : merges.as_array()) {
      if (merge.is_array()) {
        if (merge.size() != 2)
          raise(ErrorCategory::kBadData, "{}: a merge needs two tokens, got {}", spec_.name, merge.size());
        spec_.merges.emplace_back(merge.as_array()[0].as_string(), merge.as_array()[1].as_string());
        continue;
      }
      const std::string& text = merge.as_string();
      const std::size_t space = text.find(' ', 1);
      if (space == std::string::npos) raise(ErrorCategory::kBadData, "{}: merge '{}' has no space", spec_.name, text);
      spec_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    }
  }

  void read_normaliser(const Value& normaliser) {
    if (normaliser.is_null()) return;
    const std::string type = type_of(normaliser);
    if (type == "NFC") {
      spec_.normalise_nfc = true;
    } else if (type == "Sequence") {
      for (const Value& part : normaliser.at("normalizers").as_array()) read_normaliser(part);
    } else {
      unsupported("normalizer", type, "NFC and Sequence");
    }
  }

  void read_pre_tokenizer(const Value& pre) {
    if (pre.is_null()) return;
    const std::string type = type_of(pre);
    if (type == "Sequence") {
      for (const Value& part : pre.at("pretokenizers").as_array()) read_pre_tokenizer(part);
    } else if (type == "ByteLevel") {
      spec_.add_prefix_space = spec_.add_prefix_space || flag(pre, "add_prefix_space");
      const Value* regex = pre.find("use_regex");
      if (regex == nullptr || !regex->is_bool() || regex->as_bool()) add_steps(splits_of_gguf_name("gpt-2"));
    } else if (type == "Digits") {
      spec_.splits.push_back({flag(pre, "individual_digits") ? R"(\p{N})" : R"(\p{N}+)"});
    } else if (type == "Split") {
      read_split(pre);
    } else {
      unsupported("pre_tokenizer", type, "ByteLevel, Digits, Split and Sequence");
    }
  }

  void read_split(const Value& pre) {
    const std::string behaviour = pre.at("behavior").as_string();
    if (behaviour != "Isolated" && !(behaviour == "Removed" && flag(pre, "invert"))) {
      unsupported("Split behavior", behaviour, "Isolated, and Removed when inverted");
    }
    const Value& pattern = pre.at("pattern");
    if (const Value* regex = pattern.find("Regex")) {
      spec_.splits.push_back({regex->as_string()});
      return;
    }
    std::string quoted;
    for (const char c : pattern.at("String").as_string()) {
      if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) quoted += '\\';
      quoted += c;
    }
    spec_.splits.push_back({quoted});
  }

  void add_steps(const std::vector<SplitStep>& steps) {
    spec_.splits.insert(spec_.splits.end(), steps.begin(), steps.end());
  }

  void read_added(const Value& added) {
    for (const Value& token : added.as_array()) {
      place(token.at("id").as_integer(), token.at("content").as_string(),
            flag(token, "special") ? TokenKind::kSpecial : TokenKind::kUserDefined);
    }
  }

  // TemplateProcessing that starts a single text with a special token means "add bos".
  void read_post_processor(const Value& post) {
    if (post.is_null()) return;
    const std::string type = type_of(post);
    if (type == "Sequence") {
      for (const Value& part : post.at("processors").as_array()) read_post_processor(part);
    } else if (type == "TemplateProcessing") {
      const Value::Array& single = post.at("single").as_array();
      if (single.empty()) return;
      if (const Value* special = single.front().find("SpecialToken")) {
        spec_.bos = id_of(special->at("id").as_string());
        spec_.add_bos = spec_.bos.has_value();
      }
    }
  }

  std::optional<std::int32_t> id_of(const std::string& token) const {
    const auto found = std::find(spec_.tokens.begin(), spec_.tokens.end(), token);
    if (found == spec_.tokens.end()) return std::nullopt;
    return static_cast<std::int32_t>(found - spec_.tokens.begin());
  }

  std::optional<std::int32_t> special(const char* key) const {
    const Value* value = config_->find(key);
    if (value == nullptr || value->is_null()) return std::nullopt;
    if (value->is_object()) value = value->find("content");
    if (value == nullptr || !value->is_string()) return std::nullopt;
    return id_of(value->as_string());
  }

  void read_config() {
    if (const auto id = special("bos_token")) spec_.bos = id;
    spec_.eos = special("eos_token");
    spec_.pad = special("pad_token");
    if (const Value* add = config_->find("add_bos_token"); add != nullptr && add->is_bool()) {
      spec_.add_bos = add->as_bool() && spec_.bos.has_value();
    }
    if (const Value* decoder = config_->find("added_tokens_decoder"); decoder != nullptr && decoder->is_object()) {
      for (const auto& [id, token] : decoder->as_object()) {
        place(std::stoll(id), token.at("content").as_string(),
              flag(token, "special") ? TokenKind::kSpecial : TokenKind::kUserDefined);
      }
    }
  }

  const Value& json_;
  const Value* config_;
  TokenizerSpec spec_;
};

}  // namespace

TokenizerSpec spec_from_tokenizer_json(const Value& json, const Value* config, const std::string& origin) {
  return Reader(json, config, origin).read();
}

}  // namespace instruct::tokenizers
