// The vocabulary as constrained decoding sees it: token sets, and a trie of the tokens' bytes.
//
// The trie lies in an array in depth-first order, so that a walk is a single pass that skips whole subtrees where the
// automaton refuses a byte. Inside a JSON string nearly every token is allowed; tokens that are plain string characters
// are therefore listed once, and only the others are walked.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tokenizers/tokenizer.h"

namespace instruct::instructions {

// A set of token ids.
class TokenMask {
 public:
  explicit TokenMask(std::int64_t vocabulary_size) : words_((static_cast<std::size_t>(vocabulary_size) + 63) / 64) {}
  void clear() { words_.assign(words_.size(), 0); }
  void set(std::int32_t token) {
    words_[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (static_cast<unsigned>(token) % 64);
  }
  bool test(std::int32_t token) const {
    return token >= 0 && static_cast<std::size_t>(token) / 64 < words_.size() &&
           (words_[static_cast<std::size_t>(token) / 64] >> (static_cast<unsigned>(token) % 64) & 1) != 0;
  }
  void add(const TokenMask& other);
  std::int64_t count() const;
  // Sets the logits of tokens that are not in the set to minus infinity; those past the vocabulary too.
  void apply(std::span<float> logits) const;
  std::vector<std::int32_t> tokens() const;
  std::span<const std::uint64_t> words() const { return words_; }

 private:
  std::vector<std::uint64_t> words_;
};

// Tokens by their bytes, depth first.
class TokenTrie {
 public:
  struct Node {
    std::uint8_t byte = 0;
    std::uint16_t depth = 0;                        // from 1
    std::uint32_t next = 0;                         // node behind this one's subtree
    std::uint32_t first_token = 0, last_token = 0;  // [first, last) of tokens() end here
  };
  // `tokens` with their bytes; those without bytes are left out.
  explicit TokenTrie(std::vector<std::pair<std::string, std::int32_t>> tokens);
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::size_t depth() const { return depth_; }

 private:
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_;
  std::size_t depth_ = 0;
};

class TokenVocabulary {
 public:
  // Special tokens are in neither trie. The tokenizer must outlive this.
  explicit TokenVocabulary(const tokenizers::Tokenizer& tokenizer);

  const tokenizers::Tokenizer& tokenizer() const { return tokenizer_; }
  std::int64_t size() const { return tokenizer_.vocabulary_size(); }
  std::span<const std::int32_t> ends() const { return tokenizer_.end_of_generation(); }
  const TokenTrie& all() const { return all_; }
  // Tokens that are not plain characters of a JSON string: with a quote, backslash or control character in them, or
  // with a part of a character at either end.
  const TokenTrie& not_plain() const { return not_plain_; }
  // Plain tokens of at most `characters` characters.
  void add_plain(std::int64_t characters, TokenMask& mask) const;

 private:
  struct Plain {
    std::int32_t token = 0;
    std::int32_t characters = 0;
  };
  static std::vector<std::pair<std::string, std::int32_t>> entries(const tokenizers::Tokenizer& tokenizer);

  const tokenizers::Tokenizer& tokenizer_;
  TokenTrie all_;
  TokenTrie not_plain_;
  std::vector<Plain> plain_;  // by number of characters
  TokenMask plain_mask_;
};

}  // namespace instruct::instructions
