// Parts of a text: the suffix automaton (Blumer et al., "The smallest automaton recognizing the subwords of a text",
// 1985) accepts exactly the byte strings that occur in it. States: at most two per byte; built in one pass.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace instruct::instructions {

class SpanAutomaton {
 public:
  static constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;

  struct State {
    std::int32_t node = 0;
    std::uint8_t missing = 0;  // bytes until the character is whole
    bool started = false;
  };

  // Raises InvalidArgument for a text that is too long or all white space.
  explicit SpanAutomaton(std::string_view text);

  State start() const { return {}; }
  bool step(State& state, std::uint8_t byte) const;
  bool accepts(const State& state) const { return state.started && state.missing == 0; }
  std::int64_t plain_room(const State& state) const {
    static_cast<void>(state);
    return -1;
  }

 private:
  struct Node {
    std::int32_t link = -1;   // longest proper suffix in another class
    std::int32_t length = 0;  // longest string of the class
    std::int32_t first_edge = -1;
  };
  struct Edge {
    std::int32_t target = 0;
    std::int32_t next = -1;
    std::uint8_t byte = 0;
  };

  void append(std::uint8_t byte);
  std::int32_t split(std::int32_t from, std::int32_t target, std::uint8_t byte);
  std::int32_t find_edge(std::int32_t node, std::uint8_t byte) const;  // index into edges_, or -1
  void add_edge(std::int32_t node, std::uint8_t byte, std::int32_t target);
  std::int32_t copy_edges(std::int32_t node);

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  std::int32_t last_ = 0;
};

}  // namespace instruct::instructions
