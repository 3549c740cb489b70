// The tokenizer of a model, from the metadata of a GGUF file or the files of a Hugging Face folder.
#pragma once

#include <filesystem>

#include "base/value.h"
#include "formats/gguf.h"
#include "tokenizers/tokenizer.h"

namespace instruct::models {

// Raises Unsupported for a tokenizer that this program does not read, BadData for what is malformed.
tokenizers::TokenizerSpec spec_of_gguf(const formats::GgufFile& file);

// From tokenizer.json; else a SentencePiece model; else vocab.json with merges.txt; else vocab.txt. `config` becomes
// what tokenizer_config.json says, completed from special_tokens_map.json, added_tokens.json and config.json where it
// is silent. Raises NotFound naming the files that would do; else as spec_of_gguf.
tokenizers::TokenizerSpec spec_of_folder(const std::filesystem::path& folder, Value& config);

// Copies every file that spec_of_folder() reads, as far as they are there, but config.json.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

// The tokenizer alone, of a GGUF file or of a folder that may hold nothing else.
tokenizers::Tokenizer open_tokenizer(const std::filesystem::path& path);

// Marian has a model for each language: the folder's tokenizer is that of the answers; this is that of what is read.
bool has_source_tokenizer(const std::filesystem::path& folder);
tokenizers::TokenizerSpec spec_of_source(const std::filesystem::path& folder);

}  // namespace instruct::models
