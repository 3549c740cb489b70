// Hash tables that are filled once and then only read: open addressing, linear probing, at most half full.
//
// Tokenizing is little more than looking up neighbours; these tables cost one cache line a look-up, where
// std::unordered_map costs three and takes several times as long to fill.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace instruct::tokenizers {

// Multiply and fold, eight bytes at a time.
inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kFactor = 0x9E3779B97F4A7C15U;
  std::uint64_t hash = bytes.size() * kFactor;
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t count = bytes.size() < 8 ? bytes.size() : 8;
    std::memcpy(&word, bytes.data(), count);
    hash = (hash ^ word) * kFactor;
    hash ^= hash >> 32;
    bytes.remove_prefix(count);
  }
  return hash * kFactor;
}

// From texts, kept by the caller in a list by id, to ids.
class TextTable {
 public:
  // Room for `count` texts of `texts`, which must stay where it is.
  TextTable(const std::vector<std::string>& texts, std::size_t count)
      : texts_(texts), slots_(std::bit_ceil(count * 2 + 2)) {}

  // Adds the text of `id`; returns the id already there instead when there is one, else -1.
  std::int32_t insert(std::int32_t id) {
    const std::string& text = texts_[static_cast<std::size_t>(id)];
    const std::uint64_t hash = hash_bytes(text);
    for (std::size_t at = start(hash);; at = (at + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[at];
      if (slot.id < 0) {
        slot = {static_cast<std::uint32_t>(hash), id};
        return -1;
      }
      if (holds(slot, hash, text)) return slot.id;
    }
  }
  // The id of a text, or -1.
  std::int32_t find(std::string_view text) const {
    const std::uint64_t hash = hash_bytes(text);
    for (std::size_t at = start(hash);; at = (at + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[at];
      if (slot.id < 0) return -1;
      if (holds(slot, hash, text)) return slot.id;
    }
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t id = -1;
  };
  std::size_t start(std::uint64_t hash) const { return static_cast<std::size_t>(hash >> 32) & (slots_.size() - 1); }
  bool holds(const Slot& slot, std::uint64_t hash, std::string_view text) const {
    return slot.tag == static_cast<std::uint32_t>(hash) && texts_[static_cast<std::size_t>(slot.id)] == text;
  }

  const std::vector<std::string>& texts_;
  std::vector<Slot> slots_;
};

// From pairs of ids to what they merge into.
class PairTable {
 public:
  struct Merge {
    std::int32_t rank = kNone;  // lower goes first
    std::int32_t result = -1;
  };
  static constexpr std::int32_t kNone = INT32_MAX;

  explicit PairTable(std::size_t count) : slots_(std::bit_ceil(count * 2 + 2)) {}

  void insert(std::int32_t left, std::int32_t right, Merge merge) {
    Slot& slot = slots_[find_slot(key(left, right))];
    slot.key = key(left, right);
    slot.merge = merge;
  }
  // rank is kNone when the two do not merge.
  Merge find(std::int32_t left, std::int32_t right) const { return slots_[find_slot(key(left, right))].merge; }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t find_slot(std::uint64_t key) const {
    std::uint64_t hash = key * 0x9E3779B97F4A7C15U;
    hash = (hash ^ hash >> 32) * 0x9E3779B97F4A7C15U;
    std::size_t at = static_cast<std::size_t>(hash >> 32) & (slots_.size() - 1);
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  std::vector<Slot> slots_;
};

}  // namespace instruct::tokenizers
