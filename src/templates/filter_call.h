// One call of a filter, and the filters by kind. Internal to this folder.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/error.h"
#include "templates/builtins.h"

namespace instruct::templates {

// The value, arguments and services of one filter call.
struct Call {
  const std::string& name;
  const Data& value;
  const Arguments& arguments;
  const Services& services;

  // Argument by position or name; nullptr when absent.
  const Data* find(std::size_t index, std::string_view key) const {
    if (index < arguments.positional.size()) return &arguments.positional[index];
    for (const auto& [given, data] : arguments.named) {
      if (given == key) return &data;
    }
    return nullptr;
  }
  Data get(std::size_t index, std::string_view key, Data otherwise) const {
    const Data* found = find(index, key);
    return found == nullptr ? otherwise : *found;
  }
  std::int64_t integer(std::size_t index, std::string_view key, std::int64_t otherwise) const {
    const Data* found = find(index, key);
    if (found == nullptr || found->is_none()) return otherwise;
    if (const auto* number = found->get<std::int64_t>()) return *number;
    if (const auto* flag = found->get<bool>()) return *flag ? 1 : 0;
    raise(ErrorCategory::kBadData, "{}",
          fmt::format("filter '{}': '{}' expects a whole number, got {}", name, key, type_of(*found)));
  }
  bool flag(std::size_t index, std::string_view key, bool otherwise) const {
    const Data* found = find(index, key);
    return found == nullptr ? otherwise : truth(*found);
  }
  Text text() const { return to_text(value); }
  List items() const { return iterate(value); }
};

using Filter = Data (*)(const Call&);
using Filters = std::map<std::string, Filter, std::less<>>;

const Filters& list_filters();
const Filters& text_filters();

}  // namespace instruct::templates
