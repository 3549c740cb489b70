// A tokenizer.json and a line to encode, divided by the first zero byte. Whatever the file says, tokens lie in the text
// in order, and they decode.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "tokenizers/tokenizer.h"

namespace {

using instruct::tokenizers::Token;
using instruct::tokenizers::Tokenizer;

void check(const Tokenizer& tokenizer, const std::vector<Token>& tokens, std::string_view text) {
  std::vector<std::int32_t> ids;
  Token last;
  for (const Token& token : tokens) {
    if (token.begin > token.end || token.end > text.size()) std::abort();
    if (token.begin < last.begin || token.end < last.end) std::abort();
    if (token.id < 0 || token.id >= tokenizer.vocabulary_size()) std::abort();
    ids.push_back(token.id);
    last = token;
  }
  tokenizer.decode(ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = std::min(all.find('\0'), all.size());
  const std::string_view text = zero < all.size() ? all.substr(zero + 1) : std::string_view("abc <s> \xC3\xA9");
  try {
    const instruct::Value json = instruct::parse_json(all.substr(0, zero), "fuzz");
    const Tokenizer tokenizer(instruct::tokenizers::spec_from_tokenizer_json(json, nullptr, "fuzz"));
    const auto plain = tokenizer.encode_plain(text);
    check(tokenizer, plain, text);
    for (const Token& token : plain) {
      if (tokenizer.is_special(token.id) && token.id != tokenizer.spec().unknown) std::abort();
    }
    const auto special = tokenizer.encode_with_specials(text);
    check(tokenizer, special, text);
    const auto input = tokenizer.frame(special, plain);
    if (input.tokens.size() != input.type_ids.size() || input.tokens.size() != input.texts.size()) std::abort();
    for (const Token& token : input.tokens) {
      if (token.begin > token.end || token.end > text.size()) std::abort();
    }
    instruct::tokenizers::tokenizer_json_of(tokenizer.spec());
  } catch (const instruct::Error&) {
  }
  return 0;
}
