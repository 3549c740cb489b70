// A model as users have it: weights, tokenizer and chat template together, from a GGUF file or a Hugging Face folder.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/value.h"
#include "formats/gguf.h"
#include "models/encoder.h"
#include "models/llama.h"
#include "models/seq2seq.h"
#include "tokenizers/tokenizer.h"

namespace instruct::models {

// Seconds that the parts of opening a model took.
struct LoadSeconds {
  double files = 0;  // configuration, and the tables of contents of mapped files
  double tokenizer = 0;
  double weights = 0;  // converted, packed, or only found
};

struct Package {
  std::filesystem::path path;
  LlamaConfig config;
  std::unique_ptr<LanguageModel> model;  // null when only the tokenizer was asked for, and for an encoder
  std::unique_ptr<Encoder> encoder;  // null for a decoder; of `config` it has architecture, layers, sizes and context
  std::shared_ptr<const WeightSource> encoder_source;  // where heads are read from
  std::optional<Seq2SeqConfig> seq2seq;  // of an encoder-decoder, whose model is `model` too; `config` as for encoders
  std::unique_ptr<tokenizers::Tokenizer> source_tokenizer;  // of its encoder, where that has its own (Marian)
  std::unique_ptr<tokenizers::Tokenizer> tokenizer;
  std::string chat_template;  // empty for base models
  // What export needs to write the same model again.
  std::shared_ptr<const formats::GgufFile> gguf;  // null for a folder
  Value hugging_face_config;                      // null for a GGUF file
  LoadSeconds seconds;

  // Text of a special token, or empty.
  std::string bos_text() const;
  std::string eos_text() const;
};

// Whether the folder at `path` holds an encoder. False where there is no configuration to tell.
bool is_encoder(const std::filesystem::path& path);

// The weights of an opened GGUF file that writes text, by Hugging Face's names.
std::unique_ptr<WeightSource> make_gguf_source(const Package& package);

enum class PackageParts { kAll, kTokenizer };

// Opens a model. Raises NotFound for a wrong path, with a hint what a model looks like; Unsupported for an unknown
// architecture, tokenizer or tensor type; BadData for anything malformed.
Package open_package(const std::filesystem::path& path, PackageParts parts, const WeightOptions& options,
                     tensor::Allocator& allocator);

}  // namespace instruct::models
