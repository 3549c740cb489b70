// Tokenizers of folders that have no tokenizer.json.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "tokenizers/charsmap.h"
#include "tokenizers/sentence_piece.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

std::string golden_bytes(const std::string& name) {
  return read_file(std::filesystem::path(INSTRUCT_GOLDENS) / "tokenizers" / name);
}
Value golden(const std::string& name) {
  return parse_json(golden_bytes(name), name);
}

std::vector<std::int64_t> ids_of(const std::vector<Token>& tokens) {
  std::vector<std::int64_t> ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

Value config_of(const char* name) {
  return Value::object({{"tokenizer_class", name}});
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// The vocabulary of a tokenizer.json, one token a line in the order of ids.
std::string lines_of(const Value& vocabulary) {
  std::vector<std::string> tokens(vocabulary.size());
  for (const auto& [token, id] : vocabulary.as_object()) tokens.at(static_cast<std::size_t>(id.as_integer())) = token;
  std::string text;
  for (const std::string& token : tokens) text += token + "\n";
  return text;
}

// Both encode every line alike, a text and a pair.
void expect_same(const Tokenizer& a, const Tokenizer& b) {
  const Value lines = golden("lines.json");
  for (const Value& line : lines.as_array()) {
    const std::string& text = line.as_string();
    const EncodedInput x = a.frame(a.encode_with_specials(text), a.encode_with_specials("other"));
    const EncodedInput y = b.frame(b.encode_with_specials(text), b.encode_with_specials("other"));
    EXPECT_EQ(ids_of(x.tokens), ids_of(y.tokens)) << text;
    EXPECT_EQ(x.type_ids, y.type_ids);
  }
}

TEST(VocabTxt, IsWhatItsTokenizerJsonSays) {
  Value json = golden("bert.json");
  json.at("added_tokens");
  const std::string text = lines_of(json.at("model").at("vocab"));
  Value official = json;
  Value added = Value::array();
  for (const Value& token : json.at("added_tokens").as_array()) {
    if (token.at("special").as_bool()) added.push(token);
  }
  official.set("added_tokens", added);
  const Tokenizer from_json(spec_from_tokenizer_json(official, nullptr, "bert"));
  const Tokenizer from_text(spec_from_vocab_txt(text, Value::object(), "vocab.txt"));
  expect_same(from_json, from_text);
  const Tokenizer cased(spec_from_vocab_txt(text, Value::object({{"do_lower_case", false}}), "vocab.txt"));
  EXPECT_NE(ids_of(cased.encode_plain("The")), ids_of(from_text.encode_plain("The")));
}

TEST(Merges, AreWhatTheirTokenizerJsonSays) {
  for (const bool framed : {true, false}) {
    const Value json = golden(framed ? "roberta.json" : "gpt2.json");
    std::string merges = "#version: 0.2\n";
    for (const Value& merge : json.at("model").at("merges").as_array())
      merges += merge.as_array()[0].as_string() + " " + merge.as_array()[1].as_string() + "\n";
    Value config = config_of(framed ? "RobertaTokenizerFast" : "GPT2Tokenizer");
    if (framed) config.set("mask_token", Value::object({{"content", "<mask>"}, {"lstrip", true}}));
    const Tokenizer from_files(spec_from_merges(json.at("model").at("vocab"), merges, config, "vocab.json"));
    if (framed) {
      expect_same(Tokenizer(spec_from_tokenizer_json(json, nullptr, "json")), from_files);
    } else {
      EXPECT_EQ(ids_of(from_files.encode_with_specials("Hello<|endoftext|> world")),
                ids_of(Tokenizer(spec_from_tokenizer_json(json, nullptr, "json"))
                           .encode_with_specials("Hello<|endoftext|> world")));
    }
  }
}

void expect_official(const char* file, const char* name, bool by_class) {
  const Tokenizer tokenizer(
      spec_from_sentence_piece(golden_bytes(file), by_class ? config_of(name) : Value::object(), file));
  const Value lines = golden("lines.json");
  const Value expected = golden("models.json").at(name);
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (expected.as_array()[i].is_null()) continue;
    std::vector<std::int64_t> official;
    for (const Value& id : expected.as_array()[i].as_array()) official.push_back(id.as_integer());
    const std::string& text = lines.as_array()[i].as_string();
    const auto ours =
        by_class ? tokenizer.frame(tokenizer.encode_with_specials(text)).tokens : tokenizer.encode_plain(text);
    EXPECT_EQ(ids_of(ours), official) << name << " " << i << ": " << text;
    tokens += official.size();
  }
  EXPECT_GT(tokens, 5000U);
}

TEST(SentencePieceFile, IsReadAsSentencePieceDoes) {
  expect_official("unigram.model", "unigram", false);
  expect_official("bpe.model", "bpe", false);
}

// Its pieces are SentencePiece's own, with [CLS] and [SEP] around them.
TEST(SentencePieceFile, OfBigBirdHasAFrame) {
  const Value config = config_of("BigBirdTokenizer");
  const Tokenizer tokenizer(spec_from_sentence_piece(golden_bytes("bpe.model"), config, "bpe.model"));
  const Tokenizer plain(spec_from_sentence_piece(golden_bytes("bpe.model"), Value::object(), "bpe.model"));
  const auto id = [&](const char* text) { return ids_of(tokenizer.encode_with_specials(text)).at(0); };
  const std::int64_t cls = id("[CLS]"), sep = id("[SEP]");
  EXPECT_NE(cls, sep);
  EXPECT_EQ(ids_of(tokenizer.encode_with_specials("[MASK]")).size(), 1U);
  const Value lines = golden("lines.json");
  for (const Value& line : lines.as_array()) {
    std::vector<std::int64_t> expected = ids_of(plain.encode_plain(line.as_string()));
    expected.insert(expected.begin(), cls);
    expected.push_back(sep);
    EXPECT_EQ(ids_of(tokenizer.frame(tokenizer.encode_plain(line.as_string())).tokens), expected) << line.as_string();
  }
}

TEST(SentencePieceFile, IsReadAsTheClassDoes) {
  expect_official("t5.model", "T5Tokenizer", true);
  expect_official("unigram.model", "XLMRobertaTokenizer", true);
}

TEST(SentencePieceFile, DamagedBytesAreRefusedOrRead) {
  const std::string whole = golden_bytes("unigram.model");
  RandomStream random(3, RandomPurpose::kTest);
  std::size_t refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    if (round % 3 == 0) bytes.resize(random.next_below(bytes.size()));
    for (int i = 0; i < 1 + round % 8 && !bytes.empty(); ++i)
      bytes[random.next_below(bytes.size())] = static_cast<char>(random.next_below(256));
    try {
      const Tokenizer tokenizer(spec_from_sentence_piece(bytes, config_of("T5Tokenizer"), "damaged"));
      for (const Token& token : tokenizer.encode_plain("The ﬁrst e\xCC\x81 ｶﾞ \xFF line")) {
        ASSERT_LE(token.begin, token.end);
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 30U);
  EXPECT_LT(refused, 300U);
}

TEST(SentencePieceFile, BadOnesAreRefusedWithAReason) {
  const auto error = [](const std::string& bytes) { return error_of([&] { read_sentence_piece(bytes, "x.model"); }); };
  EXPECT_NE(error("").find("x.model: byte 0: no piece"), std::string::npos) << error("");
  EXPECT_NE(error("\x0A\x7F").find("byte 2: a field longer than what is left"), std::string::npos) << error("\x0A\x7F");
  EXPECT_NE(error("\x0B").find("a field of an unknown kind"), std::string::npos);
  EXPECT_NE(error("\xFF").find("a number is cut off"), std::string::npos);
  EXPECT_NE(error("hello world, this is text").find("x.model: byte"), std::string::npos);
  const std::string unigram = golden_bytes("bpe.model");
  EXPECT_NE(error_of([&] {
              spec_from_sentence_piece(unigram, config_of("T5Tokenizer"), "b.model");
            }).find("b.model: a bpe model; T5Tokenizer needs a unigram one"),
            std::string::npos);
}

// A table of one rule, "a" to "b", whose children are far away: distances with bit 9 count by 256.
TEST(Charsmaps, FarChildrenAreFound) {
  std::vector<std::uint32_t> units(1024, 0);
  units[0] = 1U << 10 | 1U << 9;                          // the root's children are 256 away
  units[256 ^ 'a'] = 2U << 10 | 1U << 9 | 1U << 8 | 'a';  // a value follows, 512 away
  units[256 ^ 'a' ^ 512] = 1U << 31;                      // the text at 0
  std::string bytes(4, '\0');
  bytes[1] = 0x10;  // 4,096 bytes
  for (const std::uint32_t unit : units) {
    for (unsigned shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(unit >> shift & 0xFF);
  }
  bytes += std::string("b\0", 2);
  const Charsmap charsmap(bytes, "made");
  AlignedText text("cab", 0);
  charsmap.apply(text);
  EXPECT_EQ(text.view(), "cbb");
  AlignedText longest("aca", 0);
  charsmap.apply_longest(longest);
  EXPECT_EQ(longest.view(), "bcb");
}

TEST(Charsmaps, DamagedOnesAreRefusedOrRead) {
  const SentencePieceModel model = read_sentence_piece(golden_bytes("unigram.model"), "unigram.model");
  ASSERT_FALSE(model.charsmap.empty());
  RandomStream random(4, RandomPurpose::kTest);
  const std::string line = "ﬁ½ ｶﾞ e\xCC\x81 \r\n\tABC ÄÖ 中文 😀 " + std::string(200, 'x');
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = model.charsmap;
    for (int i = 0; i < 1 + round % 40; ++i)
      bytes[random.next_below(bytes.size())] = static_cast<char>(random.next_below(256));
    if (round % 5 == 0) bytes.resize(random.next_below(bytes.size()));
    try {
      const Charsmap charsmap(bytes, "damaged");
      AlignedText text(line, 0);
      charsmap.apply(text);
      AlignedText longest(line, 0);
      charsmap.apply_longest(longest);
    } catch (const Error&) {
    }
  }
  EXPECT_NE(error_of([] { Charsmap("abc", "x"); }).find("x: precompiled charsmap of 3 bytes"), std::string::npos);
}

TEST(BadFiles, AreRefusedWithAReason) {
  const Value none = Value::object();
  EXPECT_EQ(error_of([&] { spec_from_vocab_txt("", none, "vocab.txt"); }), "vocab.txt: the vocabulary is empty");
  EXPECT_NE(error_of([&] { Tokenizer{spec_from_vocab_txt("a\nb\na\n", none, "vocab.txt")}; }).find("appears twice"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              spec_from_merges(Value::object({{"a", 0}}), "a b\n", config_of("CLIPTokenizer"), "v.json");
            }).find("v.json: tokenizer_class 'CLIPTokenizer'"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              Tokenizer{spec_from_merges(Value::object({{"a", 0}}), "a b\n", config_of("GPT2Tokenizer"), "v.json")};
            }).find("does not have: 'b'"),
            std::string::npos);
}

}  // namespace
}  // namespace instruct::tokenizers
