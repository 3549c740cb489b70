#include "generate/pass_tokens.h"

namespace instruct::generate {

using tensor::KeyRange;

void PassTokens::add(Path& path) {
  const std::int64_t known = size_of(path.tokens);
  std::int64_t position = path.computed;
  if (position < path.source) {
    add_source(path);
    position = path.source;
  }
  // Attention takes neighbouring slots for a run of new tokens.
  for (const KeyRange& range : path.blocks.slots(position, known)) {
    add_run(path, position, range);
    position += range.end - range.begin;
  }
  path.first_row = size_of(rows);
  rows.push_back(static_cast<std::int32_t>(tokens.size()) - 1);
  // Each proposed token for itself: its attention is then computed as in a step of its own.
  for (; position < path.end(); ++position) {
    rows.push_back(static_cast<std::int32_t>(tokens.size()));
    add_run(path, position, path.blocks.slots(position, position + 1).front());
  }
}

// What an encoder reads is computed as a whole.
void PassTokens::add_source(const Path& path) {
  const std::int64_t begin = size_of(tokens);
  plan.queries.push_back(
      {.begin = begin, .end = begin + path.source, .self_begin = begin, .visible = {}, .own = tensor::OwnKeys::kWhole});
  std::int64_t position = 0;
  for (const KeyRange& range : path.blocks.slots(0, path.source)) {
    for (std::int64_t slot = range.begin; slot < range.end; ++slot, ++position) add_token(path, position, slot);
  }
}

// Positions of an answer count from the end of its source.
void PassTokens::add_token(const Path& path, std::int64_t position, std::int64_t slot) {
  const std::int64_t known = size_of(path.tokens);
  tokens.push_back(position < known ? path.tokens[static_cast<std::size_t>(position)]
                                    : path.proposal[static_cast<std::size_t>(position - known)]);
  positions.push_back(static_cast<std::int32_t>(position < path.source ? position : position - path.source));
  slots.push_back(static_cast<std::int32_t>(slot));
  adapters.push_back(path.adapter);
}

void PassTokens::add_run(const Path& path, std::int64_t position, const KeyRange& range) {
  const std::int64_t begin = size_of(tokens);
  plan.queries.push_back({.begin = begin,
                          .end = begin + range.end - range.begin,
                          .self_begin = range.begin,
                          .visible = path.blocks.slots(path.source, position)});
  if (path.source > 0) plan.queries.back().source = path.blocks.slots(0, path.source);
  for (std::int64_t slot = range.begin; slot < range.end; ++slot, ++position) add_token(path, position, slot);
}

}  // namespace instruct::generate
