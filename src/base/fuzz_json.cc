// Any bytes as JSON: refused with BadData, or read to a value that survives writing and reading again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace instruct {

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Value value;
  try {
    value = parse_json(text, "fuzz");
  } catch (const Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData);
    return 0;
  }
  for (const JsonStyle style : {JsonStyle{}, JsonStyle{.indent = 1, .ascii_only = true}}) {
    INSTRUCT_CHECK(parse_json(dump_json(value, style), "again") == value);
  }
  return 0;
}

}  // namespace instruct
