// Numbers as outputs write them: optional '-', digits without needless leading zeros, optional decimals; within bounds.
//
// A digit is refused when no number in the bounds starts that way. Numbers are whole multiples of a unit (1, or 10^-6
// when decimals are allowed), so that all of this is exact in 64-bit integers.
#pragma once

#include <cstdint>
#include <optional>

namespace instruct::instructions {

class NumberAutomaton {
 public:
  struct State {
    enum class Phase : std::uint8_t { kStart, kSign, kWhole, kPoint, kDecimals };
    Phase phase = Phase::kStart;
    bool negative = false;
    std::uint8_t digits = 0;    // before the point
    std::uint8_t decimals = 0;  // behind it
    std::int64_t value = 0;     // of all digits so far, as a whole number
  };

  // Raises InvalidArgument when no number fits.
  NumberAutomaton(bool integer, std::optional<double> minimum, std::optional<double> maximum);

  State start() const { return {}; }
  bool step(State& state, std::uint8_t byte) const;
  bool accepts(const State& state) const;
  std::int64_t plain_room(const State& state) const {
    static_cast<void>(state);
    return -1;
  }
  bool can_start(std::uint8_t byte) const { return byte == '-' || (byte >= '0' && byte <= '9'); }

 private:
  bool reachable(const State& state) const;
  bool overlaps(std::int64_t low, std::int64_t high, bool negative) const;

  bool integer_;
  std::int64_t unit_;        // units in 1
  std::int64_t low_, high_;  // bounds in units
};

}  // namespace instruct::instructions
