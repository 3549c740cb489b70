#include "models/package.h"

#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/stopwatch.h"
#include "models/encoder_gguf.h"
#include "models/seq2seq_gguf.h"
#include "models/sources.h"
#include "models/tokenizer_files.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;

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

ModelSizes sizes_of(const EncoderConfig& config) {
  return {.architecture = config.architecture,
          .layers = config.layers,
          .width = config.width,
          .feed_forward_width = config.feed_forward_width,
          .heads = config.heads,
          .key_value_heads = config.heads,
          .head_width = config.head_width(),
          .vocabulary = config.vocabulary,
          .context_length = config.context_length};
}

// The sizes and whether the head is the embedding, where the rest of the program looks for them.
void note_sizes(Package& package) {
  static_cast<ModelSizes&>(package.config) = *package.seq2seq;
  package.config.tied_embeddings = package.seq2seq->tied_embeddings;
}

void make_seq2seq(Package& package, const WeightSource& source, const WeightOptions& options,
                  tensor::Allocator& allocator) {
  auto model = std::make_unique<Seq2Seq>(*package.seq2seq, source, options, allocator);
  package.seq2seq = model->config();  // what the file holds decides whether the head is tied
  note_sizes(package);
  package.model = std::move(model);
}

void open_gguf(Package& package, PackageParts parts, const WeightOptions& options, tensor::Allocator& allocator) {
  Stopwatch watch;
  package.gguf = formats::GgufFile::open(package.path);
  std::optional<EncoderConfig> encoder;
  if (is_encoder(*package.gguf)) {
    encoder = encoder_config_from_gguf(*package.gguf);
    encoder->check(package.path.string());
    static_cast<ModelSizes&>(package.config) = sizes_of(*encoder);
  } else if (is_seq2seq(*package.gguf)) {
    package.seq2seq = seq2seq_config_from_gguf(*package.gguf);
    package.seq2seq->check(package.path.string());
    note_sizes(package);
  } else {
    package.config = config_from_gguf(*package.gguf);
  }
  auto source = encoder ? make_encoder_source(package.gguf) : make_gguf_source(package);
  if (parts == PackageParts::kAll) source->read_ahead();
  package.seconds.files = watch.lap();
  package.tokenizer = std::make_unique<tokenizers::Tokenizer>(spec_of_gguf(*package.gguf));
  package.chat_template = package.gguf->text_or("tokenizer.chat_template", "");
  package.seconds.tokenizer = watch.lap();
  if (parts == PackageParts::kTokenizer) return;
  if (encoder) {
    package.encoder_source = std::move(source);
    package.encoder = std::make_unique<Encoder>(*encoder, *package.encoder_source, options, allocator);
  } else if (package.seq2seq) {
    make_seq2seq(package, *source, options, allocator);
  } else {
    package.model = std::make_unique<Llama>(package.config, *source, options, allocator);
  }
  package.seconds.weights = watch.lap();
}

const std::string* model_type_of(const Value& config) {
  const Value* type = config.find("model_type");
  return type != nullptr && type->is_string() ? &type->as_string() : nullptr;
}

bool encoder_type(const Value& config) {
  const std::string* type = model_type_of(config);
  return type != nullptr && find_encoder_family(*type) != nullptr;
}

bool seq2seq_type(const Value& config) {
  const std::string* type = model_type_of(config);
  return type != nullptr && find_seq2seq_family(*type) != nullptr;
}

// What generation puts first in an answer is said by a file of its own in newer folders.
Seq2SeqConfig read_seq2seq(const fs::path& folder, const Value& json, const std::string& origin) {
  Seq2SeqConfig config = seq2seq_config_from_json(json, origin);
  const fs::path generation = folder / "generation_config.json";
  if (fs::exists(generation))
    read_generation_config(parse_json(read_file(generation, 1 << 24), generation.string()), generation.string(),
                           config);
  config.check(origin);
  return config;
}

void open_folder(Package& package, PackageParts parts, const WeightOptions& options, tensor::Allocator& allocator) {
  Stopwatch watch;
  const fs::path& folder = package.path;
  const auto json = [&](const char* name) {
    return parse_json(read_file(folder / name, 1 << 30), (folder / name).string());
  };
  package.hugging_face_config = json("config.json");
  const std::string origin = (folder / "config.json").string();
  std::optional<EncoderConfig> encoder;
  if (encoder_type(package.hugging_face_config)) {
    encoder = encoder_config_from_json(package.hugging_face_config, origin);
    encoder->check(origin);
    static_cast<ModelSizes&>(package.config) = sizes_of(*encoder);
  } else if (seq2seq_type(package.hugging_face_config)) {
    package.seq2seq = read_seq2seq(folder, package.hugging_face_config, origin);
    note_sizes(package);
  } else {
    package.config = config_from_json(package.hugging_face_config, origin);
  }
  Value tokenizer_config;
  std::unique_ptr<WeightSource> source;
  if (parts == PackageParts::kAll) {
    source = encoder           ? make_folder_source(folder)
             : package.seq2seq ? make_folder_source(folder, kHeadlessPrefix)
                               : make_folder_source(folder, package.config);
    source->read_ahead();
  }
  package.seconds.files = watch.lap();
  package.tokenizer = std::make_unique<tokenizers::Tokenizer>(spec_of_folder(folder, tokenizer_config));
  package.chat_template = folder_template(folder, tokenizer_config);
  if (package.seq2seq && has_source_tokenizer(folder))
    package.source_tokenizer = std::make_unique<tokenizers::Tokenizer>(spec_of_source(folder));
  package.seconds.tokenizer = watch.lap();
  if (parts == PackageParts::kTokenizer) return;
  if (encoder) {
    package.encoder_source = std::move(source);
    package.encoder = std::make_unique<Encoder>(*encoder, *package.encoder_source, options, allocator);
    package.seconds.weights = watch.lap();
    return;
  }
  if (package.seq2seq) {
    make_seq2seq(package, *source, options, allocator);
    package.seconds.weights = watch.lap();
    return;
  }
  // Some folders store the head although it is tied, some say untied and store none.
  if (!source->has("lm_head.weight")) package.config.tied_embeddings = true;
  package.model = std::make_unique<Llama>(package.config, *source, options, allocator);
  package.seconds.weights = watch.lap();
}

}  // namespace

std::unique_ptr<WeightSource> make_gguf_source(const Package& package) {
  return package.seq2seq ? make_seq2seq_source(package.gguf)
                         : make_gguf_source(package.gguf, package.config, tensor::make_host_allocator());
}

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
