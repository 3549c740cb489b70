// One row of any format to an Example, field by field.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/rows.h"

namespace instruct::data {

// The format of a row: what the map says, or what its fields show. Raises BadData when they fit none, Unsupported for
// preference rows.
RowFormat detect_format(const Value& row, const std::string& where, const ColumnMap& map);

// Reads the fields of a row under the names of a column map; errors name `where` (file and row), field, what was
// expected and what was there.
class RowReader {
 public:
  // The arguments must outlive the reader.
  RowReader(const Value& row, const std::string& where, const ColumnMap& map) : row_(row), where_(where), map_(map) {}
  // Everything but `row` and `source` of the example.
  Example read(RowFormat format) const;

 private:
  [[noreturn]] void fail(std::string_view name, std::string_view expected, std::string_view received) const;
  bool is_mapped(std::string_view name) const;
  std::string column(std::string_view name, std::string_view standard = {}) const;
  std::string tag(std::string_view name, std::string_view standard) const;
  const Value* find(std::string_view column) const;
  const Value& field(std::string_view column) const;
  std::string text_of(const Value& value, std::string_view name) const;
  std::string text(std::string_view column) const { return text_of(field(column), column); }
  std::string text_or_empty(std::string_view column) const;

  void read_instruction(Example& example) const;
  void read_alpaca(Example& example) const;
  void read_sharegpt(Example& example) const;
  void read_prompt_completion(Example& example) const;
  std::vector<instructions::Message> messages(const Value& list, std::string_view name) const;
  instructions::Message message(const Value& item, std::string_view name) const;
  std::string content(const Value& value, std::string_view name) const;
  void add_context(Example& example) const;

  const Value& row_;
  const std::string& where_;
  const ColumnMap& map_;
};

}  // namespace instruct::data
