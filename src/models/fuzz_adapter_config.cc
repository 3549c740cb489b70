// Any JSON as an adapter_config.json: refused with an error of the reader's own, or a LoRA of some rank.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "models/adapter_description.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using instruct::ErrorCategory;
  try {
    const instruct::Value json =
        instruct::parse_json(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    const auto described = instruct::models::adapter_description(json, "fuzz");
    INSTRUCT_CHECK(described.config.rank >= 1);
  } catch (const instruct::Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported ||
                   error.category() == ErrorCategory::kNotFound);
  }
  return 0;
}
