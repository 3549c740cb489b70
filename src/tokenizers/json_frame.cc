// Post-processors of tokenizer.json: the special tokens around one text and around two, as data.
#include <optional>

#include "base/error.h"
#include "tokenizers/json_parts.h"

namespace instruct::tokenizers::json_parts {
namespace {

class FrameReader {
 public:
  FrameReader(TokenizerSpec& spec, const IdOf& id_of) : spec_(spec), id_of_(id_of) {}

  void read(const Value& part, const std::string& type) {
    if (type == "TemplateProcessing") {
      spec_.single = of_template(part, "single");
      spec_.pair = of_template(part, "pair");
      note_ends();
    } else if (type == "BertProcessing") {
      around(part, {}, 1);
      note_ends();
    } else if (type == "RobertaProcessing") {
      around(part, id_at(part, "sep"), 0);
      note_ends();
      trim(part);
    } else if (type == "ByteLevel") {
      trim(part);
    } else {
      unsupported(spec_, "post_processor", type,
                  "BertProcessing, ByteLevel, RobertaProcessing, Sequence and TemplateProcessing");
    }
  }

 private:
  std::int32_t id(const std::string& token) const {
    const auto found = id_of_(token);
    if (found) return *found;
    raise(ErrorCategory::kBadData, "{}: post_processor: '{}' is no token of the vocabulary", spec_.name, token);
  }

  // "sep": ["[SEP]", 102].
  std::int32_t id_at(const Value& part, const char* key) const {
    const Value::Array& pair = part.at(key).as_array();
    if (pair.empty()) raise(ErrorCategory::kBadData, "{}: post_processor: '{}' is empty", spec_.name, key);
    return id(pair[0].as_string());
  }

  void trim(const Value& part) {
    spec_.trim_offsets = flag(part, "trim_offsets", true);
    spec_.keep_first_space = flag(part, "add_prefix_space", true);
  }

  // [CLS] A [SEP] and [CLS] A [SEP] B [SEP]; RoBERTa puts a second separator before B and counts all as type 0.
  void around(const Value& part, std::optional<std::int32_t> second_separator, std::int32_t type_of_second) {
    const FramePart cls{-1, id_at(part, "cls"), 0};
    const FramePart sep{-1, id_at(part, "sep"), 0};
    spec_.single = {cls, {0, -1, 0}, sep};
    spec_.pair = spec_.single;
    if (second_separator) spec_.pair.push_back({-1, *second_separator, 0});
    spec_.pair.push_back({1, -1, type_of_second});
    spec_.pair.push_back({-1, sep.id, type_of_second});
  }

  static std::int32_t type_id(const Value& item) {
    const Value* type = item.find("type_id");
    return type == nullptr ? 0 : static_cast<std::int32_t>(type->as_integer());
  }

  // A special token of a template may stand for several ids.
  void add_special(const Value& part, const Value& item, std::vector<FramePart>& result) const {
    const std::string& name = item.at("id").as_string();
    const Value* known = part.find("special_tokens");
    const Value* special = known == nullptr ? nullptr : known->find(name);
    const Value* tokens = special == nullptr ? nullptr : special->find("tokens");
    if (tokens == nullptr) {
      result.push_back({-1, id(name), type_id(item)});
      return;
    }
    for (const Value& token : tokens->as_array()) result.push_back({-1, id(token.as_string()), type_id(item)});
  }

  std::vector<FramePart> of_template(const Value& part, const char* key) const {
    std::vector<FramePart> result;
    const Value* items = part.find(key);
    if (items == nullptr || items->is_null()) return result;
    for (const Value& item : items->as_array()) {
      if (const Value* special = item.find("SpecialToken")) {
        add_special(part, *special, result);
      } else {
        const Value& text = item.at("Sequence");
        result.push_back({text.at("id").as_string() == "B" ? 1 : 0, -1, type_id(text)});
      }
    }
    return result;
  }

  // What models that write take from it: the tokens before and behind a text.
  void note_ends() {
    const std::vector<FramePart>& single = spec_.single;
    if (!single.empty() && single.front().text < 0) {
      spec_.bos = single.front().id;
      spec_.add_bos = true;
    }
    if (single.size() > 1 && single.back().text < 0) {
      spec_.eos = single.back().id;
      spec_.add_eos = true;
    }
  }

  TokenizerSpec& spec_;
  const IdOf& id_of_;
};

}  // namespace

void read_post_processor(const Value& json, TokenizerSpec& spec, const IdOf& id_of) {
  FrameReader reader(spec, id_of);
  for_each_part(json, "post_processor", "processors", spec,
                [&](const Value& part, const std::string& type) { reader.read(part, type); });
}

}  // namespace instruct::tokenizers::json_parts
