// The order of rows: a new one every epoch, from seed and epoch alone.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace instruct::data {

// Row indices of one epoch. Without shuffling: 0, 1, 2, ...
std::vector<std::int64_t> epoch_order(std::int64_t rows, bool shuffle, std::uint64_t seed, std::int64_t epoch);

// The same with rows of one group (see grouping.h) side by side: groups are what is shuffled. Without
// shuffling groups do not matter.
std::vector<std::int64_t> epoch_order(std::span<const std::int64_t> groups, bool shuffle, std::uint64_t seed,
                                      std::int64_t epoch);

// Splits off held-out rows: `held_out` below 1 is a fraction, else a count. Returns (training, held out), both sorted.
// Raises InvalidArgument for a negative one, and when nothing would be left to train on.
std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> hold_out(std::int64_t rows, double held_out,
                                                                         std::uint64_t seed);

}  // namespace instruct::data
