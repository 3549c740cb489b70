#include "tokenizers/vocab_json.h"

#include "tokenizers/json_parts.h"

namespace instruct::tokenizers::vocab_json {

Value typed(const char* type) {
  return Value::object({{"type", type}});
}

Value list(std::vector<Value> values) {
  return Value(Value::Array(std::move(values)));
}

Special special_of(const Value& config, const char* key, const char* otherwise) {
  const Value* value = config.find(key);
  if (value != nullptr && value->is_string()) return {value->as_string()};
  if (value != nullptr && value->is_object())
    return {value->at("content").as_string(), json_parts::flag(*value, "lstrip")};
  return {otherwise};
}

Value token_part(const std::string& token, std::int64_t type) {
  return Value::object({{"SpecialToken", Value::object({{"id", token}, {"type_id", type}})}});
}
Value text_part(const char* name, std::int64_t type) {
  return Value::object({{"Sequence", Value::object({{"id", name}, {"type_id", type}})}});
}

Value template_of(std::vector<Value> single, std::vector<Value> pair) {
  return Value::object({{"type", "TemplateProcessing"},
                        {"single", list(std::move(single))},
                        {"pair", list(std::move(pair))},
                        {"special_tokens", Value::object()}});
}

std::string class_of(const Value& config) {
  std::string name = json_parts::text(config, "tokenizer_class", "");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

}  // namespace instruct::tokenizers::vocab_json
