#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "base/error.h"
#include "base/random.h"

namespace instruct::data {
namespace {

// Fisher-Yates.
void shuffle_indices(std::vector<std::int64_t>& indices, RandomStream random) {
  for (std::size_t i = indices.size(); i > 1; --i) std::swap(indices[i - 1], indices[random.next_below(i)]);
}

}  // namespace

std::vector<std::int64_t> epoch_order(std::int64_t rows, bool shuffle, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  if (shuffle) shuffle_indices(order, RandomStream(seed, RandomPurpose::kShuffle, static_cast<std::uint64_t>(epoch)));
  return order;
}

std::vector<std::int64_t> epoch_order(std::span<const std::int64_t> groups, bool shuffle, std::uint64_t seed,
                                      std::int64_t epoch) {
  if (!shuffle) return epoch_order(static_cast<std::int64_t>(groups.size()), false, seed, epoch);
  std::vector<std::vector<std::int64_t>> members;
  std::unordered_map<std::int64_t, std::size_t> place;
  for (std::size_t row = 0; row < groups.size(); ++row) {
    const auto [found, is_new] = place.try_emplace(groups[row], members.size());
    if (is_new) members.emplace_back();
    members[found->second].push_back(static_cast<std::int64_t>(row));
  }
  std::vector<std::int64_t> order;
  for (const std::int64_t group : epoch_order(static_cast<std::int64_t>(members.size()), true, seed, epoch)) {
    const std::vector<std::int64_t>& rows = members[static_cast<std::size_t>(group)];
    order.insert(order.end(), rows.begin(), rows.end());
  }
  return order;
}

std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> hold_out(std::int64_t rows, double held_out,
                                                                         std::uint64_t seed) {
  if (!(held_out >= 0)) raise(ErrorCategory::kInvalidArgument, "val_size {}: expected a fraction or a count", held_out);
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  shuffle_indices(order, RandomStream(seed, RandomPurpose::kSplit));
  const double wanted = held_out < 1 ? std::ceil(held_out * static_cast<double>(rows)) : held_out;
  if (wanted >= static_cast<double>(rows)) {
    raise(ErrorCategory::kInvalidArgument, "val_size {} leaves none of the {} rows to train on", held_out, rows);
  }
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(wanted);
  std::vector<std::int64_t> held(order.begin(), middle);
  std::vector<std::int64_t> rest(middle, order.end());
  std::sort(held.begin(), held.end());
  std::sort(rest.begin(), rest.end());
  return {rest, held};
}

}  // namespace instruct::data
