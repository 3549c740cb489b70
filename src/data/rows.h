// Training and evaluation rows in every common format, read into one type.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/value.h"
#include "instructions/dialogue.h"

namespace instruct::data {

enum class RowFormat { kInstruction, kAlpaca, kShareGpt, kMessages, kPromptCompletion, kText };
std::string_view format_name(RowFormat format);

// One row. Instruction rows keep their verb and variables until the instruction set is known; all others are dialogues.
struct Example {
  std::int64_t row = 0;  // 1-based row of the file
  RowFormat format = RowFormat::kMessages;
  std::string verb;      // instruction rows
  Value variables;       // instruction rows: object without verb and output
  Value output;          // instruction rows: text or typed value; null when absent
  std::vector<instructions::Message> messages;  // other rows; the answer to be trained or scored is the last message
  bool plain = false;    // text and plain prompt/completion: no chat template
};

// How columns of a file map to fields, as in LLaMA-Factory's dataset_info.json.
struct ColumnMap {
  std::string formatting;  // "alpaca", "sharegpt", or empty to detect
  Value columns;           // object field -> column, or null
  Value tags;              // object tag -> value, or null
};

struct Dataset {
  std::string origin;
  RowFormat format = RowFormat::kMessages;
  std::vector<Example> examples;
};

// Reads .json (an array, or an object with one), .jsonl or .csv. Raises NotFound, or BadData naming file, row number,
// field, what was expected and what was there; an empty file, invalid UTF-8 (row and byte) and mixed formats are errors.
Dataset read_dataset(const std::filesystem::path& path, const ColumnMap& map = {});
// The same from text; `extension` is ".json", ".jsonl" or ".csv".
Dataset parse_dataset(std::string_view text, std::string_view extension, const std::string& origin,
                      const ColumnMap& map = {});

// A path, or a name that dataset_dir/dataset_info.json knows (then its mapping applies).
Dataset open_dataset(const std::string& name_or_path, const std::filesystem::path& dataset_dir);

}  // namespace instruct::data
