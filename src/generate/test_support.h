// A tiny golden model with everything around it, for the tests of this folder and of evaluate/.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/value.h"
#include "instructions/dialogue.h"
#include "models/package.h"
#include "ops/engine.h"

namespace instruct::generate {

struct TinyModel {
  explicit TinyModel(const std::string& variant = "llama-tied", int threads = 2)
      : engine(threads),
        package(models::open_package(std::filesystem::path(INSTRUCT_GOLDENS) / "models" / variant,
                                     models::PackageParts::kAll, {}, engine.allocator())),
        dialogue(*package.tokenizer, package.chat_template, variant) {}

  models::LanguageModel& model() { return *package.model; }
  const tokenizers::Tokenizer& tokenizer() const { return *package.tokenizer; }
  std::vector<std::int32_t> plain(std::string_view text) const {
    std::vector<std::int32_t> ids;
    for (const tokenizers::Token& token : tokenizer().encode_plain(text)) ids.push_back(token.id);
    return ids;
  }
  std::vector<std::int32_t> prompt(const std::string& question) const {
    const std::vector<instructions::Message> messages{{"user", question, {}}};
    return dialogue.encode_prompt(messages);
  }

  ops::Engine engine;
  models::Package package;
  instructions::DialogueEncoder dialogue;
};

inline std::vector<std::int32_t> ids_of(const Value& list) {
  std::vector<std::int32_t> ids;
  for (const Value& id : list.as_array()) ids.push_back(static_cast<std::int32_t>(id.as_integer()));
  return ids;
}

}  // namespace instruct::generate
