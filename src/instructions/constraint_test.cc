#include "instructions/constraint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>

#include "base/json.h"
#include "base/random.h"
#include "instructions/output_encoder.h"
#include "instructions/test_support.h"

namespace instruct::instructions {
namespace {

using testing::error_of;

// Some tokens of several bytes, across every boundary that matters to JSON.
const std::vector<std::pair<std::string, std::string>>& merges() {
  static const std::vector<std::pair<std::string, std::string>> list{
      {"l", "i"},   {"li", "b"},  {"lib", "s"},   {"\"", ","},      {"\",", " "}, {"\", ", "\""},
      {"\"", ":"},  {"\":", " "}, {"\": ", "\""}, {"{", "\""},      {"[", "\""},  {"\"", "]"},
      {"\"", "}"},  {"1", "2"},   {"12", "3"},    {"t", "r"},       {"tr", "u"},  {"tru", "e"},
      {"n", "a"},   {"na", "m"},  {"nam", "e"},   {"\xe6", "\xb7"}, {" ", "c"},   {" c", "a"},
      {" ca", "t"}, {"\\", "\""}, {"-", "1"},     {".", "5"},       {"0", "0"}};
  return list;
}

struct Fixture {
  tokenizers::Tokenizer tokenizer = testing::tiny_tokenizer(merges());
  std::shared_ptr<const TokenVocabulary> vocabulary = std::make_shared<TokenVocabulary>(tokenizer);
};

std::vector<std::string> allowed_texts(const Fixture& fixture, const Constraint& constraint) {
  TokenMask mask(fixture.vocabulary->size());
  constraint.allowed(mask);
  std::vector<std::string> texts;
  for (const std::int32_t token : mask.tokens()) texts.push_back(fixture.tokenizer.token_bytes(token));
  return texts;
}

// Feeds a text byte by byte; false when a byte is refused.
bool feed(const Fixture& fixture, Constraint& constraint, std::string_view text) {
  TokenMask mask(fixture.vocabulary->size());
  for (const char c : text) {
    const auto token = static_cast<std::int32_t>(static_cast<unsigned char>(c));
    constraint.allowed(mask);
    if (!mask.test(token)) return false;
    constraint.advance(token);
  }
  return true;
}

bool takes_whole(const Fixture& fixture, const Constraint& constraint, std::string_view text) {
  const auto copy = constraint.clone();
  return feed(fixture, *copy, text) && copy->may_end();
}

// Random walks over allowed tokens: the mask is never empty before the end, what comes out is whole and passes `check`,
// and at every step the mask holds exactly the tokens whose bytes can be taken one by one.
template <typename Check>
void random_walks(const Fixture& fixture, const Constraint& constraint, std::uint64_t seed, const Check& check) {
  RandomStream random(seed, RandomPurpose::kTest);
  TokenMask mask(fixture.vocabulary->size());
  for (int walk = 0; walk < 20; ++walk) {
    const auto state = constraint.clone();
    std::string text;
    for (int step = 0; step < 120; ++step) {
      state->allowed(mask);
      std::vector<std::int32_t> tokens = mask.tokens();
      ASSERT_FALSE(tokens.empty()) << text;
      if (step % 17 == 3) {
        for (std::int32_t token = 0; token < fixture.vocabulary->size(); ++token) {
          if (fixture.tokenizer.is_special(token)) continue;
          const auto copy = state->clone();
          ASSERT_EQ(feed(fixture, *copy, fixture.tokenizer.token_bytes(token)), mask.test(token))
              << text << " + " << fixture.tokenizer.token_bytes(token);
        }
      }
      if (state->may_end() && (random.next_below(4) == 0 || tokens.size() == fixture.vocabulary->ends().size())) break;
      // Prefer tokens that close, so that walks end.
      std::erase_if(tokens, [&](std::int32_t token) { return fixture.tokenizer.is_special(token); });
      if (tokens.empty()) break;
      const std::int32_t token = tokens[random.next_below(tokens.size())];
      text += fixture.tokenizer.token_bytes(token);
      state->advance(token);
    }
    const auto rest = state->completion();
    ASSERT_TRUE(rest.has_value()) << text;
    ASSERT_TRUE(takes_whole(fixture, constraint, text + *rest)) << text << " + " << *rest;
    check(text + *rest);
  }
}

TEST(TokenMask, AppliesToLogits) {
  TokenMask mask(130);
  mask.set(0);
  mask.set(129);
  std::vector<float> logits(192, 1.0F);  // padded past the vocabulary
  mask.apply(logits);
  EXPECT_EQ(std::count(logits.begin(), logits.end(), 1.0F), 2);
  EXPECT_EQ(logits[129], 1.0F);
  EXPECT_EQ(mask.count(), 2);
  EXPECT_FALSE(mask.test(-1));
  EXPECT_FALSE(mask.test(1000));
}

TEST(LabelConstraint, EveryLabelAlsoPrefixesOfOthers) {
  const Fixture fixture;
  const std::vector<std::vector<std::int32_t>> labels{{'l', 'i'}, {'l', 'i', 'b'}, {'g'}};
  const auto constraint = make_label_constraint(fixture.vocabulary, labels);
  EXPECT_EQ(allowed_texts(fixture, *constraint), (std::vector<std::string>{"g", "l"}));
  constraint->advance('l');
  EXPECT_FALSE(constraint->may_end());
  EXPECT_EQ(constraint->completion(), "i");
  constraint->advance('i');
  EXPECT_TRUE(constraint->may_end());
  EXPECT_EQ(allowed_texts(fixture, *constraint), (std::vector<std::string>{"b", "<|endoftext|>", "<|im_end|>"}));
  EXPECT_EQ(error_of([&] { constraint->advance('g'); }), "constrained labels: token 103 ('g') cannot come here");
  constraint->advance(*fixture.tokenizer.find("<|im_end|>"));
  EXPECT_TRUE(allowed_texts(fixture, *constraint).empty());
  EXPECT_EQ(error_of([&] { make_label_constraint(fixture.vocabulary, {}); }), "constrained labels: there is no label");
}

TEST(NumberConstraint, FormsAndBounds) {
  const Fixture fixture;
  const auto any = make_number_constraint(fixture.vocabulary, false, {}, {});
  for (const char* good : {"0", "7", "-7", "12.5", "-0.25", "999999999999", "0.000001", "10"})
    EXPECT_TRUE(takes_whole(fixture, *any, good)) << good;
  for (const char* bad : {"", "-", "07", "-0", "1.", ".5", "1e3", "+1", "1234567890123", "0.1234567", "1-", "--1"})
    EXPECT_FALSE(takes_whole(fixture, *any, bad)) << bad;
  const auto small = make_number_constraint(fixture.vocabulary, true, 5, 120);
  for (const char* good : {"5", "9", "10", "99", "120"}) EXPECT_TRUE(takes_whole(fixture, *small, good)) << good;
  for (const char* bad : {"4", "0", "121", "-5", "5.5", "1"}) EXPECT_FALSE(takes_whole(fixture, *small, bad)) << bad;
  const auto negative = make_number_constraint(fixture.vocabulary, false, -1.5, -0.25);
  for (const char* good : {"-1", "-1.5", "-0.25", "-0.3"}) EXPECT_TRUE(takes_whole(fixture, *negative, good)) << good;
  for (const char* bad : {"-0.2", "-1.6", "0", "1", "-2", "-0"})
    EXPECT_FALSE(takes_whole(fixture, *negative, bad)) << bad;
  const auto narrow = make_number_constraint(fixture.vocabulary, false, 0.1, 0.1);
  EXPECT_EQ(allowed_texts(fixture, *narrow), std::vector<std::string>{"0"});
  EXPECT_TRUE(takes_whole(fixture, *narrow, "0.1"));
  EXPECT_EQ(error_of([&] { make_number_constraint(fixture.vocabulary, true, 0.2, 0.8); }),
            "no whole number of at most 0 decimals lies between 0.2 and 0.8");
}

TEST(NumberConstraint, WalksStayInBounds) {
  const Fixture fixture;
  const auto constraint = make_number_constraint(fixture.vocabulary, false, -20, 1300);
  random_walks(fixture, *constraint, 1, [](const std::string& text) {
    const double value = parse_json(text, "walk").as_double();
    EXPECT_GE(value, -20);
    EXPECT_LE(value, 1300);
  });
}

TEST(SpanConstraint, OnlyPartsOfTheText) {
  const Fixture fixture;
  const std::string text = "The cat sat on the cat. 深度学习 cat cats";
  const auto constraint = make_span_constraint(fixture.vocabulary, text);
  for (const char* good : {"The cat", "cat.", "cat", "深度", "s", text.c_str(), "t cats"})
    EXPECT_TRUE(takes_whole(fixture, *constraint, good)) << good;
  for (const char* bad : {"", " cat", "dog", "the sat", "\xe6\xb7", "\xb1", "catss"})
    EXPECT_FALSE(takes_whole(fixture, *constraint, bad)) << bad;
  random_walks(fixture, *constraint, 2,
               [&](const std::string& span) { EXPECT_NE(text.find(span), std::string::npos) << span; });
  EXPECT_EQ(error_of([&] { make_span_constraint(fixture.vocabulary, " \n"); }),
            "a span is asked for, and the text to take it from is empty");
  EXPECT_NE(error_of([&] {
              make_span_constraint(fixture.vocabulary, std::string((1 << 20) + 1, 'x'));
            }).find("at most 1048576 bytes"),
            std::string::npos);
}

JsonSchema schema_of(const char* text) {
  std::vector<SchemaProblem> problems;
  JsonSchema schema(parse_json(text, "schema"), problems);
  EXPECT_TRUE(problems.empty()) << (problems.empty() ? "" : problems.front().message);
  return schema;
}

constexpr const char* kRecord = R"({"type": "object", "required": ["name", "kind"], "properties": {
  "name": {"type": "string", "maxLength": 4}, "kind": {"enum": ["lib", "libs", 1, 12, null]}, "size": {"type": ["integer", "null"], "minimum": 0},
  "tags": {"type": "array", "items": {"enum": ["a", "ab", "b"]}, "uniqueItems": true, "minItems": 1},
  "inner": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}})";

TEST(JsonConstraint, TakesWhatFitsAndNothingElse) {
  const Fixture fixture;
  const auto constraint = make_json_constraint(fixture.vocabulary, schema_of(kRecord));
  for (const char* good : {R"({"name": "x", "kind": "lib"})", R"({"kind":"libs","name":""})",
                           R"({"name": "深度学习", "kind": 1})", R"({"name": "\u00e9\n\"\\", "kind": 12})",
                           R"({"name": "x", "kind": null, "size": 3, "tags": ["ab", "a"], "inner": {"ok": true}})",
                           R"({"name": "x", "kind": 1, "inner": {}, "size": null})"}) {
    EXPECT_TRUE(takes_whole(fixture, *constraint, good)) << good;
  }
  for (const char* bad : {R"({"name": "x"})",
                          R"({})",
                          R"({"name": "x", "kind": "lib", "kind": 1})",
                          R"({"nam": "x"})",
                          R"({"name": "fives"})",
                          R"({"name": 3})",
                          R"({"kind": "li"})",
                          R"({"kind": 123})",
                          R"({"size": -1})",
                          R"({"size": 01})",
                          R"({"tags": []})",
                          R"({"tags": ["a", "a"]})",
                          R"({"tags": ["c"]})",
                          R"({"inner": {"ok": truth}})",
                          R"({"name":  "x"})",
                          R"({ "name": "x"})",
                          R"({"name": "x",})",
                          R"([)",
                          R"({"name": "x", "kind": 1}})",
                          "{\"name\": \"\n",
                          R"({"name": "\x)",
                          R"({"name": "\ud800)",
                          "{\"name\": \"\xc3(",
                          "{\"name\": \"\xed\xa0",
                          R"({"name" : )"}) {
    EXPECT_FALSE(takes_whole(fixture, *constraint, bad)) << bad;
  }
}

TEST(JsonConstraint, RandomWalksFitTheSchema) {
  const Fixture fixture;
  const char* schemas[] = {
      kRecord,
      R"({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 3}, "minItems": 1, "maxItems": 3})",
      R"({"anyOf": [{"type": "string", "maxLength": 5}, {"type": "number", "minimum": -2, "maximum": 3}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}]})",
      R"({"type": "object", "properties": {"name": {"const": "lib"}}, "required": ["name"], "additionalProperties": {"type": "integer", "maximum": 99, "minimum": 10}})",
      R"({"type": "array", "items": {"enum": ["a", "ab", 1, 12, true, null]}, "uniqueItems": true, "minItems": 2})",
      R"({"type": "object", "properties": {"x": {}}, "required": ["x"]})"};
  std::uint64_t seed = 10;
  for (const char* source : schemas) {
    const JsonSchema schema = schema_of(source);
    const auto constraint = make_json_constraint(fixture.vocabulary, schema);
    random_walks(fixture, *constraint, ++seed, [&](const std::string& text) {
      Value value;
      try {
        value = parse_json(text, "walk");
      } catch (const Error& error) {
        // Free names may repeat; that alone the automaton does not see.
        ASSERT_NE(std::string(error.what()).find("appears twice"), std::string::npos) << error.what() << " in " << text;
        return;
      }
      const auto wrong = schema.mismatch(value);
      EXPECT_FALSE(wrong.has_value()) << *wrong << " in " << text;
    });
  }
}

TEST(JsonConstraint, CompletionMendsATruncatedOutput) {
  const Fixture fixture;
  const JsonSchema schema = schema_of(kRecord);
  const std::string whole =
      R"({"name": "a\"b", "size": 30, "tags": ["ab", "a"], "inner": {"ok": false}, "kind": "libs"})";
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    const auto constraint = make_json_constraint(fixture.vocabulary, schema);
    ASSERT_TRUE(feed(fixture, *constraint, whole.substr(0, cut)));
    const auto rest = constraint->completion();
    ASSERT_TRUE(rest.has_value()) << whole.substr(0, cut);
    const Value value = parse_json(whole.substr(0, cut) + *rest, "completed");
    EXPECT_FALSE(schema.mismatch(value).has_value()) << whole.substr(0, cut) + *rest;
  }
}

TEST(JsonConstraint, AnythingGoesToABoundedDepth) {
  const Fixture fixture;
  const auto constraint = make_json_constraint(fixture.vocabulary, JsonSchema());
  EXPECT_TRUE(takes_whole(fixture, *constraint, R"({"a": [1, -2.5, "x", {"b": null}], "c": true})"));
  EXPECT_TRUE(takes_whole(fixture, *constraint, std::string(32, '[') + std::string(32, ']')));
  EXPECT_FALSE(takes_whole(fixture, *constraint, std::string(33, '[') + std::string(33, ']')));
}

TEST(Constraint, ForEachOutputType) {
  const Fixture fixture;
  const InstructionSet set = parse_instruction_set(R"yaml(
variables: {text: text}
instructions:
  a: {inputs: [text], template: "{{ text }}", output: {type: text}}
  b: {inputs: [text], template: "{{ text }}", output: {type: label, labels: [lib, libs]}}
  c: {inputs: [text], template: "{{ text }}", output: {type: labels, labels: [x, y]}}
  d: {inputs: [text], template: "{{ text }}", output: {type: number, min: 3, max: 9, integer: true}}
  e: {inputs: [text], template: "{{ text }}", output: {type: span}}
  f: {inputs: [text], template: "{{ text }}", output: {type: list, max_items: 2}}
  g: {inputs: [text], template: "{{ text }}", output: {type: json, schema: {type: boolean}}}
)yaml",
                                                   "set");
  const Value variables = Value::object({{"text", "cat"}});
  const auto constraint = [&](const char* verb) {
    return make_constraint(set.instruction(verb), variables, fixture.vocabulary);
  };
  EXPECT_EQ(constraint("a"), nullptr);
  EXPECT_EQ(allowed_texts(fixture, *constraint("b")), (std::vector<std::string>{"lib", "libs"}));  // canonical tokens
  EXPECT_TRUE(takes_whole(fixture, *constraint("c"), R"(["y", "x"])"));
  EXPECT_TRUE(takes_whole(fixture, *constraint("c"), "[]"));
  EXPECT_TRUE(takes_whole(fixture, *constraint("d"), "9"));
  EXPECT_FALSE(takes_whole(fixture, *constraint("d"), "10"));
  EXPECT_TRUE(takes_whole(fixture, *constraint("e"), "at"));
  EXPECT_TRUE(takes_whole(fixture, *constraint("f"), R"(["p", "q"])"));
  EXPECT_FALSE(takes_whole(fixture, *constraint("f"), R"(["p", "q", "r"])"));
  EXPECT_TRUE(takes_whole(fixture, *constraint("g"), "true"));
  EXPECT_EQ(error_of([&] { make_constraint(set.instruction("e"), Value::object(), fixture.vocabulary); }),
            "verb 'e': a span is taken from 'text', which has no text");
}

TEST(Constraint, AnswerTokensAreThoseOfTraining) {
  const Fixture fixture;
  const DialogueEncoder encoder(
      fixture.tokenizer,
      "{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content }}<|im_end|>\n\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
      "t");
  const std::vector<Message> messages{{"user", "Which?", {}}};
  const std::vector<std::string> labels{"lib", "libs", " cat"};
  const auto tokens = answer_tokens(encoder, messages, labels);
  ASSERT_EQ(tokens.size(), 3U);
  EXPECT_EQ(tokens[0], std::vector<std::int32_t>{*fixture.tokenizer.find("lib")});
  EXPECT_EQ(tokens[1], std::vector<std::int32_t>{*fixture.tokenizer.find("libs")});
  EXPECT_EQ(fixture.tokenizer.decode(tokens[2]), " cat");
}

// A vocabulary of the size of real ones: tokens of 1 to 12 random bytes, most of them letters.
TEST(Constraint, MasksOfALargeVocabularyAreQuick) {
  RandomStream random(3, RandomPurpose::kTest);
  std::set<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.insert(std::string(1, static_cast<char>(byte)));
  constexpr std::string_view kUsual = "etaoinshrdlucmfwypvbgkqjxz    ,.{}[]\":-0123456789\\\xc3\xa9\xe6";
  while (tokens.size() < 100'000) {
    std::string token;
    const std::uint64_t length = 2 + random.next_below(11);
    for (std::uint64_t i = 0; i < length; ++i) token += kUsual[random.next_below(kUsual.size())];
    tokens.insert(token);
  }
  tokenizers::TokenizerSpec spec;
  spec.name = "large";
  for (const std::string& token : tokens) spec.tokens.push_back(tokenizers::spelling_of_bytes(token));
  spec.kinds.assign(spec.tokens.size(), tokenizers::TokenKind::kNormal);
  spec.tokens.emplace_back("<|endoftext|>");
  spec.kinds.push_back(tokenizers::TokenKind::kSpecial);
  spec.eos = static_cast<std::int32_t>(spec.tokens.size()) - 1;
  spec.splits = tokenizers::splits_of_gguf_name("gpt-2");
  spec.merges.emplace_back("e", "t");
  if (tokens.count("et") == 0) GTEST_SKIP() << "the random vocabulary lacks the one merge";
  const tokenizers::Tokenizer tokenizer(std::move(spec));
  const auto vocabulary = std::make_shared<TokenVocabulary>(tokenizer);
  const auto constraint = make_json_constraint(vocabulary, schema_of(kRecord));
  TokenMask mask(vocabulary->size());
  const std::string text = R"({"name": "et", "size": 12, "kind": "lib"})";
  const auto start = std::chrono::steady_clock::now();
  for (const char c : text) {
    constraint->allowed(mask);
    const auto token = *tokenizer.find(std::string(1, c));
    ASSERT_TRUE(mask.test(token));
    constraint->advance(token);
  }
  const std::chrono::duration<double, std::milli> per_step =
      (std::chrono::steady_clock::now() - start) / static_cast<double>(text.size());
  RecordProperty("milliseconds_per_step", std::to_string(per_step.count()));
  std::printf("%.3f ms a step\n", per_step.count());
  EXPECT_LT(per_step.count(), 200.0);  // sanitizers and busy machines; a release build takes well under a millisecond
}

}  // namespace
}  // namespace instruct::instructions
