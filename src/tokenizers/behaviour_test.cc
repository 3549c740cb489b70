// Promises beyond "equal to the official ids": special ranges, offsets through changes, broken text, broken files.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/threads.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/byte_pair.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

// The bytes, a few merges, and <|end|> and <tool>.
TokenizerSpec small_spec() {
  TokenizerSpec spec;
  spec.name = "small";
  for (int byte = 0; byte < 256; ++byte)
    spec.tokens.push_back(spelling_of_bytes(std::string(1, static_cast<char>(byte))));
  for (const auto& [left, right] : {std::pair{"a", "b"}, {"ab", "c"}, {"b", "c"}, {"a", "a"}, {"aa", "aa"}}) {
    spec.merges.emplace_back(left, right);
    spec.tokens.push_back(std::string(left) + right);
  }
  spec.kinds.assign(spec.tokens.size(), TokenKind::kNormal);
  spec.tokens.insert(spec.tokens.end(), {"<|end|>", "<tool>"});
  spec.kinds.insert(spec.kinds.end(), {TokenKind::kSpecial, TokenKind::kUserDefined});
  spec.splits = splits_of_gguf_name("gpt-2");
  return spec;
}

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, const std::vector<Token>& tokens) {
  std::vector<std::string> pieces;
  for (const Token& token : tokens) pieces.push_back(tokenizer.token_bytes(token.id));
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(Spelling, EveryByteAndNothingElse) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(3, static_cast<char>(byte));
    EXPECT_EQ(bytes_of_spelling(spelling_of_bytes(bytes)), bytes) << byte;
  }
  // A space, what overlong and cut characters would spell, other alphabets, characters of three and four bytes.
  for (const char* other :
       {" ", "\xC1\xA1", "\xC4", "a\xC4x", "\xC4\xC4", "\x80", "\xC5\x84", "\xE2\x96\x81", "\xF0\x9F\x98\x80"})
    EXPECT_EQ(bytes_of_spelling(other), std::nullopt) << other;
}

// Which tokens are whole is noted as texts come by: what is asked for first, or at once, changes nothing.
TEST(WholeTokens, DoNotDependOnWhatCameBefore) {
  const std::vector<std::string> words{"abc", "ab", "bc", "aab", "aaaa", "aaa", "abcabc"};
  std::vector<Pieces> alone;
  for (const std::string& word : words) {
    const Tokenizer fresh(small_spec());
    alone.push_back(pieces_of(fresh, fresh.encode(word, {})));
  }
  EXPECT_EQ(alone[2], (Pieces{"bc"}));
  const Tokenizer shared(small_spec());
  ThreadPool pool(4);
  std::vector<Pieces> together(words.size() * 50);
  pool.run(static_cast<std::int64_t>(together.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    together[at] = pieces_of(shared, shared.encode(words[at % words.size()], {}));
  });
  for (std::size_t i = 0; i < together.size(); ++i) EXPECT_EQ(together[i], alone[i % words.size()]) << i;
}

TEST(Specials, AreFoundOnlyWhollyInsideARange) {
  const Tokenizer tokenizer(small_spec());
  const std::string text = "<|end|><|end|><|end|>";
  const std::int32_t end = *tokenizer.find("<|end|>");
  const auto count = [&](std::vector<TextRange> ranges) {
    int specials = 0;
    for (const Token& token : tokenizer.encode(text, ranges)) {
      if (token.id != end) continue;
      ++specials;
      EXPECT_EQ(token.end - token.begin, 7U);
    }
    return specials;
  };
  EXPECT_EQ(count({}), 0);
  EXPECT_EQ(count({{0, 21}}), 3);
  EXPECT_EQ(count({{1, 20}}), 1);
  EXPECT_EQ(count({{7, 14}}), 1);
  EXPECT_EQ(count({{0, 6}, {7, 13}}), 0);
  EXPECT_EQ(count({{0, 7}, {14, 21}}), 2);
  EXPECT_EQ(count({{0, 10}, {10, 21}}), 2);  // the middle one lies across two ranges
  EXPECT_EQ(count({{14, 500}}), 1);
}

TEST(UserDefined, AreFoundAnywhere) {
  const Tokenizer tokenizer(small_spec());
  EXPECT_EQ(pieces_of(tokenizer, tokenizer.encode_plain("x<tool>abc")), (Pieces{"x", "<tool>", "abc"}));
  EXPECT_FALSE(tokenizer.is_special(*tokenizer.find("<tool>")));
}

TEST(UserDefined, RulesAreKept) {
  TokenizerSpec spec = small_spec();
  const auto id = static_cast<std::int32_t>(spec.tokens.size()) - 1;
  spec.match_rules = {{.id = id, .strip_left = true, .strip_right = true, .single_word = true}};
  const Tokenizer tokenizer(std::move(spec));
  const auto tokens = tokenizer.encode_plain("a \t<tool>\xE3\x80\x80 b");
  EXPECT_EQ(pieces_of(tokenizer, tokens), (Pieces{"a", "<tool>", "b"}));
  EXPECT_EQ(tokens[1].begin, 1U);
  EXPECT_EQ(tokens[1].end, 13U);
  for (const char* inside : {"a<tool>", "<tool>b", "_<tool>", "\xC3\xA9<tool>"}) {
    const auto pieces = pieces_of(tokenizer, tokenizer.encode_plain(inside));
    EXPECT_EQ(std::count(pieces.begin(), pieces.end(), "<tool>"), 0) << inside;
  }
  const auto broken = pieces_of(tokenizer, tokenizer.encode_plain("\xE3\x80<tool>\x80"));
  EXPECT_EQ(std::count(broken.begin(), broken.end(), "<tool>"), 1);
}

TEST(InvalidText, EachMaximalPartBecomesAReplacement) {
  const Tokenizer tokenizer(small_spec());
  const auto check = [&](const std::string& text, const std::string& read, std::vector<std::size_t> ends) {
    const auto tokens = tokenizer.encode_plain(text);
    std::vector<std::int32_t> ids;
    std::vector<std::size_t> found;
    for (const Token& token : tokens) {
      ids.push_back(token.id);
      if (found.empty() || found.back() != token.end) found.push_back(token.end);
    }
    EXPECT_EQ(tokenizer.decode(ids), read);
    EXPECT_EQ(found, ends) << text;
  };
  check("x\xFFy", "x\xEF\xBF\xBDy", {1, 2, 3});
  check("\xE4\xB8", "\xEF\xBF\xBD", {2});                                    // cut character: one part
  check("\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", {1, 2, 3});  // a surrogate: three
  check(
      "\xF0\x9F\x98"
      "abc",
      "\xEF\xBF\xBD"
      "abc",
      {3, 6});
  check("\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD", {1, 2});
}

TEST(Offsets, PointThroughNormalisation) {
  TokenizerSpec spec = small_spec();
  spec.normalisers = {{NormaliserKind::kNfc, {}, {}}};
  const Tokenizer tokenizer(std::move(spec));
  // e + acute (3 bytes) becomes one character of two bytes; what is around keeps its place.
  const auto tokens = tokenizer.encode_plain("abe\xCC\x81 abc");
  ASSERT_EQ(tokens.size(), 5U);
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{tokens[1].id, tokens[2].id}), "\xC3\xA9");
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
    EXPECT_EQ(tokens[i].begin, 2U);
    EXPECT_EQ(tokens[i].end, 5U);
  }
  EXPECT_EQ(tokens[4].begin, 6U);
  EXPECT_EQ(tokens[4].end, 9U);
}

TEST(Offsets, APrefixStandsForTheByteBehindIt) {
  TokenizerSpec spec = small_spec();
  spec.preparations = {{NormaliserKind::kPrefix, {}, " "}};
  const Tokenizer tokenizer(std::move(spec));
  const auto tokens = tokenizer.encode_plain("<tool>\xC3\xA9");
  ASSERT_EQ(tokens.size(), 4U);  // the token, the space, two bytes
  EXPECT_EQ(tokenizer.token_bytes(tokens[1].id), " ");
  EXPECT_EQ(tokens[1].begin, 6U);
  EXPECT_EQ(tokens[1].end, 7U);
  EXPECT_EQ(tokens[2].begin, 6U);
  EXPECT_EQ(tokens[2].end, 7U);
  EXPECT_EQ(tokenizer.encode_plain(" abc").size(), 2U);
  EXPECT_TRUE(tokenizer.encode_plain("").empty());
}

TEST(Splits, AnEmptyMatchCuts) {
  TokenizerSpec spec = small_spec();
  spec.splits = {{"(?=b)"}};
  const Tokenizer tokenizer(std::move(spec));
  EXPECT_EQ(pieces_of(tokenizer, tokenizer.encode_plain("abcab")), (Pieces{"a", "bc", "a", "b"}));
}

// Merging as the definition says it: again and again the best pair, leftmost first.
std::vector<std::int32_t> merge_plainly(const TokenizerSpec& spec, const std::string& text) {
  std::vector<std::string> parts;
  for (const char c : text) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best = spec.merges.size();
    std::size_t place = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (spec.merges[rank] == std::pair(parts[i], parts[i + 1])) {
          best = rank;
          place = i;
        }
      }
    }
    if (best == spec.merges.size()) break;
    parts[place] += parts[place + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
  std::vector<std::int32_t> ids;
  for (const std::string& part : parts) {
    ids.push_back(
        static_cast<std::int32_t>(std::find(spec.tokens.begin(), spec.tokens.end(), part) - spec.tokens.begin()));
  }
  return ids;
}

TEST(Merging, ShortAndLongPiecesFollowTheDefinition) {
  TokenizerSpec spec = small_spec();
  spec.splits.clear();
  const Tokenizer tokenizer(spec);
  RandomStream random(11, RandomPurpose::kTest);
  for (const std::size_t length : {1U, 2U, 3U, 7U, 30U, 63U, 64U, 65U, 66U, 200U, 700U}) {
    for (int round = 0; round < 20; ++round) {
      std::string text;
      while (text.size() < length) text += "aabc"[random.next_below(4)];
      std::vector<std::int32_t> ids;
      for (const Token& token : tokenizer.encode_plain(text)) ids.push_back(token.id);
      EXPECT_EQ(ids, merge_plainly(spec, text)) << text;
    }
  }
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(const std::function<void(TokenizerSpec&)>& change, const std::string& message) {
  TokenizerSpec spec = small_spec();
  change(spec);
  const std::string error = error_of([&] { Tokenizer{spec}; });
  EXPECT_NE(error.find(message), std::string::npos) << error;
}

TEST(BadSpec, IsRefusedWithAReason) {
  expect_error([](auto& spec) { spec.tokens[7] = spec.tokens[3]; }, "small: token 'ă' appears twice (ids 3 and 7)");
  expect_error([](auto& spec) { spec.merges.emplace_back("x", "yz"); },
               "small: merge 6 ('x' 'yz') names a token the vocabulary does not have: 'yz'");
  expect_error([](auto& spec) { spec.merges.emplace_back("x", "y"); }, "vocabulary does not have: 'xy'");
  expect_error([](auto& spec) { spec.merges.clear(); }, "small: the tokenizer has no merges");
  expect_error([](auto& spec) { spec.tokens.clear(); }, "small: the vocabulary is empty");
  expect_error([](auto& spec) { spec.eos = 999; }, "small: eos token id 999 is outside the vocabulary of 263");
  expect_error([](auto& spec) { spec.match_rules = {{.id = -2}}; }, "added token id -2 is outside");
  expect_error([](auto& spec) { spec.splits = {{"a(b"}}; }, "pre-tokenizer pattern 'a(b': at character 3");
  expect_error([](auto& spec) { spec.splits = {{"[a&&b]"}}; }, "'&&' in a class");
  expect_error([](auto& spec) { spec.splits = {{R"(\p{N}{1,3}+)"}}; }, "'+' behind a counted repetition");
  expect_error(
      [](auto& spec) {
        spec.alphabet = Alphabet::kCharacters;
        spec.merges.clear();
        spec.scores = {1.0F};
      },
      "small: 1 scores for 263 tokens");
  expect_error(
      [](auto& spec) {
        spec.alphabet = Alphabet::kCharacters;
        spec.kinds[5] = TokenKind::kByte;
      },
      "byte token 5 is 'ą'; expected <0x00> to <0xFF>");
}

void expect_json_error(const std::string& text, const std::string& message) {
  const std::string error =
      error_of([&] { Tokenizer{spec_from_tokenizer_json(parse_json(text, "t.json"), nullptr, "t.json")}; });
  EXPECT_NE(error.find(message), std::string::npos) << error;
}

TEST(BadJson, IsRefusedWithAReason) {
  expect_json_error("{}", "model");
  expect_json_error("[]", "model");
  expect_json_error(R"({"model":{"type":"Unigram","vocab":[]}})", "t.json: the vocabulary is empty");
  expect_json_error(R"({"model":{"type":"Odd","vocab":[]}})", "t.json: model type 'Odd'");
  expect_json_error(R"({"model":{"type":"BPE","vocab":[],"merges":[]}})", "array");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":"0"},"merges":[]}})", "string");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0}}})", "merges");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})", "t.json: the tokenizer has no merges");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})", "have the same id 0");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":16000000},"merges":[]}})", "token 'a' has id 16000000");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})", "token 'a' has id -1");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["ab"]}})", "merge 'ab' has no space");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}})", "a merge needs two tokens, got 1");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[1]}})", "integer");
  expect_json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})", "does not have: 'b'");
  const std::string model = R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)";
  expect_json_error(model + R"("normalizer":{"type":"Odd"}})", "t.json: normalizer 'Odd'");
  expect_json_error(model + R"("pre_tokenizer":{"type":"Odd"}})", "t.json: pre_tokenizer 'Odd'");
  expect_json_error(model + R"("pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Odd"}})",
                    "t.json: split behavior 'Odd'");
  expect_json_error(model + R"("decoder":{"type":"WordPiece"}})", "t.json: decoder 'WordPiece'");
  expect_json_error(model + R"("added_tokens":[{"id":3}]})", "content");
  expect_json_error(model + R"("added_tokens":{"id":3}})", "object");
  std::string deep = R"({"type":"NFC"})";
  for (int i = 0; i < 20; ++i) deep = R"({"type":"Sequence","normalizers":[)" + deep + "]}";
  expect_json_error(model + R"("normalizer":)" + deep + "}", "nested deeper than 16");
  EXPECT_EQ(error_of([&] {
              const Value config = parse_json(R"({"added_tokens_decoder":{"x":{"content":"<x>"}}})", "c");
              spec_from_tokenizer_json(parse_json(model + "\"decoder\":null}", "t"), &config, "t.json");
            }),
            "t.json: added_tokens_decoder: 'x' is no token id");
}

TEST(Unknown, SymbolsBecomeTheUnknownTokenOrVanish) {
  const std::string vocabulary = R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<unk>":3},"merges":["a b"])";
  const auto ids = [&](const std::string& more, const std::string& text) {
    const Tokenizer tokenizer(spec_from_tokenizer_json(parse_json(vocabulary + more + "}}", "t"), nullptr, "t"));
    std::vector<std::int32_t> result;
    for (const Token& token : tokenizer.encode_plain(text)) result.push_back(token.id);
    return result;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(ids("", "aéßb"), (Ids{2}));
  EXPECT_EQ(ids(R"(,"unk_token":"<unk>")", "aéßb"), (Ids{0, 3, 3, 1}));
  EXPECT_EQ(ids(R"(,"unk_token":"<unk>","fuse_unk":true)", "aéßbé"), (Ids{0, 3, 1, 3}));
}

}  // namespace
}  // namespace instruct::tokenizers
