#include "tokenizers/trie.h"

#include <algorithm>

namespace instruct::tokenizers {

Trie::Trie(const std::vector<std::string>& texts) : nodes_(1), labels_(1) {
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].empty()) order.push_back(static_cast<std::int32_t>(i));
  }
  const auto text_of = [&](std::size_t place) -> const std::string& {
    return texts[static_cast<std::size_t>(order[place])];
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return texts[static_cast<std::size_t>(a)] < texts[static_cast<std::size_t>(b)];
  });
  // Of each node, the texts behind it: those of `order` from begin to end share `depth` bytes.
  struct Range {
    std::size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, order.size(), 0}};
  for (std::size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    for (; begin < end && text_of(begin).size() == depth; ++begin) {
      if (nodes_[node].id >= 0) {
        repeated_.push_back(order[begin]);
      } else {
        nodes_[node].id = order[begin];
      }
    }
    nodes_[node].first = static_cast<std::uint32_t>(ranges.size());
    while (begin < end) {
      const char byte = text_of(begin)[depth];
      std::size_t next = begin;
      while (next < end && text_of(next)[depth] == byte) ++next;
      ranges.push_back({begin, next, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(byte);
      ++nodes_[node].children;
      begin = next;
    }
  }
}

std::int32_t Trie::find(std::string_view text) const {
  std::uint32_t node = root();
  for (const char byte : text) {
    node = next(node, byte);
    if (node == kNowhere) return -1;
  }
  return id(node);
}

}  // namespace instruct::tokenizers
