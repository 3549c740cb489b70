// JSON texts that fit a schema, byte by byte: a pushdown automaton with a stack of bounded depth.
//
// The form is the one training uses: one line, no space but at most one behind ',' and ':', no needless escapes needed.
// Properties may come in any order, each once. Alternatives (anyOf, several types) are told apart by their first byte,
// which the schema compiler makes sure of. Names and fixed values (enum, true, null) are followed in byte tries.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "instructions/json_schema.h"
#include "instructions/number_automaton.h"

namespace instruct::instructions {

class JsonAutomaton {
 public:
  static constexpr std::size_t kMaxDepth = 32;   // objects and arrays inside each other
  static constexpr int kMaxFreeProperties = 64;  // of an object with additionalProperties
  static constexpr std::int64_t kMaxFreeName = JsonSchema::kMaxNameCharacters;  // characters of such a name

  enum class Mode : std::uint8_t {
    kValue,
    kFirstItem,
    kString,
    kFirstName,
    kName,
    kNextName,
    kColon,
    kFixed,
    kNumber,
    kAfter
  };

  struct Frame {
    std::uint64_t used;  // object: properties given; array: fixed items given
    std::int64_t count;  // array: items; object: free properties
    std::uint32_t node;
  };
  // Characters of a string: where in an escape or a multi-byte character.
  struct Lexer {
    std::uint8_t escape = 0;               // 0: none, 1: behind the backslash, 2-5: hexadecimal digits to come
    std::uint8_t missing = 0;              // bytes until the character is whole
    std::uint8_t low = 0x80, high = 0xBF;  // range of the next of them
    bool surrogate = false;                // the escape starts with D: the next digit must be below 8
    std::int64_t characters = 0;
  };
  // Open objects and arrays. Walks copy states millions of times, so only the frames in use are copied.
  class Stack {
   public:
    Stack() = default;
    Stack(const Stack& other) : depth_(other.depth_) { std::copy_n(other.frames_.begin(), depth_, frames_.begin()); }
    Stack& operator=(const Stack& other) {
      depth_ = other.depth_;
      std::copy_n(other.frames_.begin(), depth_, frames_.begin());
      return *this;
    }
    ~Stack() = default;
    std::size_t depth() const { return depth_; }
    const Frame& top() const { return frames_[depth_ - 1]; }
    Frame& top() { return frames_[depth_ - 1]; }
    void push(const Frame& frame) { frames_[depth_++] = frame; }
    void pop() { --depth_; }

   private:
    std::size_t depth_ = 0;
    std::array<Frame, kMaxDepth> frames_;
  };
  struct State {
    Mode mode = Mode::kValue;
    bool space = false;      // one space may come
    std::uint32_t node = 0;  // of the value that is due or being read
    std::int32_t trie = -1;  // place in a trie of names or fixed values; -1: outside (a free name)
    Lexer lexer;
    NumberAutomaton::State number;
    Stack frames;
  };

  // Raises InvalidArgument for a number range without numbers in it.
  explicit JsonAutomaton(const JsonSchema& schema);

  State start() const { return {}; }
  bool step(State& state, std::uint8_t byte) const;
  bool accepts(const State& state) const { return state.frames.depth() == 0 && is_complete(state); }
  std::int64_t plain_room(const State& state) const;

 private:
  // Node of a byte trie. `under` has a bit for every entry below it (entries beyond 64 share the last bit).
  struct TrieNode {
    std::vector<std::pair<std::uint8_t, std::int32_t>> children;
    std::uint64_t under = 0;
    std::int32_t entry = -1;  // the entry that ends here
  };

  std::uint32_t add_any();
  void replace_any();
  std::int32_t build_trie(const std::vector<std::string>& entries);
  std::int32_t child(std::int32_t trie, std::uint8_t byte) const;

  bool start_value(State& state, std::uint8_t byte) const;
  bool open(State& state, Mode mode) const;
  bool close(State& state, std::uint8_t byte) const;
  bool step_string(State& state, std::uint8_t byte) const;
  bool step_name(State& state, std::uint8_t byte) const;
  bool end_name(State& state) const;
  bool step_fixed(State& state, std::uint8_t byte) const;
  bool step_number(State& state, std::uint8_t byte) const;
  bool step_after(State& state, std::uint8_t byte) const;
  bool is_complete(const State& state) const;
  void finish_item(State& state) const;
  bool must_differ(const State& state) const;
  bool tracked(const SchemaNode& list) const;
  bool may_add(const Frame& frame) const;
  bool required_given(const Frame& frame) const;
  std::uint64_t open_names(const Frame& frame) const { return ~frame.used; }
  static const Frame& top(const State& state) { return state.frames.top(); }
  static bool lex(Lexer& lexer, std::uint8_t byte, std::int64_t limit);
  static bool between_characters(const Lexer& lexer) { return lexer.escape == 0 && lexer.missing == 0; }

  std::vector<SchemaNode> nodes_;
  std::vector<std::int32_t> tries_;      // by node: names of an object, fixed values; -1: none
  std::vector<std::int32_t> numbers_;    // by node: index into automata_; -1: no number
  std::vector<std::uint64_t> required_;  // by node: bits of required properties
  std::vector<NumberAutomaton> automata_;
  std::vector<TrieNode> trie_;
};

}  // namespace instruct::instructions
