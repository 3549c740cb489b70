// The files of folders without tokenizer.json. The first byte says which: a SentencePiece model (for one of three
// classes, or for Marian), vocab.txt, or merges over a small vocabulary. Whatever they say, tokens lie in the text and
// they decode.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "tokenizers/tokenizer.h"

namespace {

using instruct::Value;
using instruct::tokenizers::EncodedInput;
using instruct::tokenizers::Tokenizer;
using instruct::tokenizers::TokenizerSpec;

TokenizerSpec spec_of(std::uint8_t kind, std::string_view bytes) {
  constexpr const char* kClasses[] = {"", "T5Tokenizer", "XLMRobertaTokenizer"};
  if (kind % 6 < 3) {
    const Value config = Value::object({{"tokenizer_class", kClasses[kind % 6]}});
    return instruct::tokenizers::spec_from_sentence_piece(bytes, config, "fuzz");
  }
  if (kind % 6 == 3) return instruct::tokenizers::spec_from_vocab_txt(bytes, Value::object(), "fuzz");
  if (kind % 6 == 5) {
    const Value pieces = Value::object({{"</s>", 0},
                                        {"<unk>", 1},
                                        {"\xE2\x96\x81"
                                         "a",
                                         2},
                                        {"b", 3},
                                        {">>de<<", 4},
                                        {"<pad>", 5}});
    return instruct::tokenizers::spec_from_marian(bytes, pieces, Value::object(), "fuzz");
  }
  const Value vocabulary = Value::object({{"a", 0}, {"b", 1}, {"ab", 2}, {"<s>", 3}, {"</s>", 4}, {"<unk>", 5}});
  const Value config = Value::object({{"tokenizer_class", "RobertaTokenizer"}});
  return instruct::tokenizers::spec_from_merges(vocabulary, bytes, config, "fuzz");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const Tokenizer tokenizer(spec_of(data[0], bytes));
    const std::string text =
        "ab c <s> \xC3\xA9"
        "e\xCC\x81 \xE4\xB8\xAD\xEF\xBC\xA1\r\n\xFF " +
        std::string(bytes.substr(0, 64));
    const auto tokens = tokenizer.encode_plain(text);
    const EncodedInput input = tokenizer.frame(tokens, tokens);
    if (input.tokens.size() != 2 * tokens.size() + tokenizer.frame_size(2)) std::abort();
    std::vector<std::int32_t> ids;
    for (const auto& token : input.tokens) {
      if (token.begin > token.end || token.end > text.size()) std::abort();
      if (token.id < 0 || token.id >= tokenizer.vocabulary_size()) std::abort();
      ids.push_back(token.id);
    }
    tokenizer.decode(ids);
    instruct::tokenizers::tokenizer_json_of(tokenizer.spec());
  } catch (const instruct::Error&) {
  }
  return 0;
}
