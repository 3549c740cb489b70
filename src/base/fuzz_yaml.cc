// Any bytes as YAML: refused with BadData, or read to a value that can be written as JSON.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/yaml.h"

namespace instruct {

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    dump_json(parse_yaml(text, "fuzz"));
  } catch (const Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData);
  }
  return 0;
}

}  // namespace instruct
