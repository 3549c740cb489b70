// The files of BERT, GPT-2 and RoBERTa that folders have where there is no tokenizer.json. Each is put into the
// tokenizer.json that the official library makes of it (transformers 5: BertTokenizer, GPT2Tokenizer,
// RobertaTokenizer), and read as such.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/json_parts.h"
#include "tokenizers/tokenizer.h"
#include "tokenizers/vocab_json.h"

namespace instruct::tokenizers {
namespace {

using json_parts::flag;
using vocab_json::class_of;
using vocab_json::list;
using vocab_json::Special;
using vocab_json::special_of;
using vocab_json::template_of;
using vocab_json::text_part;
using vocab_json::token_part;
using vocab_json::typed;

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

}  // namespace instruct::tokenizers
