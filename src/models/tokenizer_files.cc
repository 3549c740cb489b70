#include "models/tokenizer_files.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using tokenizers::TokenizerSpec;
using tokenizers::TokenKind;

constexpr const char* kSpaceSymbol = "\xE2\x96\x81";
constexpr std::int64_t kLargestFile = std::int64_t{1} << 30;

TokenKind kind_of_gguf(std::int64_t type) {
  switch (type) {
    case 2:
      return TokenKind::kUnknown;
    case 3:
      return TokenKind::kSpecial;
    case 4:
      return TokenKind::kUserDefined;
    case 5:
      return TokenKind::kUnused;
    case 6:
      return TokenKind::kByte;
    default:
      return TokenKind::kNormal;
  }
}

std::optional<std::int32_t> token_id(const formats::GgufFile& file, const std::string& key) {
  const std::int64_t id = file.integer_or(key, -1);
  return id < 0 || id > INT32_MAX ? std::nullopt : std::optional(static_cast<std::int32_t>(id));
}

// Byte-level BPE: merges, and a name for how text is split.
void read_byte_level(const formats::GgufFile& file, TokenizerSpec& spec) {
  if (file.find("tokenizer.ggml.merges") == nullptr)
    raise(ErrorCategory::kBadData, "{}: the tokenizer has no merges", file.origin());
  const std::vector<std::string_view>& merges = file.texts("tokenizer.ggml.merges");
  spec.merges.reserve(merges.size());
  for (const std::string_view merge : merges) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string::npos) raise(ErrorCategory::kBadData, "{}: merge '{}' has no space", file.origin(), merge);
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  const std::string pre = file.text_or("tokenizer.ggml.pre", "default");
  // What these two names say besides how text is split (llama.cpp, src/llama-vocab.cpp).
  const bool whole = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "tekken";
  spec.splits = tokenizers::splits_of_gguf_name(pre);
  spec.ignore_merges = whole;
  if (pre == "qwen2") spec.normalisers.push_back({tokenizers::NormaliserKind::kNfc, {}, {}});
  if (file.boolean_or("tokenizer.ggml.add_space_prefix", false))
    spec.preparations.push_back({tokenizers::NormaliserKind::kPrefix, {}, " "});
  spec.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", whole);
}

void note_unknown(const formats::GgufFile& file, TokenizerSpec& spec) {
  spec.unknown = token_id(file, "tokenizer.ggml.unknown_token_id");
  for (std::size_t i = 0; i < spec.kinds.size() && !spec.unknown; ++i) {
    if (spec.kinds[i] == TokenKind::kUnknown) spec.unknown = static_cast<std::int32_t>(i);
  }
}

// SentencePiece BPE: pieces with scores, "\u2581" for a space, byte tokens for other characters.
void read_sentence_piece(const formats::GgufFile& file, TokenizerSpec& spec) {
  using tokenizers::NormaliserKind;
  const std::string symbol = kSpaceSymbol;
  spec.alphabet = tokenizers::Alphabet::kCharacters;
  for (const double score : file.numbers_or_empty("tokenizer.ggml.scores")) spec.scores.push_back(score);
  const bool prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (prefix) spec.normalisers.push_back({NormaliserKind::kPrepend, {}, symbol});
  spec.normalisers.push_back({NormaliserKind::kReplace, " ", symbol});
  spec.space_symbol = symbol;
  spec.strip_leading_space = prefix;
  spec.fuse_unknown = true;
  note_unknown(file, spec);
  spec.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", true);
}

// Unigram as T5 has it: the pieces' own scores, the charsmap that SentencePiece normalises with.
void read_unigram(const formats::GgufFile& file, TokenizerSpec& spec) {
  using tokenizers::NormaliserKind;
  spec.model = tokenizers::ModelKind::kUnigram;
  spec.alphabet = tokenizers::Alphabet::kCharacters;
  spec.space_symbol = kSpaceSymbol;
  for (const double score : file.numbers_or_empty("tokenizer.ggml.scores")) spec.scores.push_back(score);
  // What fills up the vocabulary is no token that text can become, and no unlikeliest one.
  for (std::size_t i = std::min(spec.scores.size(), spec.kinds.size()); i-- > 0 && spec.kinds[i] == TokenKind::kUnused;)
    spec.scores[i] = std::nan("");
  std::string charsmap;
  for (const std::int64_t byte : file.integers_or_empty("tokenizer.ggml.precompiled_charsmap"))
    charsmap += static_cast<char>(byte & 0xFF);
  if (!charsmap.empty()) spec.normalisers.push_back({NormaliserKind::kLongestCharsmap, {}, std::move(charsmap)});
  const bool squeeze = file.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false);
  const auto replace = [&](std::string pattern, const char* put) {
    spec.normalisers.push_back({NormaliserKind::kReplace, std::move(pattern), put});
  };
  if (squeeze) replace("\\A +", "");
  if (squeeze) replace(" {2,}", " ");
  replace(" ", kSpaceSymbol);
  if (squeeze) replace(std::string("(?:") + kSpaceSymbol + ")+\\z", "");
  const bool prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (prefix) spec.normalisers.push_back({NormaliserKind::kPrepend, {}, kSpaceSymbol});
  spec.strip_leading_space = prefix;
  note_unknown(file, spec);
  spec.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", false);
  spec.add_eos = file.boolean_or("tokenizer.ggml.add_eos_token", true);
}

// WordPiece as llama.cpp's converter spells it: first parts of words begin with the space symbol, the others with
// nothing (the "##" is gone), and text is lower-cased and loses its accents.
void read_word_piece(const formats::GgufFile& file, TokenizerSpec& spec) {
  using tokenizers::NormaliserKind;
  using tokenizers::SplitBehaviour;
  using tokenizers::SplitMatch;
  spec.model = tokenizers::ModelKind::kWordPiece;
  spec.alphabet = tokenizers::Alphabet::kCharacters;
  spec.continuing_prefix = "##";
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (i < spec.kinds.size() && spec.kinds[i] != TokenKind::kNormal) continue;
    std::string& token = spec.tokens[i];
    if (token.starts_with(kSpaceSymbol)) {
      token.erase(0, std::string_view(kSpaceSymbol).size());
    } else {
      token.insert(0, spec.continuing_prefix);
    }
  }
  for (const NormaliserKind kind : {NormaliserKind::kBertClean, NormaliserKind::kBertChinese,
                                    NormaliserKind::kBertAccents, NormaliserKind::kLowercase})
    spec.normalisers.push_back({kind, {}, {}});
  spec.splits.push_back({{}, SplitBehaviour::kRemoved, false, SplitMatch::kSpace});
  spec.splits.push_back({{}, SplitBehaviour::kIsolated, false, SplitMatch::kPunctuation});
  spec.clean_up_spaces = true;
  spec.strip_leading_space = true;
  note_unknown(file, spec);
}

// [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
void frame_as_bert(const formats::GgufFile& file, TokenizerSpec& spec) {
  const auto cls = token_id(file, "tokenizer.ggml.cls_token_id").value_or(spec.bos.value_or(-1));
  const auto sep = token_id(file, "tokenizer.ggml.seperator_token_id").value_or(spec.eos.value_or(-1));
  if (cls < 0 || sep < 0)
    raise(ErrorCategory::kBadData, "{}: the tokenizer names no token for the start or the end of a text",
          file.origin());
  spec.single = {{-1, cls, 0}, {0, -1, 0}, {-1, sep, 0}};
  spec.pair = {{-1, cls, 0}, {0, -1, 0}, {-1, sep, 0}, {1, -1, 1}, {-1, sep, 1}};
  spec.bos = cls;
  spec.eos = sep;
  spec.add_bos = spec.add_eos = true;
}

}  // namespace

TokenizerSpec spec_of_gguf(const formats::GgufFile& file) {
  TokenizerSpec spec;
  spec.name = file.origin();
  const std::vector<std::string_view>& tokens = file.texts("tokenizer.ggml.tokens");
  spec.tokens.assign(tokens.begin(), tokens.end());
  for (const std::int64_t type : file.integers_or_empty("tokenizer.ggml.token_type"))
    spec.kinds.push_back(kind_of_gguf(type));
  const std::string kind = file.text("tokenizer.ggml.model");
  if (kind == "gpt2") {
    read_byte_level(file, spec);
  } else if (kind == "llama") {
    read_sentence_piece(file, spec);
  } else if (kind == "t5") {
    read_unigram(file, spec);
  } else if (kind == "bert") {
    read_word_piece(file, spec);
  } else {
    raise(
        ErrorCategory::kUnsupported,
        "{}: tokenizer '{}': this program reads byte-level BPE (gpt2), SentencePiece BPE (llama), WordPiece (bert) and "
        "Unigram (t5)",
        file.origin(), kind);
  }
  spec.bos = token_id(file, "tokenizer.ggml.bos_token_id");
  spec.eos = token_id(file, "tokenizer.ggml.eos_token_id");
  spec.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = token_id(file, key)) spec.end_of_turn.push_back(*id);
  }
  spec.add_bos = spec.add_bos && spec.bos;
  spec.add_eos = spec.eos && file.boolean_or("tokenizer.ggml.add_eos_token", spec.add_eos);
  if (kind == "bert") frame_as_bert(file, spec);
  return spec;
}

namespace {

Value json_of(const fs::path& file) {
  return parse_json(read_file(file, kLargestFile), file.string());
}

// The first of these names that the folder has; an empty path when it has none.
fs::path first_of(const fs::path& folder, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (fs::exists(folder / name)) return folder / name;
  }
  return {};
}

// "bos_token" and the like: whether one of them spells this token.
bool names_special(const Value& config, const std::string& token) {
  for (const auto& [key, value] : config.as_object()) {
    if (!key.ends_with("_token")) continue;
    const Value* text = value.is_object() ? value.find("content") : &value;
    if (text != nullptr && text->is_string() && text->as_string() == token) return true;
  }
  return false;
}

// The list of added tokens of folders without tokenizer.json.
Value added_tokens(const fs::path& file, const Value& config) {
  Value decoder = Value::object();
  const Value added = json_of(file);
  for (const auto& [token, id] : added.as_object()) {
    decoder.set(std::to_string(id.as_integer()),
                Value::object({{"content", token}, {"special", names_special(config, token)}}));
  }
  return decoder;
}

// Older folders keep special and added tokens in files of their own, and the class of the tokenizer with the model.
Value completed_config(const fs::path& folder) {
  Value config = Value::object();
  if (fs::exists(folder / "tokenizer_config.json")) config = json_of(folder / "tokenizer_config.json");
  if (fs::exists(folder / "special_tokens_map.json")) {
    const Value specials = json_of(folder / "special_tokens_map.json");
    for (const auto& [key, value] : specials.as_object()) {
      if (config.find(key) == nullptr) config.set(key, value);
    }
  }
  const fs::path added = folder / "added_tokens.json";
  if (config.find("added_tokens_decoder") == nullptr && !fs::exists(folder / "tokenizer.json") && fs::exists(added))
    config.set("added_tokens_decoder", added_tokens(added, config));
  if (config.find("tokenizer_class") == nullptr && fs::exists(folder / "config.json")) {
    const Value model = json_of(folder / "config.json");
    constexpr std::pair<const char*, const char*> kClasses[] = {
        {"gpt2", "GPT2Tokenizer"},
        {"roberta", "RobertaTokenizer"},
        {"bart", "BartTokenizer"},
        {"big_bird", "BigBirdTokenizer"},
        {"t5", "T5Tokenizer"},
        {"mt5", "MT5Tokenizer"},
        {"led", "LEDTokenizer"},
        {"mpnet", "MPNetTokenizer"},
        {"xlm-roberta", "XLMRobertaTokenizer"},
        {"longformer", "LongformerTokenizer"},
    };
    const Value* type = model.find("model_type");
    for (const auto& [family, name] : kClasses) {
      if (type != nullptr && type->is_string() && type->as_string() == family) config.set("tokenizer_class", name);
    }
  }
  return config;
}

TokenizerSpec marian_spec(const fs::path& folder, const char* model, const Value& config) {
  const fs::path file = folder / model;
  return tokenizers::spec_from_marian(read_file(file, kLargestFile), json_of(folder / "vocab.json"), config,
                                      file.string());
}

TokenizerSpec read_folder(const fs::path& folder, const Value& config) {
  if (const fs::path file = folder / "tokenizer.json"; fs::exists(file))
    return tokenizers::spec_from_tokenizer_json(json_of(file), &config, file.string());
  const fs::path pieces = first_of(folder, {"sentencepiece.bpe.model", "spiece.model", "tokenizer.model"});
  if (!pieces.empty())
    return tokenizers::spec_from_sentence_piece(read_file(pieces, kLargestFile), config, pieces.string());
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt")) {
    const fs::path vocabulary = folder / "vocab.json";
    return tokenizers::spec_from_merges(json_of(vocabulary), read_file(folder / "merges.txt", kLargestFile), config,
                                        vocabulary.string());
  }
  if (has_source_tokenizer(folder)) return marian_spec(folder, "target.spm", config);
  if (const fs::path file = folder / "vocab.txt"; fs::exists(file))
    return tokenizers::spec_from_vocab_txt(read_file(file, kLargestFile), config, file.string());
  raise(ErrorCategory::kNotFound,
        "{}: no tokenizer: expected tokenizer.json, or a SentencePiece model (sentencepiece.bpe.model, spiece.model or "
        "tokenizer.model), or vocab.json with merges.txt or with source.spm and target.spm, or vocab.txt",
        folder.string());
}

}  // namespace

TokenizerSpec spec_of_folder(const fs::path& folder, Value& config) {
  config = completed_config(folder);
  const bool found = fs::exists(folder / "tokenizer.json");
  try {
    return read_folder(folder, config);
  } catch (const Error& error) {  // a part that is missing does not know of which file
    if (error.category() != ErrorCategory::kNotFound || !found) throw;
    raise(ErrorCategory::kBadData, "{}: {}", (folder / "tokenizer.json").string(), error.what());
  }
}

bool has_source_tokenizer(const fs::path& folder) {
  return fs::exists(folder / "source.spm") && fs::exists(folder / "target.spm") && fs::exists(folder / "vocab.json");
}

TokenizerSpec spec_of_source(const fs::path& folder) {
  return marian_spec(folder, "source.spm", completed_config(folder));
}

tokenizers::Tokenizer open_tokenizer(const fs::path& path) {
  if (!fs::exists(path))
    raise(ErrorCategory::kNotFound, "'{}' does not exist: expected a GGUF file, or a folder with a tokenizer",
          path.string());
  if (!fs::is_directory(path)) return tokenizers::Tokenizer(spec_of_gguf(*formats::GgufFile::open(path)));
  Value config;
  return tokenizers::Tokenizer(spec_of_folder(path, config));
}

void copy_tokenizer_files(const fs::path& from, const fs::path& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                           "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
                           "tokenizer.model", "source.spm", "target.spm"}) {
    if (fs::exists(from / name)) write_file_atomic(to / name, read_file(from / name));
  }
}

}  // namespace instruct::models
