// The parts of tokenizer.json around the model, each read into the spec's own words.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/value.h"
#include "tokenizers/spec.h"

namespace instruct::tokenizers::json_parts {

[[noreturn]] void unsupported(const TokenizerSpec& spec, const char* part, const std::string& received,
                              const char* known);
// Fields that may be missing or null.
bool flag(const Value& object, const char* key, bool otherwise = false);
std::string text(const Value& object, const char* key, const char* otherwise);

// Calls `step` with the part at `key` of a tokenizer.json, or with each part of it when it is a Sequence that lists
// them under `list`; sequences may be nested. Does nothing for a missing part.
void for_each_part(const Value& json, const char* key, const char* list, const TokenizerSpec& spec,
                   const std::function<void(const Value& part, const std::string& type)>& step);

// Each raises Unsupported or BadData naming what it does not know.
void read_normaliser(const Value& json, TokenizerSpec& spec);
void read_pre_tokenizer(const Value& json, TokenizerSpec& spec);
void read_decoder(const Value& json, TokenizerSpec& spec);

using IdOf = std::function<std::optional<std::int32_t>(const std::string& token)>;
void read_post_processor(const Value& json, TokenizerSpec& spec, const IdOf& id_of);

}  // namespace instruct::tokenizers::json_parts
