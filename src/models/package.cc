#include "models/package.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/stopwatch.h"
#include "models/sources.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using tokenizers::TokenizerSpec;
using tokenizers::TokenKind;

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

// SentencePiece BPE: pieces with scores, "\u2581" for a space, byte tokens for other characters.
void read_sentence_piece(const formats::GgufFile& file, TokenizerSpec& spec) {
  using tokenizers::NormaliserKind;
  const std::string symbol = "\xE2\x96\x81";
  spec.alphabet = tokenizers::Alphabet::kCharacters;
  for (const double score : file.numbers_or_empty("tokenizer.ggml.scores"))
    spec.scores.push_back(static_cast<float>(score));
  const bool prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (prefix) spec.normalisers.push_back({NormaliserKind::kPrepend, {}, symbol});
  spec.normalisers.push_back({NormaliserKind::kReplace, " ", symbol});
  spec.space_symbol = symbol;
  spec.strip_leading_space = prefix;
  spec.fuse_unknown = true;
  spec.unknown = token_id(file, "tokenizer.ggml.unknown_token_id");
  for (std::size_t i = 0; i < spec.kinds.size() && !spec.unknown; ++i) {
    if (spec.kinds[i] == TokenKind::kUnknown) spec.unknown = static_cast<std::int32_t>(i);
  }
  spec.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", true);
}

TokenizerSpec spec_from_gguf(const formats::GgufFile& file) {
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
  } else {
    raise(ErrorCategory::kUnsupported,
          "{}: tokenizer '{}': this program reads byte-level BPE (gpt2) and SentencePiece BPE (llama)", file.origin(),
          kind);
  }
  spec.bos = token_id(file, "tokenizer.ggml.bos_token_id");
  spec.eos = token_id(file, "tokenizer.ggml.eos_token_id");
  spec.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = token_id(file, key)) spec.end_of_turn.push_back(*id);
  }
  spec.add_bos = spec.add_bos && spec.bos;
  spec.add_eos = spec.eos && file.boolean_or("tokenizer.ggml.add_eos_token", false);
  return spec;
}

std::string token_text(const tokenizers::Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? tokenizer.token_bytes(*id) : std::string();
}

// The chat template of a folder: its own file, or a key of tokenizer_config.json (a text, or a list of named ones).
std::string folder_template(const fs::path& folder, const Value& config) {
  if (fs::exists(folder / "chat_template.jinja")) return read_file(folder / "chat_template.jinja", 16 << 20);
  const Value* value = config.find("chat_template");
  if (value == nullptr || value->is_null()) return {};
  if (value->is_string()) return value->as_string();
  for (const Value& named : value->as_array()) {
    if (named.at("name").as_string() == "default") return named.at("template").as_string();
  }
  return {};
}

void open_gguf(Package& package, PackageParts parts, const WeightOptions& options, tensor::Allocator& allocator) {
  Stopwatch watch;
  package.gguf = formats::GgufFile::open(package.path);
  package.config = config_from_gguf(*package.gguf);
  const auto source = make_gguf_source(package.gguf, package.config, tensor::make_host_allocator());
  if (parts == PackageParts::kAll) source->read_ahead();
  package.seconds.files = watch.lap();
  package.tokenizer = std::make_unique<tokenizers::Tokenizer>(spec_from_gguf(*package.gguf));
  package.chat_template = package.gguf->text_or("tokenizer.chat_template", "");
  package.seconds.tokenizer = watch.lap();
  if (parts == PackageParts::kTokenizer) return;
  package.model = std::make_unique<Llama>(package.config, *source, options, allocator);
  package.seconds.weights = watch.lap();
}

bool encoder_type(const Value& config) {
  const Value* type = config.find("model_type");
  return type != nullptr && type->is_string() && find_encoder_family(type->as_string()) != nullptr;
}

// What the two kinds of models have in common.
void read_encoder_config(Package& package, const std::string& origin) {
  const EncoderConfig config = encoder_config_from_json(package.hugging_face_config, origin);
  config.check(origin);
  package.config.architecture = config.architecture;
  package.config.layers = config.layers;
  package.config.width = config.width;
  package.config.feed_forward_width = config.feed_forward_width;
  package.config.heads = package.config.key_value_heads = config.heads;
  package.config.head_width = config.head_width();
  package.config.vocabulary = config.vocabulary;
  package.config.context_length = config.context_length;
}

void open_folder(Package& package, PackageParts parts, const WeightOptions& options, tensor::Allocator& allocator) {
  Stopwatch watch;
  const fs::path& folder = package.path;
  const auto json = [&](const char* name) {
    return parse_json(read_file(folder / name, 1 << 30), (folder / name).string());
  };
  package.hugging_face_config = json("config.json");
  const std::string origin = (folder / "config.json").string();
  const bool encoder = encoder_type(package.hugging_face_config);
  if (encoder) {
    read_encoder_config(package, origin);
  } else {
    package.config = config_from_json(package.hugging_face_config, origin);
  }
  Value tokenizer_config = Value::object();
  if (fs::exists(folder / "tokenizer_config.json")) tokenizer_config = json("tokenizer_config.json");
  if (!fs::exists(folder / "tokenizer.json")) {
    raise(ErrorCategory::kNotFound, "{}: tokenizer.json is missing", folder.string());
  }
  std::unique_ptr<WeightSource> source;
  if (parts == PackageParts::kAll) {
    source = make_folder_source(folder);
    source->read_ahead();
  }
  package.seconds.files = watch.lap();
  const std::string tokenizer_file = (folder / "tokenizer.json").string();
  try {
    package.tokenizer = std::make_unique<tokenizers::Tokenizer>(
        tokenizers::spec_from_tokenizer_json(json("tokenizer.json"), &tokenizer_config, tokenizer_file));
  } catch (const Error& error) {  // a part that is missing does not know of which file
    if (error.category() != ErrorCategory::kNotFound) throw;
    raise(ErrorCategory::kBadData, "{}: {}", tokenizer_file, error.what());
  }
  package.chat_template = folder_template(folder, tokenizer_config);
  package.seconds.tokenizer = watch.lap();
  if (parts == PackageParts::kTokenizer) return;
  if (encoder) {
    package.encoder_source = std::move(source);
    package.encoder = std::make_unique<Encoder>(encoder_config_from_json(package.hugging_face_config, origin),
                                                *package.encoder_source, options, allocator);
    package.seconds.weights = watch.lap();
    return;
  }
  // Some folders store the head although it is tied, some say untied and store none.
  if (!source->has("lm_head.weight")) package.config.tied_embeddings = true;
  package.model = std::make_unique<Llama>(package.config, *source, options, allocator);
  package.seconds.weights = watch.lap();
}

}  // namespace

bool is_encoder(const fs::path& path) {
  const fs::path file = path / "config.json";
  return fs::is_directory(path) && fs::exists(file) &&
         encoder_type(parse_json(read_file(file, 1 << 30), file.string()));
}

std::string Package::bos_text() const {
  return token_text(*tokenizer, tokenizer->bos());
}
std::string Package::eos_text() const {
  return token_text(*tokenizer, tokenizer->eos());
}

Package open_package(const fs::path& path, PackageParts parts, const WeightOptions& options,
                     tensor::Allocator& allocator) {
  Package package;
  package.path = path;
  if (!fs::exists(path)) {
    raise(ErrorCategory::kNotFound,
          "model '{}' does not exist: expected a GGUF file, or a folder with config.json, "
          "*.safetensors and tokenizer.json",
          path.string());
  }
  if (fs::is_directory(path)) {
    if (!fs::exists(path / "config.json")) {
      const bool adapter = fs::exists(path / "adapter_config.json");
      raise(ErrorCategory::kNotFound, "'{}' has no config.json: {}", path.string(),
            adapter ? "it is an adapter; give its base with --model and the folder with --adapter"
                    : "expected a GGUF file, or a folder with config.json, *.safetensors and tokenizer.json");
    }
    open_folder(package, parts, options, allocator);
  } else {
    open_gguf(package, parts, options, allocator);
  }
  if (package.tokenizer->vocabulary_size() > package.config.vocabulary) {
    raise(ErrorCategory::kBadData, "{}: the tokenizer has {} tokens, the weights {} rows", path.string(),
          package.tokenizer->vocabulary_size(), package.config.vocabulary);
  }
  return package;
}

}  // namespace instruct::models
