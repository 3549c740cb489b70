#include "generate/conversation.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "generate/generator.h"
#include "generate/test_support.h"

namespace instruct::generate {
namespace {

// What a generator answers that has kept nothing.
std::string answer_anew(TinyModel& tiny, const std::vector<instructions::Message>& messages,
                        const TurnOptions& options) {
  const Request request{.prompt = tiny.dialogue.encode_prompt(messages), .max_new_tokens = options.max_new_tokens};
  return Generator(tiny.engine, tiny.model(), tiny.tokenizer()).run({&request, 1}).front().text;
}

TEST(Conversation, KeptKeysChangeNoAnswerAndOnlyNewTokensAreComputed) {
  TinyModel tiny;
  Conversation conversation(tiny.engine, tiny.model(), tiny.dialogue, "Be short.");
  const TurnOptions options{.max_new_tokens = 10, .sampling = {}, .stop = {}};
  std::vector<instructions::Message> messages{{"system", "Be short.", {}}};
  std::int64_t prompts = 0;
  for (const char* text : {"What is a library?", "And a tool?", "数据库?"}) {
    messages.push_back({"user", text, {}});
    const std::string expected = answer_anew(tiny, messages, options);
    const auto length = static_cast<std::int64_t>(tiny.dialogue.encode_prompt(messages).size());
    const Turn turn = conversation.reply(text, options);
    EXPECT_EQ(turn.answer.text, expected);
    if (prompts == 0) {
      EXPECT_EQ(turn.computed_tokens, length);
    } else {
      EXPECT_LE(turn.computed_tokens, length - prompts);  // all of the prompt before was known
    }
    prompts = length;
    messages.push_back({"assistant", expected, {}});
  }
}

TEST(Conversation, PromptLookupChangesNoAnswer) {
  TinyModel tiny;
  Conversation plain(tiny.engine, tiny.model(), tiny.dialogue);
  Conversation looking(tiny.engine, tiny.model(), tiny.dialogue, "", {.prompt_lookup = 5});
  const TurnOptions options{.max_new_tokens = 30, .sampling = {}, .stop = {}};
  LookupCounts counts;
  for (const char* text : {"The library reads and writes files. The library reads and writes mail.", "Games?"}) {
    const Turn expected = plain.reply(text, options);
    const Turn turn = looking.reply(text, options);
    EXPECT_EQ(turn.answer.tokens, expected.answer.tokens);
    EXPECT_EQ(turn.answer.text, expected.answer.text);
    EXPECT_EQ(turn.computed_tokens, expected.computed_tokens);
    counts += turn.counts;
  }
  EXPECT_GT(counts.accepted, 0);
}

TEST(Conversation, TheListenerHearsGrowingTextAndCanStopIt) {
  TinyModel tiny;
  Conversation conversation(tiny.engine, tiny.model(), tiny.dialogue);
  const TurnOptions options{.max_new_tokens = 20, .sampling = {}, .stop = {}};
  std::string shown;
  std::int64_t calls = 0;
  const Turn turn = conversation.reply("Files?", options, [&](std::string_view text) {
    EXPECT_TRUE(text.starts_with(shown));
    shown = text;
    return ++calls < 3;
  });
  EXPECT_TRUE(turn.interrupted);
  EXPECT_EQ(turn.answer.tokens.size(), 3U);
  EXPECT_EQ(shown, turn.answer.text);
  // What was said stays said.
  ASSERT_EQ(conversation.messages().size(), 2U);
  EXPECT_EQ(conversation.messages().back().content, turn.answer.text);
}

TEST(Conversation, TheOldestExchangesGoWhenTheContextIsFull) {
  TinyModel tiny;
  Conversation conversation(tiny.engine, tiny.model(), tiny.dialogue, "Be short.");
  const TurnOptions options{.max_new_tokens = 8, .sampling = {}, .stop = {}};
  std::int64_t dropped = 0;
  for (int i = 0; i < 40; ++i)
    dropped += conversation.reply("The library reads and writes files.", options).dropped_messages;
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(dropped % 2, 0);
  EXPECT_EQ(static_cast<std::int64_t>(conversation.messages().size()) + dropped, 1 + 2 * 40);
  EXPECT_EQ(conversation.messages().front().role, "system");
  EXPECT_EQ(conversation.messages()[1].role, "user");
}

TEST(Conversation, AMessageThatDoesNotFitIsRefusedAndForgotten) {
  TinyModel tiny;
  Conversation conversation(tiny.engine, tiny.model(), tiny.dialogue);
  const TurnOptions options{.max_new_tokens = 8, .sampling = {}, .stop = {}};
  conversation.reply("Files?", options);
  std::string message;
  for (int i = 0; i < 600; ++i) message += "x y ";
  EXPECT_THROW(conversation.reply(message, options), Error);
  EXPECT_EQ(conversation.messages().size(), 2U);
  EXPECT_EQ(conversation.reply("And mail?", options).dropped_messages, 0);
}

TEST(Conversation, ResetAndANewSystemMessageStartAnew) {
  TinyModel tiny;
  Conversation conversation(tiny.engine, tiny.model(), tiny.dialogue);
  const TurnOptions options{.max_new_tokens = 8, .sampling = {}, .stop = {}};
  const std::string first = conversation.reply("Files?", options).answer.text;
  conversation.reset();
  EXPECT_TRUE(conversation.messages().empty());
  const Turn again = conversation.reply("Files?", options);
  EXPECT_EQ(again.answer.text, first);
  EXPECT_EQ(again.computed_tokens, 1);  // the same prompt: all but its last token was kept
  conversation.set_system("Be long.");
  ASSERT_EQ(conversation.messages().size(), 1U);
  EXPECT_EQ(conversation.messages().front().content, "Be long.");
}

}  // namespace
}  // namespace instruct::generate
