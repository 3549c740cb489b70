// Tokenizers of folders and GGUF files, against those the goldens of src/tokenizers hold to the official library.
#include "models/tokenizer_files.h"

#include <gmock/gmock.h>

#include "models/export_parts.h"
#include "models/test_support.h"
#include "tokenizers/sentence_piece.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using tokenizers::Token;
using tokenizers::Tokenizer;

std::string golden_bytes(const std::string& name) {
  return read_file(fs::path(INSTRUCT_GOLDENS) / "tokenizers" / name, 1 << 24);
}
Value golden(const std::string& name) {
  return parse_json(golden_bytes(name), name);
}

class TokenizerFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("instruct-tokenizers-{}", ::getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string message() const {
    try {
      open_tokenizer(folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  fs::path folder_;
};

std::vector<std::int64_t> ids_of(const std::vector<Token>& tokens) {
  std::vector<std::int64_t> ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

std::vector<std::string> lines() {
  std::vector<std::string> result;
  const Value all = golden("lines.json");
  for (const Value& line : all.as_array()) result.push_back(line.as_string());
  return result;
}

TEST_F(TokenizerFiles, AFolderMayHoldOnlyASentencePieceModel) {
  write_file_atomic(folder_ / "spiece.model", golden_bytes("t5.model"));
  write_file_atomic(folder_ / "tokenizer_config.json", R"({"tokenizer_class": "T5Tokenizer"})");
  const Tokenizer tokenizer = open_tokenizer(folder_);
  const Value expected = golden("models.json").at("T5Tokenizer");
  const auto texts = lines();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<std::int64_t> official;
    for (const Value& id : expected.as_array()[i].as_array()) official.push_back(id.as_integer());
    EXPECT_EQ(ids_of(tokenizer.frame(tokenizer.encode_with_specials(texts[i])).tokens), official) << texts[i];
  }
}

TEST_F(TokenizerFiles, SpecialTokensOfOlderFoldersStaySpecial) {
  write_file_atomic(folder_ / "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n");
  write_file_atomic(folder_ / "added_tokens.json", R"({"[X]": 7, "[Y]": 8})");
  write_file_atomic(folder_ / "special_tokens_map.json", R"({"cls_token": "[X]"})");
  const Tokenizer tokenizer = open_tokenizer(folder_);
  EXPECT_TRUE(tokenizer.is_special(7));
  EXPECT_FALSE(tokenizer.is_special(8));
  EXPECT_EQ(ids_of(tokenizer.encode_input("ab [Y]").tokens), (std::vector<std::int64_t>{7, 5, 6, 8, 3}));
}

TEST_F(TokenizerFiles, WithoutAnyItIsSaidWhichWouldDo) {
  EXPECT_THAT(message(), HasSubstr("no tokenizer: expected tokenizer.json, or a SentencePiece model"));
  write_file_atomic(folder_ / "vocab.json", "{}");
  EXPECT_THAT(message(), HasSubstr("vocab.json with merges.txt"));
  write_file_atomic(folder_ / "merges.txt", "");
  EXPECT_THAT(message(), HasSubstr("tokenizer_class ''"));
}

// Without the tokens that users added, whose rules GGUF has no words for.
Value without_user_tokens(Value json) {
  Value added = Value::array();
  for (const Value& token : json.at("added_tokens").as_array()) {
    if (token.at("special").as_bool()) added.push(token);
  }
  json.set("added_tokens", added);
  return json;
}

// As llama.cpp's converter spells it: "▁" before the first part of a word, nothing before the others.
TEST_F(TokenizerFiles, GgufKeepsWordPieceWithoutItsPrefix) {
  const Value json = without_user_tokens(golden("bert.json"));
  const Value& vocabulary = json.at("model").at("vocab");
  std::vector<std::string> tokens(vocabulary.size());
  std::vector<std::int32_t> types(tokens.size(), 1);
  for (const auto& [token, id] : vocabulary.as_object()) {
    const auto i = static_cast<std::size_t>(id.as_integer());
    const bool special = token.starts_with('[') && token.ends_with(']') && token.size() > 2;
    tokens[i] = special ? token : token.starts_with("##") ? token.substr(2) : "\xE2\x96\x81" + token;
    if (special) types[i] = token == "[UNK]" ? 2 : 3;
  }
  formats::GgufWriter writer;
  writer.set("general.architecture", std::string("bert"));
  writer.set("tokenizer.ggml.model", std::string("bert"));
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.token_type", types);
  writer.set("tokenizer.ggml.cls_token_id", std::uint32_t{2});
  writer.set("tokenizer.ggml.seperator_token_id", std::uint32_t{3});
  writer.write(folder_ / "bert.gguf");
  const Tokenizer official(tokenizers::spec_from_tokenizer_json(json, nullptr, "bert"));
  const Tokenizer tokenizer = open_tokenizer(folder_ / "bert.gguf");
  for (const std::string& text : lines()) {
    EXPECT_EQ(ids_of(tokenizer.encode_input(text, "b").tokens), ids_of(official.encode_input(text, "b").tokens))
        << text;
  }
}

TEST_F(TokenizerFiles, WordPieceGoesToGgufAndBack) {
  const auto written = [&](const char* name) {
    Package package;
    package.tokenizer = std::make_unique<Tokenizer>(
        tokenizers::spec_from_tokenizer_json(without_user_tokens(golden(name)), nullptr, name));
    package.config.vocabulary = package.tokenizer->vocabulary_size();
    formats::GgufWriter writer;
    writer.set("general.architecture", std::string("bert"));
    set_tokenizer(writer, package);
    writer.write(folder_ / "bert.gguf");
    return std::move(package.tokenizer);
  };
  const auto official = written("bert.json");
  const Tokenizer tokenizer = open_tokenizer(folder_ / "bert.gguf");
  EXPECT_EQ(tokenizer.mask(), official->mask());
  for (const std::string& text : lines()) {
    EXPECT_EQ(ids_of(tokenizer.encode_input(text, "b").tokens), ids_of(official->encode_input(text, "b").tokens))
        << text;
  }
  EXPECT_THAT(message_of([&] { written("bert-cased.json"); }),
              HasSubstr("bert-cased.json: llama.cpp lowers all letters and takes off accents before WordPiece"));
}

TEST_F(TokenizerFiles, GgufKeepsUnigramWithItsCharsmap) {
  const auto model = tokenizers::read_sentence_piece(golden_bytes("unigram.model"), "unigram.model");
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (const auto& piece : model.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(static_cast<std::int32_t>(piece.kind));
  }
  std::vector<std::int32_t> charsmap;
  for (const char byte : model.charsmap) charsmap.push_back(static_cast<unsigned char>(byte));
  formats::GgufWriter writer;
  writer.set("general.architecture", std::string("t5"));
  writer.set("tokenizer.ggml.model", std::string("t5"));
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.scores", scores);
  writer.set("tokenizer.ggml.token_type", types);
  writer.set("tokenizer.ggml.precompiled_charsmap", charsmap);
  writer.set("tokenizer.ggml.remove_extra_whitespaces", true);
  writer.set("tokenizer.ggml.eos_token_id", std::uint32_t{2});
  writer.write(folder_ / "t5.gguf");
  const Tokenizer tokenizer = open_tokenizer(folder_ / "t5.gguf");
  const Tokenizer official(
      tokenizers::spec_from_sentence_piece(golden_bytes("unigram.model"), Value::object(), "unigram.model"));
  std::size_t same = 0;
  const auto texts = lines();
  for (const std::string& text : texts)
    same += tokenizer.encode_plain(text).size() == official.encode_plain(text).size();
  EXPECT_GE(same + 2, texts.size());  // ties are decided in f64 there
  EXPECT_EQ(tokenizer.encode_input("a").tokens.back().id, 2);
}

// Written from a folder, and from there once more.
TEST_F(TokenizerFiles, UnigramGoesToGgufAndBack) {
  const auto written = [&](Package& package) {
    formats::GgufWriter writer;
    writer.set("general.architecture", std::string("t5"));
    set_tokenizer(writer, package);
    writer.write(folder_ / "t5.gguf");
    return formats::GgufFile::open(folder_ / "t5.gguf");
  };
  for (const char* kind : {"", "T5Tokenizer"}) {
    Package package;
    tokenizers::TokenizerSpec spec = tokenizers::spec_from_sentence_piece(
        golden_bytes("t5.model"), Value::object({{"tokenizer_class", kind}}), "t5.model");
    spec.keeps_single = false;  // ties are decided in f64 there
    package.tokenizer = std::make_unique<Tokenizer>(std::move(spec));
    package.config.vocabulary = package.tokenizer->vocabulary_size() + 5;
    package.gguf = written(package);
    const Tokenizer once = open_tokenizer(folder_ / "t5.gguf");
    written(package);
    const Tokenizer twice = open_tokenizer(folder_ / "t5.gguf");
    EXPECT_EQ(once.vocabulary_size(), package.config.vocabulary);
    EXPECT_FALSE(once.spec().normalisers.empty());
    for (const std::string& text : lines()) {
      const auto expected = ids_of(package.tokenizer->encode_input(text).tokens);
      EXPECT_EQ(ids_of(twice.encode_input(text).tokens), ids_of(once.encode_input(text).tokens)) << text;
      // By words the charsmap is applied as the official library does, cluster by cluster, and a mark is not doubled.
      const bool plain = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz .,") == std::string::npos;
      if (*kind == 0 || plain) {
        EXPECT_EQ(ids_of(once.encode_input(text).tokens), expected) << text;
      }
    }
  }
  Package bytes;
  bytes.tokenizer =
      std::make_unique<Tokenizer>(tokenizers::spec_from_tokenizer_json(golden("unigram-bytes.json"), nullptr, "bytes"));
  EXPECT_THAT(message_of([&] { written(bytes); }),
              HasSubstr("bytes: llama.cpp has no words for how this tokenizer prepares text"));
}

}  // namespace
}  // namespace instruct::models
