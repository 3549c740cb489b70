// What a training run lowers, as the loop sees it: rows in an order, a loss that is a mean over units, its gradient.
//
// What a unit is depends on what is learnt: a trained token, a labelled row, word or sentence. The loss of a step is
// divided once, by the units of all its rows, so how the rows are cut into passes changes nothing but the order of
// additions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/layout.h"

namespace instruct::train {

struct PassTotals {
  double loss = 0;  // summed over units
  data::BatchCost cost;
};

class Objective {
 public:
  virtual ~Objective() = default;

  // Rows of the first epoch, by which the steps of a run are counted.
  virtual std::int64_t rows() const = 0;

  // Makes the rows of an epoch ready, which may be others than those of the epoch before, and gives their order: what
  // the functions below know them by, each once. The same for the same epoch, also after a restart.
  virtual std::vector<std::int64_t> order(std::int64_t epoch) = 0;

  virtual std::int64_t units(std::span<const std::int64_t> rows) const = 0;

  // Runs the forward and backward passes of the step that `step` steps came before: adds `weight` times the gradient of
  // the summed loss to the parameters. What is random in it (dropout, masks) follows from seed, step and pass alone.
  virtual PassTotals add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) = 0;
};

}  // namespace instruct::train
