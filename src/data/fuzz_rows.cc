// Row files of every kind: the first byte picks the format, the rest is the file. Errors are fine, anything else is
// not. What can be read is also checked and converted.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "data/clue.h"
#include "data/convert.h"
#include "data/csv.h"
#include "data/lint.h"
#include "data/rows.h"

namespace instruct {

namespace {

template <typename Body>
void attempt(const Body& body) {
  try {
    body();
  } catch (const Error&) {
  }
}

data::ColumnMap map_of(unsigned kind) {
  switch (kind) {
    case 1:
      return {.formatting = "alpaca", .columns = Value::object({{"prompt", "text"}, {"response", "output"}})};
    case 2:
      return {.formatting = "sharegpt",
              .columns = Value::object({{"messages", "messages"}}),
              .tags = Value::object({{"role_tag", "role"}, {"content_tag", "content"}})};
    case 3:
      return {.columns = Value::object({{"output", "label"}}), .verb = "intent"};
    default:
      return {};
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  constexpr const char* kExtensions[] = {".json", ".jsonl", ".csv"};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const char* extension = kExtensions[bytes[0] % 3];
  const data::ColumnMap map = map_of(bytes[0] / 3 % 4);
  attempt([&] {
    std::vector<data::RowProblem> problems;
    const data::Dataset dataset = data::parse_dataset(text, extension, "fuzz", map, &problems);
    const data::LintReport report = data::lint(dataset, problems, &dataset, nullptr, {});
    dump_json(data::lint_value(report));
    data::lint_text(report);
    for (const auto target :
         {data::RowFormat::kAlpaca, data::RowFormat::kShareGpt, data::RowFormat::kMessages,
          data::RowFormat::kPromptCompletion, data::RowFormat::kText, data::RowFormat::kInstruction}) {
      attempt([&] { data::convert_rows(dataset, target, nullptr); });
    }
  });
  attempt([&] {
    const std::vector<Value> rows = data::parse_raw_rows(text, extension, "fuzz");
    data::convert_clue(rows, "fuzz", data::detect_clue_task(rows, "fuzz"), rows.front());
  });
  attempt([&] { data::parse_csv(text, "fuzz"); });
  attempt([&] { data::parts_from_option(text); });
  return 0;
}

}  // namespace instruct
