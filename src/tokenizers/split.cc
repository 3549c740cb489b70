// A step sees a text as parts, each a match or what lies between two. The behaviour says which parts stay alone, join
// a neighbour, or go.
#include "tokenizers/split.h"

#include <algorithm>

#include "tokenizers/characters.h"

namespace instruct::tokenizers {
namespace {

struct Part {
  TextRange range;
  bool match = false;
};

bool is_of(SplitMatch match, char32_t c) {
  if (match == SplitMatch::kSpace) return is_space(c);
  return match == SplitMatch::kDigit ? is_digit(c) : is_punctuation(c);
}

// Each character of the class is a match.
void find_parts(std::string_view text, SplitMatch match, bool invert, std::vector<Part>& parts) {
  parts.clear();
  std::size_t done = 0;
  std::size_t length = 0;
  for (std::size_t at = 0; at < text.size(); at += length) {
    if (!is_of(match, first_character(text.substr(at), length))) continue;
    if (at > done) parts.push_back({{done, at}, invert});
    done = at + length;
    parts.push_back({{at, done}, !invert});
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
}

void find_parts(std::string_view text, std::string_view literal, bool invert, std::vector<Part>& parts) {
  parts.clear();
  std::size_t done = 0;
  for (std::size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, done)) {
    if (at > done) parts.push_back({{done, at}, invert});
    done = at + literal.size();
    parts.push_back({{at, done}, !invert});
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
}

// An empty match cuts the text too, which is why empty parts are only dropped at the end.
void find_parts(std::string_view text, Pattern::Matches& matches, bool invert, std::vector<Part>& parts) {
  parts.clear();
  std::size_t done = 0;
  while (const auto found = matches.next()) {
    if (found->begin > done) parts.push_back({{done, found->begin}, invert});
    parts.push_back({*found, !invert});
    done = found->end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
}

// Joins each match with the part before it; of neighbouring matches only the first.
void join_with_previous(std::vector<Part>& parts) {
  std::size_t count = 0;
  bool previous = false;
  for (const Part& part : parts) {
    const Part current = part;
    if (current.match && !previous && count > 0) {
      parts[count - 1].range.end = current.range.end;
    } else {
      parts[count++] = current;
    }
    previous = current.match;
  }
  parts.resize(count);
}

// The same from behind: each match joins the part after it.
void join_with_next(std::vector<Part>& parts) {
  std::size_t first = parts.size();
  bool previous = false;
  for (std::size_t i = parts.size(); i-- > 0;) {
    const Part current = parts[i];
    if (current.match && !previous && first < parts.size()) {
      parts[first].range.begin = current.range.begin;
    } else {
      parts[--first] = current;
    }
    previous = current.match;
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(first));
}

void join_runs(std::vector<Part>& parts) {
  std::size_t count = 0;
  for (const Part& part : parts) {
    const Part current = part;
    if (count > 0 && parts[count - 1].match == current.match) {
      parts[count - 1].range.end = current.range.end;
    } else {
      parts[count++] = current;
    }
  }
  parts.resize(count);
}

void apply(SplitBehaviour behaviour, std::vector<Part>& parts) {
  switch (behaviour) {
    case SplitBehaviour::kIsolated:
      return;
    case SplitBehaviour::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.match; });
      return;
    case SplitBehaviour::kContiguous:
      join_runs(parts);
      return;
    case SplitBehaviour::kMergedWithPrevious:
      join_with_previous(parts);
      return;
    case SplitBehaviour::kMergedWithNext:
      join_with_next(parts);
      return;
  }
}

}  // namespace

Splitter::Splitter(const std::vector<SplitStep>& steps) {
  for (const SplitStep& step : steps) {
    steps_.push_back({std::nullopt, {}, step.match, step.behaviour, step.invert});
    if (step.match != SplitMatch::kPattern) continue;
    if (auto literal = literal_of_pattern(step.pattern)) {
      steps_.back().literal = std::move(*literal);
    } else {
      steps_.back().pattern.emplace(step.pattern);
    }
  }
}

std::vector<TextRange> Splitter::split(std::string_view text) const {
  std::vector<TextRange> pieces;
  if (!text.empty()) pieces.push_back({0, text.size()});
  std::vector<TextRange> next;
  std::vector<Part> parts;
  for (const Step& step : steps_) {
    next.clear();
    std::optional<Pattern::Matches> matches;
    if (step.pattern) matches.emplace(*step.pattern, std::string_view());
    for (const TextRange& piece : pieces) {
      const std::string_view part = text.substr(piece.begin, piece.end - piece.begin);
      if (matches) {
        matches->reset(part);
        find_parts(part, *matches, step.invert, parts);
      } else if (!step.literal.empty()) {
        find_parts(part, step.literal, step.invert, parts);
      } else {
        find_parts(part, step.match, step.invert, parts);
      }
      apply(step.behaviour, parts);
      for (const Part& found : parts) {
        if (found.range.begin < found.range.end)
          next.push_back({piece.begin + found.range.begin, piece.begin + found.range.end});
      }
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace instruct::tokenizers
