// An adapter is refused with another base model, chat template or tokenizer, and the reason can be read.
#include "models/adapter_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace instruct::models {
namespace {

using testing::HasSubstr;

AdapterOrigin origin(const std::string& chat_template, const std::string& base = "b") {
  return {"model", base, "hash of " + chat_template, chat_template};
}

std::string refusal(const AdapterOrigin& trained, const AdapterOrigin& given) {
  try {
    check_origin(trained, given, "the-adapter");
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), ErrorCategory::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(AdapterOrigin, IsAcceptedWhenSameOrUnknown) {
  EXPECT_EQ(refusal(origin("x"), origin("x")), "accepted");
  EXPECT_EQ(refusal({}, origin("x")), "accepted");
}

TEST(AdapterOrigin, IsRefusedOnAnotherBaseModelOrTokenizer) {
  EXPECT_THAT(refusal(origin("x"), origin("x", "other")), HasSubstr("another base model"));
  AdapterOrigin other = origin("x");
  other.template_fingerprint = "other";
  EXPECT_THAT(refusal(origin("x"), other), HasSubstr("another tokenizer"));
}

TEST(AdapterOrigin, IsRefusedWithTheDifferenceOfTheTemplates) {
  EXPECT_EQ(refusal(origin("a\nb{{ x }}\nc"), origin("a\nb{{ y }}\nc")),
            "adapter 'the-adapter' was trained with another chat template (-) than this model's (+):\n"
            "@@ line 1, column 1 @@\n a\n-b{{ x }}\u23CE\n+b{{ y }}\u23CE\n c");
}

}  // namespace
}  // namespace instruct::models
