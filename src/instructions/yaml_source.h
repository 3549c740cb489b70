// Where something inside a YAML value stands in the file, so that an error in a template or program of an
// instruction-set file points at the file's own line and column.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/value.h"

namespace instruct::instructions {

class YamlSource {
 public:
  // `text` must outlive this.
  explicit YamlSource(std::string_view text);

  // Place in the file of line and column `inside` of a text value that was read at `scalar`. Exact for plain, quoted
  // and literal (|) values that the file writes as they are; the place of the value itself where escapes or folding
  // make that unknown.
  Mark inside_value(Mark scalar, std::string_view value, Mark inside) const;
  // Place of the key whose value was read at `value`; that place itself when the key is not found before it.
  Mark key(std::string_view name, Mark value) const;

 private:
  std::string_view line(int number) const;  // 1-based, without its line end; empty past the end

  std::vector<std::string_view> lines_;
};

// Cuts "ORIGIN: line L, column C: message" (what the parsers of this layer raise) into place and message; the mark is
// empty when the text has another form.
std::pair<Mark, std::string> split_located_message(std::string_view message, std::string_view origin);

}  // namespace instruct::instructions
