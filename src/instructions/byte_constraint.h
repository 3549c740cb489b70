// A Constraint made of an automaton over bytes. Internal to this folder.
//
// An automaton has a State that is cheap to copy and
//   State start() const;
//   bool step(State& state, std::uint8_t byte) const;      // false: the byte cannot come here (state is then
//   undefined) bool accepts(const State& state) const;                // a whole output std::int64_t plain_room(const
//   State& state) const;     // -1, or: that many plain string characters may come
#pragma once

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "instructions/constraint.h"

namespace instruct::instructions {

template <typename Automaton>
class ByteConstraint : public Constraint {
 public:
  ByteConstraint(std::shared_ptr<const TokenVocabulary> vocabulary, std::shared_ptr<const Automaton> automaton)
      : vocabulary_(std::move(vocabulary)), automaton_(std::move(automaton)), state_(automaton_->start()) {}

  void allowed(TokenMask& mask) const override {
    mask.clear();
    if (ended_) return;
    const std::int64_t room = automaton_->plain_room(state_);
    if (room >= 0) vocabulary_->add_plain(room, mask);
    walk(room >= 0 ? vocabulary_->not_plain() : vocabulary_->all(), mask);
    if (automaton_->accepts(state_)) {
      for (const std::int32_t end : vocabulary_->ends()) mask.set(end);
    }
  }

  void advance(std::int32_t token) override {
    const tokenizers::Tokenizer& tokenizer = vocabulary_->tokenizer();
    const auto ends = vocabulary_->ends();
    if (!ended_ && std::find(ends.begin(), ends.end(), token) != ends.end() && automaton_->accepts(state_)) {
      ended_ = true;
      return;
    }
    auto next = state_;
    bool good = !ended_ && !tokenizer.is_special(token) && !tokenizer.token_bytes(token).empty();
    if (good) {
      for (const char c : tokenizer.token_bytes(token))
        good = good && automaton_->step(next, static_cast<std::uint8_t>(c));
    }
    if (!good) {
      raise(ErrorCategory::kInvalidArgument, "constrained output: token {} ('{}') cannot come here", token,
            tokenizer.token_bytes(token));
    }
    state_ = next;
  }

  bool may_end() const override { return ended_ || automaton_->accepts(state_); }

  // Greedy: closing marks first, then whatever the automaton takes.
  std::optional<std::string> completion() const override {
    constexpr std::size_t kLongest = 8192;
    std::string text;
    auto state = state_;
    while (!ended_ && !automaton_->accepts(state)) {
      if (text.size() >= kLongest || !complete_step(state, text)) return std::nullopt;
    }
    return text;
  }

  std::unique_ptr<Constraint> clone() const override { return std::make_unique<ByteConstraint>(*this); }

 private:
  using State = decltype(std::declval<const Automaton&>().start());

  void walk(const TokenTrie& trie, TokenMask& mask) const {
    const auto nodes = trie.nodes();
    std::vector<State> states(trie.depth() + 1, state_);
    for (std::size_t i = 0; i < nodes.size();) {
      const TokenTrie::Node& node = nodes[i];
      states[node.depth] = states[node.depth - 1U];
      if (!automaton_->step(states[node.depth], node.byte)) {
        i = node.next;
        continue;
      }
      for (std::uint32_t t = node.first_token; t < node.last_token; ++t) mask.set(trie.tokens()[t]);
      ++i;
    }
  }

  bool complete_step(State& state, std::string& text) const {
    constexpr std::string_view kFirst = "\"}]:0,";
    const auto take = [&](std::uint8_t byte) {
      State next = state;
      if (!automaton_->step(next, byte)) return false;
      state = next;
      text += static_cast<char>(byte);
      return true;
    };
    for (const char c : kFirst) {
      if (take(static_cast<std::uint8_t>(c))) return true;
    }
    for (int byte = '!'; byte < 256; ++byte) {
      if (take(static_cast<std::uint8_t>(byte))) return true;
    }
    for (int byte = 0; byte <= ' '; ++byte) {
      if (take(static_cast<std::uint8_t>(byte))) return true;
    }
    return false;
  }

  std::shared_ptr<const TokenVocabulary> vocabulary_;
  std::shared_ptr<const Automaton> automaton_;
  State state_;
  bool ended_ = false;
};

}  // namespace instruct::instructions
