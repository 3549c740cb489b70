// Training and evaluation rows in every common format, read into one type. docs/data.md describes the formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/value.h"
#include "instructions/dialogue.h"

namespace instruct::data {

enum class RowFormat { kInstruction, kAlpaca, kShareGpt, kMessages, kPromptCompletion, kText };
std::string_view format_name(RowFormat format);

// One row. Instruction rows keep their verb and variables until the instruction set is known; all others are dialogues.
struct Example {
  std::int64_t row = 0;     // 1-based: the line of a .jsonl file, else the place among the rows
  std::int32_t source = 0;  // index into Dataset::sources
  RowFormat format = RowFormat::kMessages;
  std::string verb;                             // instruction rows
  Value variables;                              // instruction rows: object without verb and output
  Value output;                                 // instruction rows: text or typed value; null when absent
  std::vector<instructions::Message> messages;  // other rows; the answer to be trained or scored is the last message
  Value context;                                // further variables of the chat template (tools), or null
  std::size_t cut_from = 0;  // byte of the last question behind which text may be cut when the row is too long
  bool plain = false;        // text and plain prompt/completion: no chat template
};

// How columns of a file map to fields, as in LLaMA-Factory's dataset_info.json.
struct ColumnMap {
  std::string formatting;  // "alpaca", "sharegpt", "messages", "instruction", ..., or empty to detect
  Value columns;           // object field -> column, or null
  Value tags;              // object tag -> value, or null
  std::string verb;        // of instruction rows that name none
};

// A row that could not be read. Row 0: the file as a whole.
struct RowProblem {
  std::int64_t row = 0;
  std::string message;
};

struct Dataset {
  std::string origin;                       // as the user named it
  std::vector<std::string> sources;         // files
  RowFormat format = RowFormat::kMessages;  // of the first row
  std::vector<Example> examples;

  // "FILE: row N", for messages.
  std::string where(const Example& example) const;
};

// Reads .json (an array, or an object with one), .jsonl or .csv. Raises NotFound, or BadData naming file, row number,
// field, what was expected and what was there; an empty file, invalid UTF-8 (row and byte) and mixed formats are
// errors. With `problems`, rows that cannot be read are listed there and left out instead.
Dataset read_dataset(const std::filesystem::path& path, const ColumnMap& map = {},
                     std::vector<RowProblem>* problems = nullptr);
// The same from text; `extension` is ".json", ".jsonl" or ".csv".
Dataset parse_dataset(std::string_view text, std::string_view extension, const std::string& origin,
                      const ColumnMap& map = {}, std::vector<RowProblem>* problems = nullptr);

// Paths, or names that dataset_dir/dataset_info.json knows (then its mapping applies), separated by commas. Raises as
// read_dataset, and Unsupported for entries that need the network or hold preferences.
Dataset open_dataset(const std::string& names, const std::filesystem::path& dataset_dir,
                     std::vector<RowProblem>* problems = nullptr);

// Indices of its examples: all, or the first `limit` where that is above 0.
std::vector<std::int64_t> row_indices(const Dataset& dataset, std::int64_t limit = 0);

// The rows of a file as they stand, before any format is looked for; marks hold the row numbers. Raises as above.
std::vector<Value> read_raw_rows(const std::filesystem::path& path);
std::vector<Value> parse_raw_rows(std::string_view text, std::string_view extension, const std::string& origin);

}  // namespace instruct::data
