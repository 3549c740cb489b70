#include "instructions/json_automaton.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace instruct::instructions {
namespace {

// Entries past the 64th share a bit; only unique lists and objects look at the bits, and objects have at most 64.
std::uint64_t bit_of(std::size_t entry) {
  return std::uint64_t{1} << std::min<std::size_t>(entry, 63);
}

bool is_hex(std::uint8_t byte) {
  return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

}  // namespace

JsonAutomaton::JsonAutomaton(const JsonSchema& schema) : nodes_(schema.nodes()) {
  replace_any();
  tries_.assign(nodes_.size(), -1);
  numbers_.assign(nodes_.size(), -1);
  required_.assign(nodes_.size(), 0);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const SchemaNode& node = nodes_[i];
    std::vector<std::string> entries;
    if (node.kind == SchemaKind::kObject) {
      for (std::size_t p = 0; p < node.properties.size(); ++p) {
        entries.push_back(dump_json(Value(node.properties[p].name)).substr(1));  // the opening quote is read before
        if (node.properties[p].required) required_[i] |= bit_of(p);
      }
    }
    if (node.kind == SchemaKind::kEnum) {
      for (const Value& value : node.values) entries.push_back(dump_json(value));
    }
    if (node.kind == SchemaKind::kBoolean) entries = {"true", "false"};
    if (node.kind == SchemaKind::kNull) entries = {"null"};
    if (!entries.empty()) tries_[i] = build_trie(entries);
    if (node.kind == SchemaKind::kNumber) {
      numbers_[i] = static_cast<std::int32_t>(automata_.size());
      automata_.emplace_back(node.integer, node.minimum, node.maximum);
    }
  }
}

// "Anything" becomes a choice of the six kinds of values, whose members are anything again.
void JsonAutomaton::replace_any() {
  std::vector<std::size_t> anys;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].kind == SchemaKind::kAny) anys.push_back(i);
  }
  if (anys.empty()) return;
  const std::size_t any = anys.front();
  const std::size_t first = nodes_.size();
  nodes_.push_back({.kind = SchemaKind::kObject, .additional = any});
  nodes_.push_back({.kind = SchemaKind::kArray, .items = any});
  for (const SchemaKind kind : {SchemaKind::kString, SchemaKind::kNumber, SchemaKind::kBoolean, SchemaKind::kNull})
    nodes_.push_back({.kind = kind});
  for (const std::size_t i : anys) {
    nodes_[i].kind = SchemaKind::kAnyOf;
    for (std::size_t alternative = first; alternative < first + 6; ++alternative)
      nodes_[i].alternatives.push_back(alternative);
  }
}

std::int32_t JsonAutomaton::build_trie(const std::vector<std::string>& entries) {
  const auto root = static_cast<std::int32_t>(trie_.size());
  trie_.emplace_back();
  for (std::size_t entry = 0; entry < entries.size(); ++entry) {
    std::int32_t at = root;
    for (const char c : entries[entry]) {
      trie_[static_cast<std::size_t>(at)].under |= bit_of(entry);
      std::int32_t next = child(at, static_cast<std::uint8_t>(c));
      if (next < 0) {
        next = static_cast<std::int32_t>(trie_.size());
        trie_[static_cast<std::size_t>(at)].children.emplace_back(static_cast<std::uint8_t>(c), next);
        trie_.emplace_back();
      }
      at = next;
    }
    trie_[static_cast<std::size_t>(at)].under |= bit_of(entry);
    trie_[static_cast<std::size_t>(at)].entry = static_cast<std::int32_t>(entry);
  }
  return root;
}

std::int32_t JsonAutomaton::child(std::int32_t trie, std::uint8_t byte) const {
  if (trie < 0) return -1;
  for (const auto& [label, target] : trie_[static_cast<std::size_t>(trie)].children) {
    if (label == byte) return target;
  }
  return -1;
}

// One more byte of a string's inside; a character is counted at its first byte and refused past `limit`.
bool JsonAutomaton::lex(Lexer& lexer, std::uint8_t byte, std::int64_t limit) {
  if (lexer.missing > 0) {
    if (byte < lexer.low || byte > lexer.high) return false;
    lexer.low = 0x80;
    lexer.high = 0xBF;
    --lexer.missing;
    return true;
  }
  if (lexer.escape == 1) {
    constexpr std::string_view kSimple = "\"\\/bfnrt";
    if (byte == 'u')
      lexer.escape = 5;
    else if (kSimple.find(static_cast<char>(byte)) != std::string_view::npos)
      lexer.escape = 0;
    else
      return false;
    return true;
  }
  if (lexer.escape > 1) {
    // D8 to DF would be half a surrogate pair.
    if (!is_hex(byte) || (lexer.escape == 4 && lexer.surrogate && byte >= '8')) return false;
    if (lexer.escape == 5) lexer.surrogate = byte == 'd' || byte == 'D';
    lexer.escape = lexer.escape == 2 ? std::uint8_t{0} : static_cast<std::uint8_t>(lexer.escape - 1);
    return true;
  }
  if (byte < 0x20 || lexer.characters >= limit) return false;
  ++lexer.characters;
  if (byte == '\\') {
    lexer.escape = 1;
    return true;
  }
  if (byte < 0x80) return true;
  if (byte < 0xC2 || byte > 0xF4) return false;
  lexer.missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
  lexer.low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
  lexer.high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
  return true;
}

bool JsonAutomaton::step(State& state, std::uint8_t byte) const {
  if (byte == ' ' && state.space) {
    state.space = false;
    return true;
  }
  if (state.mode != Mode::kString && state.mode != Mode::kName) state.space = false;
  switch (state.mode) {
    case Mode::kValue:
      return start_value(state, byte);
    case Mode::kFirstItem:
      return byte == ']' ? close(state, byte) : may_add(top(state)) && start_value(state, byte);
    case Mode::kFirstName:
      if (byte == '}') return close(state, byte);
      [[fallthrough]];
    case Mode::kNextName:
      if (byte != '"' || !may_add(top(state))) return false;
      state.mode = Mode::kName;
      state.trie = tries_[top(state).node];
      state.lexer = {};
      return true;
    case Mode::kString:
      return step_string(state, byte);
    case Mode::kName:
      return step_name(state, byte);
    case Mode::kColon:
      if (byte != ':') return false;
      state.mode = Mode::kValue;
      state.space = true;
      return true;
    case Mode::kFixed:
      return step_fixed(state, byte);
    case Mode::kNumber:
      return step_number(state, byte);
    case Mode::kAfter:
      return step_after(state, byte);
  }
  return false;
}

// First byte of a value of `state.node`.
bool JsonAutomaton::start_value(State& state, std::uint8_t byte) const {
  const SchemaNode& node = nodes_[state.node];
  switch (node.kind) {
    case SchemaKind::kObject:
      return byte == '{' && open(state, Mode::kFirstName);
    case SchemaKind::kArray:
      return byte == '[' && open(state, Mode::kFirstItem);
    case SchemaKind::kString:
      state.mode = Mode::kString;
      state.lexer = {};
      return byte == '"';
    case SchemaKind::kNumber:
      state.mode = Mode::kNumber;
      state.number = {};
      return automata_[static_cast<std::size_t>(numbers_[state.node])].step(state.number, byte);
    case SchemaKind::kBoolean:
    case SchemaKind::kNull:
    case SchemaKind::kEnum:
      state.mode = Mode::kFixed;
      state.trie = tries_[state.node];
      return step_fixed(state, byte);
    case SchemaKind::kAnyOf:
      for (const std::size_t alternative : node.alternatives) {
        State attempt = state;
        attempt.node = static_cast<std::uint32_t>(alternative);
        if (!start_value(attempt, byte)) continue;
        state = attempt;
        return true;
      }
      return false;
    case SchemaKind::kAny:
      return false;  // replaced in the constructor
  }
  return false;
}

bool JsonAutomaton::open(State& state, Mode mode) const {
  if (state.frames.depth() >= kMaxDepth) return false;
  state.frames.push({.used = 0, .count = 0, .node = state.node});
  state.mode = mode;
  if (mode == Mode::kFirstItem) state.node = static_cast<std::uint32_t>(nodes_[state.node].items);
  return true;
}

// A closing bracket of the innermost object or array.
bool JsonAutomaton::close(State& state, std::uint8_t byte) const {
  const Frame& frame = top(state);
  const SchemaNode& node = nodes_[frame.node];
  if (node.kind == SchemaKind::kObject ? byte != '}' || !required_given(frame)
                                       : byte != ']' || frame.count < node.min_items)
    return false;
  state.node = frame.node;
  state.frames.pop();
  state.mode = Mode::kAfter;
  return true;
}

bool JsonAutomaton::step_string(State& state, std::uint8_t byte) const {
  const SchemaNode& node = nodes_[state.node];
  if (byte == '"' && between_characters(state.lexer)) {
    state.mode = Mode::kAfter;
    return state.lexer.characters >= node.min_length;
  }
  return lex(state.lexer, byte, node.max_length);
}

bool JsonAutomaton::step_name(State& state, std::uint8_t byte) const {
  const Frame& frame = top(state);
  const bool free = nodes_[frame.node].additional.has_value() && frame.count < kMaxFreeProperties;
  const std::int32_t next = child(state.trie, byte);
  const bool known = next >= 0 && (trie_[static_cast<std::size_t>(next)].under & open_names(frame)) != 0;
  const bool quote = byte == '"' && between_characters(state.lexer);
  if (quote) {
    // A name that was given already ends in the trie too; it may not come again.
    const bool ends_known = next >= 0 && trie_[static_cast<std::size_t>(next)].entry >= 0;
    if (ends_known ? !known : !free) return false;
    state.trie = ends_known ? next : -1;
    return end_name(state);
  }
  if (!known && !free) return false;
  if (!lex(state.lexer, byte, known ? SchemaNode::kUnbounded : kMaxFreeName)) return false;
  state.trie = next;
  return true;
}

bool JsonAutomaton::end_name(State& state) const {
  Frame& frame = state.frames.top();
  const SchemaNode& object = nodes_[frame.node];
  if (state.trie >= 0) {
    const auto entry = static_cast<std::size_t>(trie_[static_cast<std::size_t>(state.trie)].entry);
    frame.used |= bit_of(entry);
    state.node = static_cast<std::uint32_t>(object.properties[entry].node);
  } else {
    ++frame.count;
    state.node = static_cast<std::uint32_t>(*object.additional);
  }
  state.mode = Mode::kColon;
  return true;
}

// A fixed value goes on, or it was whole and the byte belongs behind it.
bool JsonAutomaton::step_fixed(State& state, std::uint8_t byte) const {
  const std::int32_t next = child(state.trie, byte);
  if (next >= 0) {
    if (must_differ(state) && (trie_[static_cast<std::size_t>(next)].under & ~top(state).used) == 0) return false;
    state.trie = next;
    return true;
  }
  if (!is_complete(state)) return false;
  return step_after(state, byte);
}

bool JsonAutomaton::step_number(State& state, std::uint8_t byte) const {
  const NumberAutomaton& automaton = automata_[static_cast<std::size_t>(numbers_[state.node])];
  NumberAutomaton::State next = state.number;
  if (automaton.step(next, byte)) {
    state.number = next;
    return true;
  }
  if (!automaton.accepts(state.number)) return false;
  return step_after(state, byte);
}

// Whether the fixed value being read is an item of a list whose items must differ.
bool JsonAutomaton::must_differ(const State& state) const {
  if (state.frames.depth() == 0) return false;
  const SchemaNode& list = nodes_[top(state).node];
  return list.kind == SchemaKind::kArray && list.unique && list.items == state.node && tracked(list);
}

// Given items are remembered for fixed values, as many as there are bits.
bool JsonAutomaton::tracked(const SchemaNode& list) const {
  return nodes_[list.items].kind == SchemaKind::kEnum && nodes_[list.items].values.size() <= 64;
}

// Whether the value being read is whole as it stands.
bool JsonAutomaton::is_complete(const State& state) const {
  if (state.mode == Mode::kAfter) return true;
  if (state.mode == Mode::kNumber)
    return automata_[static_cast<std::size_t>(numbers_[state.node])].accepts(state.number);
  if (state.mode != Mode::kFixed) return false;
  const TrieNode& node = trie_[static_cast<std::size_t>(state.trie)];
  if (node.entry < 0) return false;
  return !must_differ(state) || (bit_of(static_cast<std::size_t>(node.entry)) & top(state).used) == 0;
}

// Books a whole value in the array it belongs to.
void JsonAutomaton::finish_item(State& state) const {
  Frame& frame = state.frames.top();
  if (nodes_[frame.node].kind != SchemaKind::kArray) return;
  ++frame.count;
  if (must_differ(state))
    frame.used |= bit_of(static_cast<std::size_t>(trie_[static_cast<std::size_t>(state.trie)].entry));
}

bool JsonAutomaton::step_after(State& state, std::uint8_t byte) const {
  if (state.frames.depth() == 0) return false;
  finish_item(state);
  if (byte == '}' || byte == ']') return close(state, byte);
  if (byte != ',' || !may_add(top(state))) return false;
  const SchemaNode& node = nodes_[top(state).node];
  state.space = true;
  if (node.kind == SchemaKind::kObject) {
    state.mode = Mode::kNextName;
  } else {
    state.mode = Mode::kValue;
    state.node = static_cast<std::uint32_t>(node.items);
  }
  return true;
}

// Whether another property or item may come.
bool JsonAutomaton::may_add(const Frame& frame) const {
  const SchemaNode& node = nodes_[frame.node];
  if (node.kind == SchemaKind::kObject) {
    const std::int32_t names = tries_[frame.node];
    const bool known = names >= 0 && (trie_[static_cast<std::size_t>(names)].under & open_names(frame)) != 0;
    return known || (node.additional.has_value() && frame.count < kMaxFreeProperties);
  }
  if (frame.count >= node.max_items) return false;
  return !node.unique || !tracked(node) || frame.count < static_cast<std::int64_t>(nodes_[node.items].values.size());
}

bool JsonAutomaton::required_given(const Frame& frame) const {
  return (required_[frame.node] & ~frame.used) == 0;
}

std::int64_t JsonAutomaton::plain_room(const State& state) const {
  if (!between_characters(state.lexer) || state.space) return -1;
  if (state.mode == Mode::kString) return nodes_[state.node].max_length - state.lexer.characters;
  if (state.mode != Mode::kName) return -1;
  const Frame& frame = top(state);
  const bool free = nodes_[frame.node].additional.has_value() && frame.count < kMaxFreeProperties;
  // Names in the schema are shorter than free ones may be, so this room holds them too.
  return free ? std::max<std::int64_t>(0, kMaxFreeName - state.lexer.characters) : -1;
}

}  // namespace instruct::instructions
