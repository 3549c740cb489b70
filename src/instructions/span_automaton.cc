#include "instructions/span_automaton.h"

#include "base/error.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

bool is_space(std::uint8_t byte) {
  return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

}  // namespace

SpanAutomaton::SpanAutomaton(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    raise(ErrorCategory::kInvalidArgument, "a span can be taken from a text of at most {} bytes, this one has {}",
          kMaxTextBytes, text.size());
  }
  if (trim(text).empty())
    raise(ErrorCategory::kInvalidArgument, "a span is asked for, and the text to take it from is empty");
  if (const auto bad = find_invalid_utf8(text))
    raise(ErrorCategory::kBadData, "the text to take a span from: invalid UTF-8 at byte {}", *bad);
  nodes_.reserve(2 * text.size());
  edges_.reserve(3 * text.size());
  nodes_.emplace_back();
  for (const char c : text) append(static_cast<std::uint8_t>(c));
}

std::int32_t SpanAutomaton::find_edge(std::int32_t node, std::uint8_t byte) const {
  std::int32_t edge = nodes_[static_cast<std::size_t>(node)].first_edge;
  while (edge >= 0 && edges_[static_cast<std::size_t>(edge)].byte != byte)
    edge = edges_[static_cast<std::size_t>(edge)].next;
  return edge;
}

void SpanAutomaton::add_edge(std::int32_t node, std::uint8_t byte, std::int32_t target) {
  Node& from = nodes_[static_cast<std::size_t>(node)];
  edges_.push_back({.target = target, .next = from.first_edge, .byte = byte});
  from.first_edge = static_cast<std::int32_t>(edges_.size()) - 1;
}

std::int32_t SpanAutomaton::copy_edges(std::int32_t node) {
  std::int32_t head = -1;
  for (std::int32_t edge = nodes_[static_cast<std::size_t>(node)].first_edge; edge >= 0;) {
    const Edge old = edges_[static_cast<std::size_t>(edge)];
    edges_.push_back({.target = old.target, .next = head, .byte = old.byte});
    head = static_cast<std::int32_t>(edges_.size()) - 1;
    edge = old.next;
  }
  return head;
}

// The class of `target` holds longer strings than those that end in this byte after `from`: part them.
std::int32_t SpanAutomaton::split(std::int32_t from, std::int32_t target, std::uint8_t byte) {
  const auto copy = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back({.link = nodes_[static_cast<std::size_t>(target)].link,
                    .length = nodes_[static_cast<std::size_t>(from)].length + 1});
  nodes_.back().first_edge = copy_edges(target);
  nodes_[static_cast<std::size_t>(target)].link = copy;
  for (std::int32_t node = from; node >= 0; node = nodes_[static_cast<std::size_t>(node)].link) {
    const std::int32_t edge = find_edge(node, byte);
    if (edge < 0 || edges_[static_cast<std::size_t>(edge)].target != target) break;
    edges_[static_cast<std::size_t>(edge)].target = copy;
  }
  return copy;
}

void SpanAutomaton::append(std::uint8_t byte) {
  const auto current = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back({.link = 0, .length = nodes_[static_cast<std::size_t>(last_)].length + 1});
  std::int32_t node = last_;
  last_ = current;
  while (node >= 0 && find_edge(node, byte) < 0) {
    add_edge(node, byte, current);
    node = nodes_[static_cast<std::size_t>(node)].link;
  }
  if (node < 0) return;
  const std::int32_t target = edges_[static_cast<std::size_t>(find_edge(node, byte))].target;
  const bool tight =
      nodes_[static_cast<std::size_t>(target)].length == nodes_[static_cast<std::size_t>(node)].length + 1;
  const std::int32_t link = tight ? target : split(node, target, byte);
  nodes_[static_cast<std::size_t>(current)].link = link;
}

bool SpanAutomaton::step(State& state, std::uint8_t byte) const {
  if (!state.started) {
    const bool inside_character = (byte & 0xC0U) == 0x80U;
    if (inside_character || is_space(byte)) return false;
    state.started = true;
  }
  const std::int32_t edge = find_edge(state.node, byte);
  if (edge < 0) return false;
  state.node = edges_[static_cast<std::size_t>(edge)].target;
  if (state.missing > 0)
    --state.missing;
  else
    state.missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : 0;
  return true;
}

}  // namespace instruct::instructions
