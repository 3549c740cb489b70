// Pieces of a tokenizer.json, for the files that one is made of.
#pragma once

#include <string>
#include <vector>

#include "base/value.h"

namespace instruct::tokenizers::vocab_json {

// {"type": TYPE}.
Value typed(const char* type);
Value list(std::vector<Value> values);

// A special token of tokenizer_config.json, which spells it as a text or as an object.
struct Special {
  std::string text;
  bool strip_left = false;
};

// `otherwise` where the config does not name one.
Special special_of(const Value& config, const char* key, const char* otherwise);
// tokenizer_class without "Fast" at its end; empty when there is none.
std::string class_of(const Value& config);

// The parts of a TemplateProcessing, and the whole.
Value token_part(const std::string& token, std::int64_t type);
Value text_part(const char* name, std::int64_t type);
Value template_of(std::vector<Value> single, std::vector<Value> pair);

}  // namespace instruct::tokenizers::vocab_json
