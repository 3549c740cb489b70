// A feed-forward of many experts, of which each row goes through few (Shazeer et al., "Outrageously large neural
// networks", 2017).
#pragma once

#include <span>
#include <vector>

#include "nn/linear.h"
#include "ops/elementwise.h"
#include "ops/experts.h"

namespace instruct::nn {

struct Expert {
  Linear gate, up, down;
};

struct ExpertMixture {
  Linear router;                // [E, D]
  std::vector<Expert> experts;  // empty: there is no mixture
  ops::RouteOptions routing;

  // x [T, D] to [T, D]; one product for each expert and matrix, over the rows that chose it. `adapters` [T] as for
  // Linear; `balance` as for ops::route.
  Variable operator()(const Context& context, const Variable& x, ops::Activation activation,
                      std::span<const std::int32_t> adapters, ops::Balance* balance) const;
};

}  // namespace instruct::nn
