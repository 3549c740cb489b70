// Reading named fields of a YAML document while collecting every problem. Internal to this folder.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "instructions/yaml_source.h"

namespace instruct::instructions {

class FieldReader {
 public:
  // `text` must outlive the reader.
  FieldReader(std::string_view text, std::string origin) : source_(text), origin_(std::move(origin)) {}

  // Problems as FILE:LINE:COLUMN: message, in the order of the file.
  std::vector<std::string> problems() const;
  bool clean() const { return problems_.empty(); }
  void problem(Mark mark, std::string message);
  // At the key of an object's member.
  void problem_at_key(const Value& parent, std::string_view key, std::string message);
  // An error of one of this layer's parsers about text value `value`, moved to where the file has it.
  void problem_inside(const Value& value, std::string_view error, std::string_view parser_origin,
                      std::string_view what);
  void problem_inside(const Value& value, Mark inside, std::string message);

  // `where` ends the message: " of verb 'x'".
  void known_keys(const Value& object, std::span<const std::string_view> known, std::string_view where);
  // Each returns nothing when the member is absent or null, and after a problem.
  std::optional<std::string> text(const Value& parent, std::string_view key);
  std::optional<bool> boolean(const Value& parent, std::string_view key);
  std::optional<double> number(const Value& parent, std::string_view key);
  std::optional<std::int64_t> whole_number(const Value& parent, std::string_view key, std::int64_t minimum);
  std::optional<std::size_t> choice(const Value& parent, std::string_view key, std::span<const std::string_view> names);
  const Value* object(const Value& parent, std::string_view key);
  // A list of texts, or one text; whole numbers count as texts when `numbers_too`.
  enum class Items { kTexts, kTextsAndNumbers };
  std::vector<std::string> texts(const Value& parent, std::string_view key, Items items = Items::kTexts);

 private:
  struct Problem {
    Mark mark;
    std::string message;
  };
  YamlSource source_;
  std::string origin_;
  std::vector<Problem> problems_;
};

}  // namespace instruct::instructions
