// Keys of other trainers' configurations that name something this one does not do, or does not need to be told.
#pragma once

#include <string>
#include <string_view>

namespace instruct::train {

enum class ForeignKey {
  kUnknown,      // no key of a trainer we know
  kSettled,      // the value asks for what happens here anyway
  kIgnored,      // has no meaning here, whatever the value
  kUnsupported,  // the value asks for something that is not done here
};

struct ForeignAnswer {
  ForeignKey kind = ForeignKey::kUnknown;
  std::string why;  // for kIgnored and kUnsupported: what is done instead
};

// `value` as written, lower case; "" for nothing.
ForeignAnswer foreign_key(std::string_view name, std::string_view value);

}  // namespace instruct::train
