// Counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// A stream is a pure function of (seed, purpose, step): the n-th number is the same whoever computes it, so results do
// not depend on threads or on how work was split, and a checkpoint needs no generator state.
#pragma once

#include <array>
#include <cstdint>

namespace instruct {

// What a stream is for; streams of different purposes are independent.
enum class RandomPurpose : std::uint32_t {
  kShuffle = 1,
  kDropout = 2,
  kInitialise = 3,
  kSample = 4,
  kTemplate = 5,
  kSplit = 6,
  kBootstrap = 7,
  kTest = 8,
  kMask = 9,
};

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t step = 0);

  // Four random words at a position; const and order-free.
  std::array<std::uint32_t, 4> block(std::uint64_t index) const;
  // Word number `index`.
  std::uint32_t word(std::uint64_t index) const { return block(index / 4)[index % 4]; }
  // Uniform in [0, 1) with 24 random bits.
  float uniform(std::uint64_t index) const { return static_cast<float>(word(index) >> 8) * 0x1p-24F; }

  // What block() is computed from, for code that computes many blocks at once.
  const std::array<std::uint32_t, 2>& key() const { return key_; }
  std::uint64_t step() const { return step_; }

  // Sequential use: the next word, uniform double in [0, 1), integer in [0, bound), standard normal.
  std::uint32_t next();
  double next_uniform();
  std::uint64_t next_below(std::uint64_t bound);
  double next_normal();

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint64_t step_;
  std::uint64_t position_ = 0;
};

}  // namespace instruct
