#include "data/csv.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::data {
namespace {

class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}
  bool at_end() const { return position_ >= text_.size(); }
  int line() const { return line_; }

  std::vector<std::string> record() {
    std::vector<std::string> fields(1);
    field_starts_ = true;
    while (!at_end()) {
      const char c = text_[position_];
      if (c == '"' && field_starts_) {
        fields.back() = quoted();
        check_after_quote();
      } else if (c == ',') {
        fields.emplace_back();
        ++position_;
        field_starts_ = true;
        continue;
      } else if (c == '\n' || c == '\r') {
        skip_line_end();
        break;
      } else {
        fields.back() += c;
        ++position_;
      }
      field_starts_ = false;
    }
    return fields;
  }

 private:
  std::string quoted() {
    const int first = line_;
    std::string field;
    for (++position_; !at_end(); ++position_) {
      const char c = text_[position_];
      if (c == '\n') ++line_;
      if (c != '"') {
        field += c;
      } else if (position_ + 1 < text_.size() && text_[position_ + 1] == '"') {
        field += '"';
        ++position_;
      } else {
        ++position_;
        return field;
      }
    }
    raise(ErrorCategory::kBadData, "{}: line {}: a quoted field is never closed", origin_, first);
  }
  void check_after_quote() const {
    if (at_end()) return;
    const char c = text_[position_];
    if (c != ',' && c != '\n' && c != '\r') {
      raise(ErrorCategory::kBadData,
            "{}: line {}: expected a comma or the line's end behind a quoted field; quotes inside one are doubled",
            origin_, line_);
    }
  }
  void skip_line_end() {
    if (text_[position_] == '\r') ++position_;
    if (!at_end() && text_[position_] == '\n') ++position_;
    ++line_;
  }

  std::string_view text_;
  const std::string& origin_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool field_starts_ = true;
};

}  // namespace

std::vector<Value> parse_csv(std::string_view text, const std::string& origin) {
  CsvReader reader(text, origin);
  if (reader.at_end()) return {};
  const std::vector<std::string> header = reader.record();
  for (auto name = header.begin(); name != header.end(); ++name) {
    if (name->empty())
      raise(ErrorCategory::kBadData, "{}: line 1: column {} of the header has no name", origin,
            name - header.begin() + 1);
    if (std::find(header.begin(), name, *name) != name)
      raise(ErrorCategory::kBadData, "{}: line 1: column '{}' appears twice", origin, *name);
  }
  std::vector<Value> rows;
  while (!reader.at_end()) {
    const int line = reader.line();
    const std::vector<std::string> fields = reader.record();
    if (fields.size() == 1 && fields[0].empty()) continue;  // blank line
    if (fields.size() != header.size()) {
      raise(ErrorCategory::kBadData, "{}: row {} (line {}): {} fields, the header has {}", origin, rows.size() + 1,
            line, fields.size(), header.size());
    }
    Value row = Value::object();
    for (std::size_t i = 0; i < header.size(); ++i) row.set(header[i], fields[i]);
    row.set_mark({line, 1});
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace instruct::data
