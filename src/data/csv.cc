#include "data/csv.h"

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
    while (!at_end()) {
      const char c = text_[position_];
      if (c == '"' && fields.back().empty()) {
        fields.back() = quoted();
      } else if (c == ',') {
        fields.emplace_back();
        ++position_;
      } else if (c == '\n' || c == '\r') {
        skip_line_end();
        break;
      } else {
        fields.back() += c;
        ++position_;
      }
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
  void skip_line_end() {
    if (text_[position_] == '\r') ++position_;
    if (!at_end() && text_[position_] == '\n') ++position_;
    ++line_;
  }

  std::string_view text_;
  const std::string& origin_;
  std::size_t position_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Value> parse_csv(std::string_view text, const std::string& origin) {
  CsvReader reader(text, origin);
  if (reader.at_end()) return {};
  const std::vector<std::string> header = reader.record();
  std::vector<Value> rows;
  while (!reader.at_end()) {
    const int line = reader.line();
    const std::vector<std::string> fields = reader.record();
    if (fields.size() == 1 && fields[0].empty()) continue;  // blank line
    if (fields.size() != header.size()) {
      raise(ErrorCategory::kBadData, "{}: line {}: {} fields, the header has {}", origin, line, fields.size(), header.size());
    }
    Value row = Value::object();
    for (std::size_t i = 0; i < header.size(); ++i) row.set(header[i], fields[i]);
    row.set_mark({line, 1});
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace instruct::data
