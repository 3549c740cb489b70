// Generation with the tiny models against transformers (tests/goldens/generate/make.py), and what it must not depend
// on.
#include "generate/generator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "generate/test_support.h"

namespace instruct::generate {
namespace {

Value golden() {
  const std::string path = INSTRUCT_GOLDENS "/generate/expected.json";
  return parse_json(read_file(path), path);
}

std::vector<std::vector<std::int32_t>> tokens_of(const std::vector<Answer>& answers) {
  std::vector<std::vector<std::int32_t>> tokens;
  for (const Answer& answer : answers) tokens.push_back(answer.tokens);
  return tokens;
}

std::vector<Request> questions(const TinyModel& tiny, const SamplingOptions& sampling) {
  std::vector<Request> requests;
  for (const char* text : {"The library reads and writes files.", "The library reads and writes mail.", "Games?",
                           "The library reads and writes files. And more of them than ever.", "Größe", "这个软件包"}) {
    requests.push_back({.prompt = tiny.prompt(text),
                        .max_new_tokens = 12,
                        .sampling = sampling,
                        .stream = static_cast<std::uint64_t>(requests.size())});
  }
  return requests;
}

class Greedy : public ::testing::TestWithParam<const char*> {};

TEST_P(Greedy, AnswersEqualTransformersTogetherAloneAndInPasses) {
  TinyModel tiny(GetParam());
  std::vector<Request> requests;
  std::vector<std::vector<std::int32_t>> expected;
  const Value rows = golden().at("greedy").at(GetParam());
  for (const Value& row : rows.as_array()) {
    requests.push_back({.prompt = ids_of(row.at("prompt")), .max_new_tokens = 24});
    expected.push_back(ids_of(row.at("answer")));
  }
  // One pass over a tree of all prompts; small passes; no room for two answers at once; one by one.
  for (const GenerateOptions& options :
       {GenerateOptions{}, GenerateOptions{.max_pass_tokens = 60}, GenerateOptions{.max_slots = 10},
        GenerateOptions{.max_batch = 1}, GenerateOptions{.max_batch = 3, .max_pass_tokens = 1},
        GenerateOptions{.layout = data::Layout::kRows}}) {
    Generator generator(tiny.engine, tiny.model(), tiny.tokenizer(), options);
    EXPECT_EQ(tokens_of(generator.run(requests)), expected);
  }
}

// Each token again from all tokens before it, nothing kept.
TEST_P(Greedy, TheCacheEqualsRecomputation) {
  TinyModel tiny(GetParam());
  Generator generator(tiny.engine, tiny.model(), tiny.tokenizer());
  const std::vector<Request> requests = questions(tiny, {});
  const std::vector<Answer> answers = generator.run(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request step = requests[i];
    step.max_new_tokens = 1;
    for (const std::int32_t token : answers[i].tokens) {
      const std::vector<Request> one{step};
      ASSERT_EQ(generator.run(one).front().tokens, std::vector<std::int32_t>{token});
      step.prompt.push_back(token);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Greedy, ::testing::Values("llama-tied", "llama3-rope", "qwen2-bias"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Generator, SampledAnswersDependOnSeedAndStreamAlone) {
  TinyModel two("llama-tied", 2);
  TinyModel one("llama-tied", 1);
  const std::vector<Request> requests = questions(two, {.temperature = 1.5, .top_p = 0.95, .seed = 7});
  Generator generator(two.engine, two.model(), two.tokenizer());
  const auto answers = tokens_of(generator.run(requests));
  Generator single(one.engine, one.model(), one.tokenizer());
  EXPECT_EQ(tokens_of(single.run(requests)), answers);
  for (std::size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(generator.run({&requests[i], 1}).front().tokens, answers[i]) << i;
  std::vector<Request> reversed(requests.rbegin(), requests.rend());
  auto backwards = tokens_of(generator.run(reversed));
  std::reverse(backwards.begin(), backwards.end());
  EXPECT_EQ(backwards, answers);
  std::vector<Request> other = questions(two, {.temperature = 1.5, .top_p = 0.95, .seed = 8});
  EXPECT_NE(tokens_of(generator.run(other)), answers);
  std::vector<Request> same(2, requests.front());  // two streams of one question
  same[1].stream = 99;
  const auto drawn = tokens_of(generator.run(same));
  EXPECT_NE(drawn[0], drawn[1]);
}

TEST(Generator, TokensPastTheTokenizersVocabularyAreNeverChosen) {
  TinyModel tiny;
  // The same model under a tokenizer that lacks the last hundred tokens: what a padded embedding looks like.
  tokenizers::TokenizerSpec spec = tiny.tokenizer().spec();
  const std::size_t kept = spec.tokens.size() - 100;
  spec.tokens.resize(kept);
  spec.kinds.resize(kept);
  std::erase_if(spec.merges, [&](const auto& merge) {
    return std::find(spec.tokens.begin(), spec.tokens.end(), merge.first + merge.second) == spec.tokens.end();
  });
  const tokenizers::Tokenizer smaller(std::move(spec));
  Generator generator(tiny.engine, tiny.model(), smaller);
  std::vector<Request> requests(8, Request{.prompt = {2, 5, 7}, .max_new_tokens = 40, .sampling = {.temperature = 3}});
  for (std::size_t i = 0; i < requests.size(); ++i) requests[i].stream = i;
  for (const Answer& answer : generator.run(requests)) {
    for (const std::int32_t token : answer.tokens) EXPECT_LT(token, static_cast<std::int64_t>(kept));
  }
}

TEST(Generator, TheContextEndsAnAnswer) {
  TinyModel tiny;
  const std::int64_t context = tiny.model().config().context_length;
  Request request{.prompt = std::vector<std::int32_t>(static_cast<std::size_t>(context) - 3, 5),
                  .max_new_tokens = 100,
                  .ignore_end = true};
  Generator generator(tiny.engine, tiny.model(), tiny.tokenizer());
  const Answer answer = generator.run({&request, 1}).front();
  EXPECT_EQ(answer.tokens.size(), 3U);
  EXPECT_EQ(answer.finish, Finish::kLength);
  request.prompt.resize(static_cast<std::size_t>(context), 5);
  EXPECT_THROW(generator.run({&request, 1}), Error);
  request.prompt.clear();
  EXPECT_THROW(generator.run({&request, 1}), Error);
  request.prompt = {5};
  request.max_new_tokens = 0;
  EXPECT_THROW(generator.run({&request, 1}), Error);
}

TEST(Generator, StreamsGrowAndEndAsTheAnswersAreAndProgressIsTold) {
  TinyModel tiny;
  const std::vector<Request> requests = questions(tiny, {.temperature = 2, .seed = 3});
  Generator generator(tiny.engine, tiny.model(), tiny.tokenizer(), {.max_batch = 4});
  std::vector<std::string> shown(requests.size());
  std::vector<std::int64_t> done;
  const auto answers = generator.run(
      requests, [&](std::int64_t count) { done.push_back(count); },
      [&](std::size_t index, std::string_view text) {
        EXPECT_TRUE(text.starts_with(shown[index]));
        shown[index] = text;
      });
  for (std::size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(shown[i], answers[i].text);
  EXPECT_EQ(done, (std::vector<std::int64_t>{4, 6}));
}

TEST(Generator, StopsWhenAsked) {
  TinyModel tiny;
  Generator generator(tiny.engine, tiny.model(), tiny.tokenizer());
  request_cancel();
  EXPECT_THROW(generator.run(questions(tiny, {})), Error);
  clear_cancel();
}

}  // namespace
}  // namespace instruct::generate
