// What is trained and what is served agree, over whole chat templates: those of tests/goldens/templates/chats.json, and
// published ones, which are not in this repository (published.py beside it makes the file that holds them).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "instructions/dialogue.h"
#include "tokenizers/byte_level.h"

namespace instruct::instructions {
namespace {

using testing::HasSubstr;
using testing::Not;

// Bytes, and whatever in the template looks like a special token. The ends of turns are those that the models name in
// their generation_config.json, besides the names every Tokenizer knows.
tokenizers::Tokenizer tokenizer_for(const std::string& source) {
  static const std::regex special(
      "<\\|[^|<>\\s]{1,40}\\|>|<｜[^｜<>]{1,60}｜>|</?s>|<(start|end)_of_turn>|<\\|?turn\\|?>|\\[\\|[a-z]+\\|\\]|"
      "<seed:[a-z]+>|\\[/?[A-Z_]{3,20}\\]|\\]~b\\]|\\[e~\\[|<SPECIAL_1[0-9]>|<end_of_[a-z]+>|<beginning_of_[a-z]+>|"
      "<sep>|</assistant>|<user>");
  static const std::vector<std::string> ends{"<｜end▁of▁sentence｜>",
                                             "<|END_OF_TURN_TOKEN|>",
                                             "<turn|>",
                                             "[e~[",
                                             "[|endofturn|]",
                                             "<seed:eos>",
                                             "<|return|>",
                                             "<|call|>",
                                             "<|eom|>",
                                             "<|eot|>",
                                             "<|role_end|>",
                                             "<|assistant_end|>",
                                             "<end_of_sentence>",
                                             "<SPECIAL_12>",
                                             "<sep>",
                                             "<|end_of_msg|>",
                                             "<end_of_utterance>",
                                             "</assistant>",
                                             "<|message_sep|>"};
  std::vector<std::string> names{"<s>", "</s>"};
  for (auto match = std::sregex_iterator(source.begin(), source.end(), special); match != std::sregex_iterator();
       ++match) {
    if (std::find(names.begin(), names.end(), match->str()) == names.end()) names.push_back(match->str());
  }
  tokenizers::TokenizerSpec spec;
  spec.name = "published";
  for (int byte = 0; byte < 256; ++byte)
    spec.tokens.push_back(tokenizers::spelling_of_bytes(std::string(1, static_cast<char>(byte))));
  spec.tokens.emplace_back("~~");
  spec.merges.emplace_back("~", "~");
  spec.kinds.assign(spec.tokens.size(), tokenizers::TokenKind::kNormal);
  spec.bos = static_cast<std::int32_t>(spec.tokens.size());
  spec.eos = *spec.bos + 1;
  const bool glm = source.find("[gMASK]") != std::string::npos;
  for (const std::string& name : names) {
    const bool end = std::find(ends.begin(), ends.end(), name) != ends.end() ||
                     (glm && (name == "<|user|>" || name == "<|observation|>"));
    if (end) spec.end_of_turn.push_back(static_cast<std::int32_t>(spec.tokens.size()));
    spec.tokens.push_back(name);
    spec.kinds.push_back(tokenizers::TokenKind::kSpecial);
  }
  spec.splits = tokenizers::splits_of_gguf_name("gpt-2");
  return tokenizers::Tokenizer(std::move(spec));
}

// The trained stretches, joined by |.
std::string trained_text(const EncodedDialogue& encoded, const tokenizers::Tokenizer& tokenizer) {
  std::string text;
  for (std::size_t i = 1; i < encoded.tokens.size(); ++i) {
    if (encoded.trained[i] == 0) continue;
    if (encoded.trained[i - 1] == 0 && !text.empty()) text += '|';
    text += tokenizer.token_bytes(encoded.tokens[i]);
  }
  return text;
}

// Where the last trained stretch begins.
std::size_t last_stretch(const EncodedDialogue& encoded) {
  std::size_t begin = 0;
  for (std::size_t i = 1; i < encoded.tokens.size(); ++i) {
    if (encoded.trained[i] != 0 && encoded.trained[i - 1] == 0) begin = i;
  }
  return begin;
}

std::vector<std::vector<Message>> dialogues() {
  const Value thought = Value::object({{"reasoning_content", "R2r."}});
  const Value call = Value::object({{"name", "weather"}, {"arguments", Value::object({{"place", "P1p"}})}});
  const Value calls = Value::object(
      {{"tool_calls",
        Value(Value::Array{Value::object({{"id", "call00001"}, {"type", "function"}, {"function", call}})})}});
  const Value result = Value::object({{"name", "weather"}, {"tool_call_id", "call00001"}});
  const std::vector<Message> turns{
      {"user", "U1u.", {}}, {"assistant", "A1a.", {}}, {"user", "U2u.", {}}, {"assistant", "A2a.", {}}};
  std::vector<Message> led = turns;
  led.insert(led.begin(), {"system", "S0s.", {}});
  std::vector<Message> thinks = turns;
  thinks.back().extra = thought;
  return {turns,
          led,
          thinks,
          {{"user", "质问，U1u。", {}}, {"assistant", "答案 A1a。", {}}},
          {{"user", "U1u.", {}}, {"assistant", "", calls}, {"tool", "T1t.", result}, {"assistant", "A2a.", {}}}};
}

// Why a render may not start with the served prompt: the prompt opens thoughts that a finished turn has not, or the
// template treats the last message in another way (Mistral's puts the system's words there), or writes something in
// prompts alone (CodeLlama's names a destination).
bool is_explained(const std::string& template_source, const std::string& prompt) {
  static const std::regex thinks("(think|thought|reason|channel)[^U]*$", std::regex::icase);
  return std::regex_search(prompt.substr(prompt.size() - std::min<std::size_t>(prompt.size(), 80)), thinks) ||
         template_source.find("loop.last") != std::string::npos ||
         prompt.find("Destination: user") != std::string::npos;
}

struct Tally {
  int templates = 0, rows = 0, follow = 0, differ = 0, endless = 0, refused = 0;
};

void check_row(const DialogueEncoder& encoder, const std::vector<Message>& dialogue, bool marks_answers, Tally& tally) {
  EncodedDialogue encoded;
  std::vector<std::int32_t> prompt;
  std::string served;
  const auto asked = std::span(dialogue).first(dialogue.size() - 1);
  try {
    encoded = encoder.encode_training(dialogue);
    prompt = encoder.encode_prompt(asked);
    served = encoder.render(asked, true).text;
  } catch (const Error&) {
    ++tally.refused;
    return;
  }
  ++tally.rows;
  const std::string trained = trained_text(encoded, encoder.tokenizer());
  for (const Message& message : dialogue) {
    if (message.role == "assistant") continue;
    EXPECT_THAT(trained, Not(HasSubstr(message.content)));
  }
  EXPECT_THAT(trained, HasSubstr(dialogue.back().content));
  const bool shows_call = encoded.text.find("P1p") != std::string::npos;
  EXPECT_THAT(trained, HasSubstr(shows_call ? "P1p" : ""));
  tally.endless += encoded.end_trained ? 0 : 1;
  EXPECT_EQ(encoded.follows_prompt, encoded.text.starts_with(served));
  if (!encoded.follows_prompt) {
    ++tally.differ;
    EXPECT_TRUE(is_explained(encoder.template_source(), served)) << served;
    return;
  }
  ++tally.follow;
  ASSERT_LT(prompt.size(), encoded.tokens.size());
  EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), encoded.tokens.begin()));
  if (marks_answers) return;  // its author decides
  // Where nothing opens an answer, the speaker's name may stand between.
  const bool opens = encoder.render(asked, false).text != served;
  const std::size_t own = encoded.text.rfind(dialogue.back().content);
  const bool blank =
      encoded.text.substr(served.size(), own - served.size()).find_first_not_of(" \n") == std::string::npos;
  EXPECT_GE(last_stretch(encoded), prompt.size()) << trained;
  EXPECT_TRUE((!opens && !blank) || last_stretch(encoded) == prompt.size()) << trained;
}

Tally check_all(const std::string& file) {
  Tally tally;
  const std::string path = std::string(INSTRUCT_GOLDENS) + "/templates/" + file;
  const Value goldens = parse_json(read_file(path), path);
  for (const auto& [name, source] : goldens.at("templates").as_object()) {
    SCOPED_TRACE(name);
    ++tally.templates;
    const tokenizers::Tokenizer tokenizer = tokenizer_for(source.as_string());
    const DialogueEncoder encoder(tokenizer, source.as_string(), name);
    const bool marks = source.as_string().find("endgeneration") != std::string::npos;
    for (const std::vector<Message>& dialogue : dialogues()) check_row(encoder, dialogue, marks, tally);
  }
  printf("%d templates, %d rows: %d follow their prompt, %d do not, %d without an end, %d refused\n", tally.templates,
         tally.rows, tally.follow, tally.differ, tally.endless, tally.refused);
  return tally;
}

TEST(TrainedAndServed, AgreeForOurTemplates) {
  const Tally tally = check_all("chats.json");
  EXPECT_EQ(tally.endless, 0);
}

TEST(TrainedAndServed, AgreeForPublishedTemplates) {
  if (!std::filesystem::exists(std::string(INSTRUCT_GOLDENS) + "/templates/published.json"))
    GTEST_SKIP() << "no published.json; tests/goldens/templates/published.py makes it";
  const Tally tally = check_all("published.json");
  EXPECT_GT(tally.follow, 4 * tally.differ);
}

}  // namespace
}  // namespace instruct::instructions
