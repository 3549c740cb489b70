// Generation with the tiny models against transformers (tests/goldens/generate/make.py), and what it must not depend
// on.
#include "generate/generator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "generate/test_support.h"
#include "instructions/constraint.h"
#include "models/test_support.h"

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

class Greedy : public ::testing::TestWithParam<std::string> {};

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
        GenerateOptions{.layout = data::Layout::kRows}, GenerateOptions{.prompt_lookup = 3},
        GenerateOptions{.max_batch = 2, .prompt_lookup = 40},
        GenerateOptions{.max_batch = 5, .max_slots = 200, .block_tokens = 4, .prompt_lookup = 2}}) {
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

INSTANTIATE_TEST_SUITE_P(Models, Greedy, ::testing::ValuesIn(models::golden_models()), models::test_name);

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

// Whatever chooses the tokens: the most likely one, a draw, penalties, a constraint.
TEST(Generator, PromptLookupChangesNoAnswer) {
  TinyModel tiny;
  const auto vocabulary = std::make_shared<const instructions::TokenVocabulary>(tiny.tokenizer());
  const std::string text = "The library reads and writes files. The library reads and writes mail.";
  std::int64_t accepted = 0;
  for (const SamplingOptions& sampling :
       {SamplingOptions{}, SamplingOptions{.temperature = 0.7, .top_p = 0.9, .seed = 5},
        SamplingOptions{.repetition_penalty = 1.3}, SamplingOptions{.temperature = 0.3, .repetition_penalty = 0.8}}) {
    const auto answers_of = [&](std::int64_t prompt_lookup, LookupCounts& counts) {
      std::vector<Request> requests;
      for (std::uint64_t stream = 0; stream < 4; ++stream) {
        requests.push_back({.prompt = tiny.prompt(text), .max_new_tokens = 40, .sampling = sampling, .stream = stream});
      }
      requests[1].stop = {"re"};
      requests[2].ignore_end = true;
      requests[3].constraint = instructions::make_span_constraint(vocabulary, text);
      Generator generator(tiny.engine, tiny.model(), tiny.tokenizer(), {.prompt_lookup = prompt_lookup});
      auto answers = generator.run(requests);
      counts = generator.counts();
      return answers;
    };
    LookupCounts plain, looked_up;
    const std::vector<Answer> expected = answers_of(0, plain);
    const std::vector<Answer> answers = answers_of(6, looked_up);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens);
      EXPECT_EQ(answers[i].text, expected[i].text);
      EXPECT_EQ(answers[i].finish, expected[i].finish);
      // Sums of up to 40 log-probabilities of magnitude 10, each off by some roundings of 6e-8 relative.
      EXPECT_NEAR(answers[i].log_probability, expected[i].log_probability, 2e-4);
    }
    EXPECT_EQ(plain.proposed, 0);
    EXPECT_EQ(plain.steps, looked_up.steps + looked_up.accepted);
    accepted += looked_up.accepted;
  }
  EXPECT_GT(accepted, 0);
}

// Answers of many lengths, so that others begin while some go on; without shared starts, where nothing may differ.
TEST(Generator, AnswersAreToTheBitWhatTheyAreAlone) {
  TinyModel tiny;
  RandomStream random(11, RandomPurpose::kTest);
  std::vector<Request> requests;
  for (std::int32_t i = 0; i < 24; ++i) {
    Request request{.prompt = {i + 3}, .sampling = {.temperature = 0.8, .seed = 2}, .ignore_end = true};
    const auto length = 5 + random.next_below(50);
    for (std::uint64_t t = 0; t < length; ++t)
      request.prompt.push_back(static_cast<std::int32_t>(3 + random.next_below(200)));
    request.max_new_tokens = 1 + static_cast<std::int64_t>(random.next_below(40));
    request.stream = static_cast<std::uint64_t>(i);
    requests.push_back(std::move(request));
  }
  Generator together(tiny.engine, tiny.model(), tiny.tokenizer(), {.max_batch = 7, .max_pass_tokens = 70});
  const std::vector<Answer> answers = together.run(requests);
  Generator alone(tiny.engine, tiny.model(), tiny.tokenizer());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Answer answer = alone.run({&requests[i], 1}).front();
    EXPECT_EQ(answers[i].tokens, answer.tokens);
    EXPECT_EQ(answers[i].log_probability, answer.log_probability) << i;
    EXPECT_EQ(static_cast<std::int64_t>(answer.tokens.size()), requests[i].max_new_tokens);
  }
}

// Short prompts with long answers: more begin than there is room for, some are put out of the cache and come back.
TEST(Generator, AFullCacheChangesNoAnswer) {
  TinyModel tiny;
  std::vector<Request> requests = questions(tiny, {});
  std::int64_t tokens = 0;
  for (Request& request : requests) {
    request.max_new_tokens = 60;
    request.ignore_end = true;
    tokens = std::max(tokens, static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens);
  }
  const std::vector<Answer> expected = Generator(tiny.engine, tiny.model(), tiny.tokenizer()).run(requests);
  for (const std::int64_t slots : {tokens, tokens + 20, 2 * tokens}) {
    Generator small(tiny.engine, tiny.model(), tiny.tokenizer(), {.max_slots = slots, .block_tokens = 4});
    const std::vector<Answer> answers = small.run(requests);
    EXPECT_EQ(tokens_of(answers), tokens_of(expected));
    // Sums of 60 log-probabilities of magnitude 10, each off by some roundings of 6e-8 relative.
    for (std::size_t i = 0; i < answers.size(); ++i)
      EXPECT_NEAR(answers[i].log_probability, expected[i].log_probability, 4e-4);
    const std::int64_t slot = tiny.model().make_cache(1, tiny.engine.allocator()).bytes_per_slot();
    EXPECT_LE(small.cache_bytes(), (std::max(slots, tokens) + 3) / 4 * 4 * slot);
  }
}

// Rounded keys and values change answers a little, never with what is computed beside them.
TEST(Generator, CacheTypesAreNearEachOther) {
  TinyModel tiny;
  std::vector<Request> requests = questions(tiny, {});
  for (Request& request : requests) request.max_new_tokens = 1;
  const auto answers_of = [&](std::optional<tensor::DType> type) {
    return Generator(tiny.engine, tiny.model(), tiny.tokenizer(), {.cache_type = type}).run(requests);
  };
  const std::vector<Answer> exact = answers_of(std::nullopt);
  EXPECT_EQ(tokens_of(answers_of(tensor::DType::kF32)), tokens_of(exact));
  for (const tensor::DType type : {tensor::DType::kBF16, tensor::DType::kI8}) {
    const std::vector<Answer> rounded = answers_of(type);
    double most = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(rounded[i].tokens, exact[i].tokens);
      most = std::max(most, std::abs(rounded[i].log_probability - exact[i].log_probability));
      Generator alone(tiny.engine, tiny.model(), tiny.tokenizer(), {.cache_type = type});
      EXPECT_NEAR(alone.run({&requests[i], 1}).front().log_probability, rounded[i].log_probability, 1e-4);
    }
    EXPECT_GT(most, 0);
    EXPECT_LT(most, 0.05);
  }
  const auto bytes = [&](tensor::DType type) {
    return tiny.model().make_cache(1, tiny.engine.allocator(), type).bytes_per_slot();
  };
  EXPECT_EQ(bytes(tensor::DType::kF32), 2 * bytes(tensor::DType::kBF16));
  EXPECT_LT(bytes(tensor::DType::kI8), bytes(tensor::DType::kBF16));
}

// Memory follows what is written, not what might be; shared starts are there once.
TEST(Generator, TheCacheHoldsWhatIsWrittenOnce) {
  TinyModel tiny;
  const std::int64_t slot = tiny.model().make_cache(1, tiny.engine.allocator()).bytes_per_slot();
  std::vector<Request> requests(8, Request{.prompt = std::vector<std::int32_t>(40, 7)});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt.push_back(static_cast<std::int32_t>(10 + i));
    requests[i].max_new_tokens = 2;
  }
  Generator generator(tiny.engine, tiny.model(), tiny.tokenizer(), {.block_tokens = 4});
  generator.run(requests);
  // 40 shared, and for each its own last token, first token and, at most, the rest of a block.
  EXPECT_LE(generator.cache_bytes(), (44 + 8 * 4) * slot);
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
  const std::int64_t context = tiny.model().sizes().context_length;
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
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), 6);
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
