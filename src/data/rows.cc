#include "data/rows.h"

#include <algorithm>
#include <numeric>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/csv.h"
#include "data/row_reader.h"

namespace instruct::data {
namespace {

namespace fs = std::filesystem;

// Collects what is wrong with rows, or raises the first.
class Problems {
 public:
  explicit Problems(std::vector<RowProblem>* list) : list_(list) {}

  template <typename Body>
  void attempt(std::int64_t row, const Body& body) const {
    if (list_ == nullptr) return body();
    try {
      body();
    } catch (const Error& error) {
      list_->push_back({row, error.what()});
    }
  }

 private:
  std::vector<RowProblem>* list_;
};

void check_encoding(std::string_view text, const std::string& origin) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    raise(ErrorCategory::kBadData, "{}: the file is UTF-16; expected UTF-8 (iconv -f UTF-16 -t UTF-8)", origin);
  }
}

// A byte order mark is no part of the text.
std::string_view without_mark(std::string_view text) {
  return text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
}

// `offset`: bytes of the file before the text.
void check_utf8(std::string_view text, std::size_t offset, const std::string& where) {
  if (const auto bad = find_invalid_utf8(text)) {
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {} of the file", where, offset + *bad);
  }
}

std::vector<Value> json_rows(std::string_view text, const std::string& origin) {
  Value root = parse_json(text, origin);
  if (root.is_object()) {
    for (const char* key : {"data", "rows", "train"}) {
      if (Value* list = root.find(key); list != nullptr && list->is_array()) return std::move(list->as_array());
    }
  }
  if (!root.is_array()) {
    raise(ErrorCategory::kBadData, "{}: expected a list of rows, got {}{}", origin, kind_name(root.kind()),
          root.is_object() ? "; one row a line is .jsonl" : "");
  }
  return std::move(root.as_array());
}

// The rows of a file, marked with their numbers: the line in .jsonl, else the place.
std::vector<Value> raw_rows(std::string_view file, std::string_view extension, const std::string& origin,
                            const Problems& problems) {
  check_encoding(file, origin);
  const std::string_view text = without_mark(file);
  const std::size_t offset = file.size() - text.size();
  if (trim(text).empty()) raise(ErrorCategory::kBadData, "{}: the file is empty", origin);
  std::vector<Value> rows;
  if (extension == ".jsonl") {
    for_each_line(text, [&](std::string_view line, std::int64_t number) {
      if (trim(line).empty()) return;
      problems.attempt(number, [&] {
        const std::string where = fmt::format("{}: row {}", origin, number);
        check_utf8(line, offset + static_cast<std::size_t>(line.data() - text.data()), where);
        rows.push_back(parse_json(line, where));
        rows.back().set_mark({static_cast<int>(number), 1});
      });
    });
    return rows;
  }
  if (extension != ".json" && extension != ".csv") {
    raise(ErrorCategory::kUnsupported, "{}: rows come from .json, .jsonl or .csv files", origin);
  }
  check_utf8(text, offset, origin);
  rows = extension == ".csv" ? parse_csv(text, origin) : json_rows(text, origin);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].set_mark({static_cast<int>(i) + 1, 1});
  return rows;
}

}  // namespace

std::string_view format_name(RowFormat format) {
  switch (format) {
    case RowFormat::kInstruction:
      return "instruction";
    case RowFormat::kAlpaca:
      return "alpaca";
    case RowFormat::kShareGpt:
      return "sharegpt";
    case RowFormat::kMessages:
      return "messages";
    case RowFormat::kPromptCompletion:
      return "prompt/completion";
    case RowFormat::kText:
      return "text";
  }
  return "unknown";
}

std::string Dataset::where(const Example& example) const {
  const auto source = static_cast<std::size_t>(example.source);
  return fmt::format("{}: row {}", source < sources.size() ? sources[source] : origin, example.row);
}

Dataset parse_dataset(std::string_view text, std::string_view extension, const std::string& origin,
                      const ColumnMap& map, std::vector<RowProblem>* problems) {
  const Problems collected(problems);
  Dataset dataset{.origin = origin, .sources = {origin}};
  for (const Value& row : raw_rows(text, extension, origin, collected)) {
    const std::int64_t number = row.mark().line;
    collected.attempt(number, [&] {
      const std::string where = fmt::format("{}: row {}", origin, number);
      if (!row.is_object())
        raise(ErrorCategory::kBadData, "{}: expected an object, got {}", where, kind_name(row.kind()));
      const RowFormat format = detect_format(row, where, map);
      if (dataset.examples.empty()) dataset.format = format;
      if (format != dataset.format) {
        raise(ErrorCategory::kBadData, "{} is of format {}, the rows before it of {}", where, format_name(format),
              format_name(dataset.format));
      }
      dataset.examples.push_back(RowReader(row, where, map).read(format));
      dataset.examples.back().row = number;
    });
  }
  if (dataset.examples.empty() && (problems == nullptr || problems->empty())) {
    raise(ErrorCategory::kBadData, "{}: there are no rows", origin);
  }
  return dataset;
}

Dataset read_dataset(const fs::path& path, const ColumnMap& map, std::vector<RowProblem>* problems) {
  if (fs::is_directory(path)) {
    raise(ErrorCategory::kInvalidArgument, "'{}' is a folder; expected a .json, .jsonl or .csv file", path.string());
  }
  return parse_dataset(read_file(path), to_lower_ascii(path.extension().string()), path.string(), map, problems);
}

std::vector<Value> read_raw_rows(const fs::path& path) {
  return parse_raw_rows(read_file(path), to_lower_ascii(path.extension().string()), path.string());
}

std::vector<Value> parse_raw_rows(std::string_view text, std::string_view extension, const std::string& origin) {
  return raw_rows(text, extension, origin, Problems(nullptr));
}

std::vector<std::int64_t> row_indices(const Dataset& dataset, std::int64_t limit) {
  auto count = static_cast<std::int64_t>(dataset.examples.size());
  if (limit > 0) count = std::min(count, limit);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

}  // namespace instruct::data
