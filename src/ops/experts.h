// Mixtures of experts: which experts a row goes to, and the sum of what they give.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/experts.h"
#include "ops/context.h"

namespace instruct::ops {

using kernels::Renormalise;

// How evenly rows are spread over experts, over all layers of a pass: E sum_e f_e p_e, with f_e the rows that chose
// expert e and p_e the probabilities it had, each as a mean over rows (Fedus et al., "Switch transformers", 2021,
// equations 4 to 6, as load_balancing_loss_func of transformers has it).
class Balance {
 public:
  // `weight` times this loss is what the pass adds to the gradient.
  explicit Balance(float weight) : weight_(weight) {}
  void add(const Tensor& probabilities, std::span<const std::int32_t> chosen);
  // The forward pass is through: what is computed again in the backward pass counts no more.
  void close() { open_ = false; }
  double loss() const;
  // What each row's probabilities [E] have as a gradient.
  std::vector<float> gradient() const;

 private:
  float weight_;
  bool open_ = true;
  double rows_ = 0;
  std::vector<double> chosen_;         // [E]
  std::vector<double> probabilities_;  // [E]
};

struct RouteOptions {
  std::int64_t count = 0;  // experts that a row goes to
  Renormalise renormalise = Renormalise::kNo;
};

// Rows sorted by expert.
struct Routing {
  std::vector<std::int32_t> rows;    // [T * count]: by expert, each with its rows in order
  std::vector<std::int64_t> begins;  // [E + 1]: where each expert's begin
  std::vector<std::int32_t> places;  // [T * count]: where each choice of a row stands in `rows`
  Variable weights;                  // [T, count] f32
};

// Routes rows by logits [T, E]: softmax, then the `count` largest. `balance` may be null; it must outlive the backward
// pass, as the routing does. Raises InvalidArgument where there are fewer experts than `count`.
std::shared_ptr<const Routing> route(const Context& context, const Variable& logits, const RouteOptions& options,
                                     Balance* balance);

// The weighted sum over the experts of each row: outputs[e] [rows of e, D], undefined where an expert has none. Takes
// the outputs' gradients over. Returns [T, D].
Variable mix_experts(const Context& context, const std::shared_ptr<const Routing>& routing,
                     std::span<const Variable> outputs);

// A parameter that took no part has a gradient of zero, as where torch keeps all experts in one parameter: an optimizer
// with momentum goes on moving it.
void take_no_part(const Context& context, const Variable& parameter);

}  // namespace instruct::ops
