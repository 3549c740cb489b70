// A model as users have it: weights, tokenizer and chat template together, from a GGUF file or a Hugging Face folder.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/value.h"
#include "formats/gguf.h"
#include "models/llama.h"
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
  std::unique_ptr<Llama> model;  // null when only the tokenizer was asked for
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

enum class PackageParts { kAll, kTokenizer };

// Opens a model. Raises NotFound for a wrong path, with a hint what a model looks like; Unsupported for an unknown
// architecture, tokenizer or tensor type; BadData for anything malformed.
Package open_package(const std::filesystem::path& path, PackageParts parts, const WeightOptions& options,
                     tensor::Allocator& allocator);

}  // namespace instruct::models
