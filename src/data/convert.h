// `instruct data convert` and `instruct data split`: rows from one format and file to another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/value.h"
#include "data/encode.h"

namespace instruct::data {

// "instruction", "alpaca", "sharegpt", "messages", "prompt_completion" or "text"; raises InvalidArgument otherwise.
RowFormat format_from_option(std::string_view name);

// All rows in another format. Instruction rows become dialogues as `set` words them; it may be null when there are
// none. Raises Unsupported, naming the row, for what a format cannot hold: a dialogue whose turns
// do not alternate as alpaca, several exchanges as prompt and completion, anything but instruction rows as instruction.
std::vector<Value> convert_rows(const Dataset& dataset, RowFormat target, const instructions::InstructionSet* set);

// Writes rows as .jsonl, .json or .csv, complete or not at all. CSV holds texts; raises Unsupported for a row with
// another value in it, or with other fields than the first.
void write_rows(const std::filesystem::path& path, std::span<const Value> rows);

// A part of a split: its share (below 1) or number of rows.
struct Part {
  std::string name;
  double size = 0;
};
// "train=0.8,dev=100": raises InvalidArgument for anything else, shares that exceed 1 and names that appear twice.
std::vector<Part> parts_from_option(std::string_view text);

// Row indices of each part, ascending. Rows of one key stay together, so parts may be a few rows off their sizes; rows
// that no part wants are left out. Raises InvalidArgument when a part cannot be filled.
std::vector<std::vector<std::int64_t>> split_rows(std::span<const std::string> keys, std::span<const Part> parts,
                                                  std::uint64_t seed);

}  // namespace instruct::data
