#include "base/random.h"

#include <cmath>
#include <numbers>

namespace instruct {

RandomStream::RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t step)
    : key_{static_cast<std::uint32_t>(seed) ^ (static_cast<std::uint32_t>(purpose) * 0x9E3779B9U),
           static_cast<std::uint32_t>(seed >> 32)},
      step_(step) {}

std::array<std::uint32_t, 4> RandomStream::block(std::uint64_t index) const {
  // Philox 4x32, 10 rounds; the two multipliers and key increments are the paper's.
  std::array<std::uint32_t, 4> c{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                                 static_cast<std::uint32_t>(step_), static_cast<std::uint32_t>(step_ >> 32)};
  std::uint32_t k0 = key_[0];
  std::uint32_t k1 = key_[1];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

std::uint32_t RandomStream::next() {
  return word(position_++);
}

double RandomStream::next_uniform() {
  const std::uint64_t high = next() >> 5;
  const std::uint64_t low = next() >> 6;
  return static_cast<double>(high << 26 | low) * 0x1p-53;
}

std::uint64_t RandomStream::next_below(std::uint64_t bound) {
  if (bound <= 1) return 0;
  // Rejection keeps every value equally likely.
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  for (;;) {
    const std::uint64_t high = next();
    const std::uint64_t value = high << 32 | next();
    if (value < limit) return value % bound;
  }
}

double RandomStream::next_normal() {
  // Box-Muller; 1 - u keeps the logarithm finite.
  const double u = 1.0 - next_uniform();
  const double v = next_uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace instruct
