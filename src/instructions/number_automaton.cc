#include "instructions/number_automaton.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "instructions/output_encoder.h"

namespace instruct::instructions {
namespace {

constexpr std::int64_t power_of_ten(int exponent) {
  std::int64_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

// A bound in units, rounded inwards; beyond what numbers can be it does not matter.
std::int64_t in_units(double bound, std::int64_t unit, bool upper) {
  const double scaled = bound * static_cast<double>(unit);
  const double limit = static_cast<double>(power_of_ten(kMaxIntegerDigits)) * static_cast<double>(unit) - 1;
  if (std::abs(scaled) >= limit)
    return scaled < 0 ? -static_cast<std::int64_t>(limit) : static_cast<std::int64_t>(limit);
  // 0.1 times 10^6 is 100000.00000000001 in binary: whole within rounding counts as whole.
  const double nearest = std::round(scaled);
  if (std::abs(scaled - nearest) <= 1e-9 * std::max(1.0, std::abs(scaled))) return static_cast<std::int64_t>(nearest);
  return static_cast<std::int64_t>(upper ? std::floor(scaled) : std::ceil(scaled));
}

}  // namespace

NumberAutomaton::NumberAutomaton(bool integer, std::optional<double> minimum, std::optional<double> maximum)
    : integer_(integer), unit_(integer ? 1 : power_of_ten(kMaxDecimals)) {
  const double largest = std::pow(10.0, kMaxIntegerDigits);
  low_ = in_units(minimum.value_or(-largest), unit_, false);
  high_ = in_units(maximum.value_or(largest), unit_, true);
  if (low_ > high_) {
    raise(ErrorCategory::kInvalidArgument, "no {} of at most {} decimals lies between {} and {}",
          integer ? "whole number" : "number", integer ? 0 : kMaxDecimals, minimum.value_or(-largest),
          maximum.value_or(largest));
  }
}

bool NumberAutomaton::overlaps(std::int64_t low, std::int64_t high, bool negative) const {
  if (negative) {
    low = std::max<std::int64_t>(low, 1);  // there is no -0
    return low <= high && -high <= high_ && -low >= low_;
  }
  return low <= high_ && high >= low_;
}

// Whether a number in the bounds starts with what the state has.
bool NumberAutomaton::reachable(const State& state) const {
  using Phase = State::Phase;
  if (state.phase == Phase::kSign) return low_ < 0;
  if (state.phase == Phase::kPoint || state.phase == Phase::kDecimals) {
    const std::int64_t open = power_of_ten(kMaxDecimals - state.decimals);  // what further decimals can add
    return overlaps(state.value * open, state.value * open + open - 1, state.negative);
  }
  const int further = state.value == 0 ? 0 : kMaxIntegerDigits - state.digits;
  std::int64_t low = state.value;
  std::int64_t size = 1;
  for (int k = 0; k <= further; ++k, low *= 10, size *= 10) {
    if (overlaps(low * unit_, (low + size) * unit_ - 1, state.negative)) return true;
  }
  return false;
}

bool NumberAutomaton::step(State& state, std::uint8_t byte) const {
  using Phase = State::Phase;
  if (byte == '-') {
    if (state.phase != Phase::kStart) return false;
    state.phase = Phase::kSign;
    state.negative = true;
    return reachable(state);
  }
  if (byte == '.') {
    if (state.phase != Phase::kWhole || integer_) return false;
    state.phase = Phase::kPoint;
    return reachable(state);
  }
  if (byte < '0' || byte > '9') return false;
  const bool behind = state.phase == Phase::kPoint || state.phase == Phase::kDecimals;
  if (behind && state.decimals == kMaxDecimals) return false;
  if (!behind && state.digits == kMaxIntegerDigits) return false;
  if (state.phase == Phase::kWhole && state.value == 0) return false;  // 07
  state.value = state.value * 10 + (byte - '0');
  if (behind)
    ++state.decimals;
  else
    ++state.digits;
  state.phase = behind ? Phase::kDecimals : Phase::kWhole;
  return reachable(state);
}

bool NumberAutomaton::accepts(const State& state) const {
  using Phase = State::Phase;
  if (state.phase != Phase::kWhole && state.phase != Phase::kDecimals) return false;
  const std::int64_t open = state.phase == Phase::kWhole ? unit_ : power_of_ten(kMaxDecimals - state.decimals);
  const std::int64_t value = state.value * open;
  return overlaps(value, value, state.negative);
}

}  // namespace instruct::instructions
