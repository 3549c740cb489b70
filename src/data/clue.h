// The task files of the Chinese benchmarks CLUE and FewCLUE as instruction rows, for examples/clue.iset.yaml.
//
// A file holds one task, one JSON object a line (whatever its extension), or a list of objects. Each row becomes
// {"verb": TASK, variables..., "output": the label's Chinese name, "id": as given}; a row without a label, as in test
// files, has no output. ChID's longer form (several gaps in several texts, answers in a file of their own) becomes a
// row a gap. docs/data.md lists tasks and fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace instruct::data {

enum class ClueTask { kTnews, kIflytek, kCsldcp, kEprstmt, kOcnli, kCmnli, kBustm, kAfqmc, kCsl, kCluewsc, kChid };

// "tnews", "iflytek", ...; raises InvalidArgument for another name.
ClueTask clue_task_from_name(std::string_view name);
std::string_view clue_task_name(ClueTask task);

// The task that the keys and labels of the rows show. Raises InvalidArgument when several have such rows (a test file
// of sentence pairs), BadData when none has. `origin` names the file.
ClueTask detect_clue_task(std::span<const Value> rows, const std::string& origin);

struct ClueRows {
  ClueTask task = ClueTask::kTnews;
  std::vector<Value> rows;
  std::int64_t unlabelled = 0;           // of them, rows without an output
  std::vector<std::int64_t> unanswered;  // rows left out: annotators did not agree (OCNLI's label "-")
};

// `rows` carry their numbers as marks; `answers` is ChID's answer file, or null. Raises BadData naming file, row, field
// and what was expected.
ClueRows convert_clue(std::span<const Value> rows, const std::string& origin, ClueTask task, const Value& answers);

// `task`: a name, or "clue" to tell it from the rows. `answers`: a path, or empty.
ClueRows read_clue(const std::filesystem::path& path, std::string_view task, const std::filesystem::path& answers);

}  // namespace instruct::data
