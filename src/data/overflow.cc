#include "data/overflow.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::data {
namespace {

using instructions::EncodedDialogue;
using instructions::Message;

// An input cut down to less than this says nothing.
constexpr std::size_t kShortestInputBytes = 32;

bool fits(const EncodedDialogue& encoded, std::int64_t cutoff) {
  return encoded.longest_part() <= cutoff;
}

// Index of the first message of each exchange: a user's turn that follows anything but another user's.
std::vector<std::size_t> exchanges_of(const std::vector<Message>& messages) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "user" && (i == 0 || messages[i - 1].role != "user")) starts.push_back(i);
  }
  return starts;
}

// Messages before the first exchange (the system's) and those of exchanges [first, last).
Example part_of(const Example& example, const std::vector<std::size_t>& starts, std::size_t first, std::size_t last) {
  Example part = example;
  const auto at = [&](std::size_t index) { return example.messages.begin() + static_cast<std::ptrdiff_t>(index); };
  part.messages.assign(at(0), at(starts.front()));
  part.messages.insert(part.messages.end(), at(starts[first]),
                       last < starts.size() ? at(starts[last]) : example.messages.end());
  return part;
}

// A text of the example that may lose characters on its left, from byte `from` on, and how to put it back.
struct Input {
  std::string text;
  std::size_t from = 0;
  std::function<void(std::string text)> put;
  std::size_t size() const { return text.size() - from; }
};

Input longer_of(Input a, Input b) {
  return b.size() > a.size() ? b : a;
}

// The longest text variable of a call.
Input longest_variable(Example& example, const instructions::InstructionSet* set) {
  Input longest;
  const instructions::Instruction* instruction = set == nullptr ? nullptr : set->find_instruction(example.verb);
  if (instruction == nullptr) return longest;
  for (const std::string& name : instruction->inputs) {
    const instructions::Variable* variable = set->find_variable(name);
    const Value* value = example.variables.find(name);
    if (variable == nullptr || value == nullptr || variable->type != instructions::VariableType::kText ||
        !value->is_string())
      continue;
    longest = longer_of(longest, {value->as_string(), 0, [&example, name](std::string text) {
                                    example.variables.set(name, std::move(text));
                                  }});
  }
  return longest;
}

// The longest message of the last exchange that is no answer.
Input longest_message(Example& example) {
  Input longest;
  const std::vector<std::size_t> starts = exchanges_of(example.messages);
  for (std::size_t i = starts.empty() ? 0 : starts.back(); i < example.messages.size(); ++i) {
    const Message& message = example.messages[i];
    if (message.role == "assistant") continue;
    const bool question = !starts.empty() && i == starts.back();
    longest = longer_of(longest, {message.content, question ? std::min(example.cut_from, message.content.size()) : 0,
                                  [&example, i](std::string text) { example.messages[i].content = std::move(text); }});
  }
  return longest;
}

// `text` without `bytes` bytes behind `from`, moved on to a character's start.
std::string without_left(const std::string& text, std::size_t from, std::size_t bytes) {
  std::size_t end = std::min(text.size(), from + bytes);
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) ++end;
  return text.substr(0, from) + text.substr(end);
}

// The fewest bytes to cut off the longest input, by bisection: more cut never makes a row longer but for a token or two
// at the cut, and whatever is returned was measured.
std::optional<EncodedDialogue> cut_input(Example& example, std::int64_t cutoff, const Encode& encode,
                                         const instructions::InstructionSet* set) {
  const Input input =
      example.format == RowFormat::kInstruction ? longest_variable(example, set) : longest_message(example);
  if (input.size() <= kShortestInputBytes) return std::nullopt;
  const auto cut_by = [&](std::size_t bytes) {
    input.put(without_left(input.text, input.from, bytes));
    return encode(example);
  };
  std::size_t low = 0;                                    // too long
  std::size_t high = input.size() - kShortestInputBytes;  // fits, or nothing does
  EncodedDialogue best = cut_by(high);
  if (!fits(best, cutoff)) return std::nullopt;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    EncodedDialogue encoded = cut_by(middle);
    if (fits(encoded, cutoff)) {
      high = middle;
      best = std::move(encoded);
    } else {
      low = middle;
    }
  }
  return best;
}

}  // namespace

std::optional<EncodedDialogue> fit_left(Example example, std::int64_t cutoff, const Encode& encode,
                                        const instructions::InstructionSet* set) {
  try {
    if (example.format != RowFormat::kInstruction) {
      const std::vector<std::size_t> starts = exchanges_of(example.messages);
      for (std::size_t first = 1; first < starts.size(); ++first) {
        const Example part = part_of(example, starts, first, starts.size());
        EncodedDialogue encoded = encode(part);
        if (fits(encoded, cutoff)) return encoded;
        if (first + 1 == starts.size()) example = part;
      }
    }
    return cut_input(example, cutoff, encode, set);
  } catch (const Error& error) {
    // A span that is cut off, a template that wants what is gone: the row cannot be shortened.
    if (error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kInvalidArgument)
      return std::nullopt;
    throw;
  }
}

std::optional<std::vector<EncodedDialogue>> split_dialogue(const Example& example, std::int64_t cutoff,
                                                           const Encode& encode) {
  if (example.format == RowFormat::kInstruction) return std::nullopt;
  const std::vector<std::size_t> starts = exchanges_of(example.messages);
  std::vector<EncodedDialogue> parts;
  std::size_t first = 0;
  while (first < starts.size()) {
    std::optional<EncodedDialogue> longest;
    std::size_t last = first;
    while (last < starts.size()) {
      EncodedDialogue encoded = encode(part_of(example, starts, first, last + 1));
      if (!fits(encoded, cutoff)) break;
      longest = std::move(encoded);
      ++last;
    }
    if (!longest) return std::nullopt;
    parts.push_back(std::move(*longest));
    first = last;
  }
  if (parts.size() < 2) return std::nullopt;
  return parts;
}

std::vector<EncodedRow> split_tokens(const EncodedRow& row, std::int64_t cutoff, std::optional<std::int32_t> bos) {
  const auto size = static_cast<std::int64_t>(row.tokens.size());
  std::vector<EncodedRow> pieces;
  for (std::int64_t next = 0; next < size;) {
    EncodedRow piece{.example = row.example};
    if (next > 0) {
      if (bos) piece.tokens.push_back(*bos);
      piece.tokens.push_back(row.tokens[static_cast<std::size_t>(next - 1)]);
      piece.trained.assign(piece.tokens.size(), 0);
    }
    const auto room = std::max<std::int64_t>(1, cutoff - static_cast<std::int64_t>(piece.tokens.size()));
    const std::int64_t end = std::min(size, next + room);
    piece.tokens.insert(piece.tokens.end(), row.tokens.begin() + next, row.tokens.begin() + end);
    piece.trained.insert(piece.trained.end(), row.trained.begin() + next, row.trained.begin() + end);
    next = end;
    if (piece.trained_tokens() > 0) pieces.push_back(std::move(piece));
  }
  return pieces;
}

EncodedRow keep_right(const EncodedRow& row, std::int64_t cutoff, std::optional<std::int32_t> bos) {
  EncodedRow kept{.example = row.example};
  if (bos) {
    kept.tokens.push_back(*bos);
    kept.trained.push_back(0);
  }
  const auto room = std::max<std::int64_t>(1, cutoff - static_cast<std::int64_t>(kept.tokens.size()));
  kept.tokens.insert(kept.tokens.end(), row.tokens.end() - room, row.tokens.end());
  kept.trained.insert(kept.trained.end(), row.trained.end() - room, row.trained.end());
  kept.trained[bos ? 1 : 0] = 0;  // what came before it is gone
  return kept;
}

}  // namespace instruct::data
