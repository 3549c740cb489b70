// Choosing experts by row and mixing what they give, plain (Shazeer et al., "Outrageously large neural networks", 2017;
// Fedus et al., "Switch transformers", 2021).
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

void route(Stream& /*stream*/, const Tensor& logits, Renormalise renormalise, Tensor& probabilities,
           std::span<std::int32_t> chosen, Tensor& weights) {
  const std::int64_t experts = logits.dim(1);
  const std::int64_t count = weights.dim(1);
  for (std::int64_t t = 0; t < logits.dim(0); ++t) {
    double most = -INFINITY, sum = 0, part = 0;
    for (std::int64_t e = 0; e < experts; ++e) most = std::max(most, static_cast<double>(read(logits, t, e)));
    for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(static_cast<double>(read(logits, t, e)) - most);
    for (std::int64_t e = 0; e < experts; ++e)
      write(probabilities, t, e, static_cast<float>(std::exp(static_cast<double>(read(logits, t, e)) - most) / sum));
    std::vector<bool> taken(static_cast<std::size_t>(experts), false);
    for (std::int64_t j = 0; j < count; ++j) {
      std::int64_t best = -1;
      for (std::int64_t e = 0; e < experts; ++e) {
        if (!taken[static_cast<std::size_t>(e)] && (best < 0 || read(logits, t, e) > read(logits, t, best))) best = e;
      }
      taken[static_cast<std::size_t>(best)] = true;
      chosen[static_cast<std::size_t>(t * count + j)] = static_cast<std::int32_t>(best);
      part += static_cast<double>(read(probabilities, t, best));
    }
    for (std::int64_t j = 0; j < count; ++j) {
      const auto p = static_cast<double>(read(probabilities, t, chosen[static_cast<std::size_t>(t * count + j)]));
      write(weights, t, j, static_cast<float>(renormalise == Renormalise::kYes ? p / part : p));
    }
  }
}

// With p the softmax and g_e = dL/dp_e:  dL/dlogit_e = p_e (g_e - sum_i p_i g_i). A renormalised weight is
// w_j = p_j / s, s the sum of the chosen p, so that dL/dp_j = (dw_j - sum_i w_i dw_i) / s.
void route_backward(Stream& /*stream*/, const Tensor& probabilities, std::span<const std::int32_t> chosen,
                    Renormalise renormalise, const Tensor& weights, const Tensor& dweights,
                    std::span<const float> balance, Tensor& dlogits) {
  const std::int64_t experts = probabilities.dim(1);
  const std::int64_t count = weights.dim(1);
  for (std::int64_t t = 0; t < probabilities.dim(0); ++t) {
    std::vector<double> g(static_cast<std::size_t>(experts), 0.0);
    for (std::size_t e = 0; e < balance.size(); ++e) g[e] = static_cast<double>(balance[e]);
    double part = 1, mean = 0;
    if (renormalise == Renormalise::kYes) {
      part = 0;
      for (std::int64_t j = 0; j < count; ++j) {
        part += static_cast<double>(read(probabilities, t, chosen[static_cast<std::size_t>(t * count + j)]));
        mean += static_cast<double>(read(weights, t, j)) * static_cast<double>(read(dweights, t, j));
      }
    }
    for (std::int64_t j = 0; j < count; ++j) {
      g[static_cast<std::size_t>(chosen[static_cast<std::size_t>(t * count + j)])] +=
          (static_cast<double>(read(dweights, t, j)) - mean) / part;
    }
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e)
      sum += static_cast<double>(read(probabilities, t, e)) * g[static_cast<std::size_t>(e)];
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto p = static_cast<double>(read(probabilities, t, e));
      write(dlogits, t, e, static_cast<float>(p * (g[static_cast<std::size_t>(e)] - sum)));
    }
  }
}

void mix_rows(Stream& /*stream*/, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights,
              Tensor& y) {
  const std::int64_t count = weights.dim(1);
  for (std::int64_t t = 0; t < y.dim(0); ++t) {
    for (std::int64_t i = 0; i < y.dim(1); ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < count; ++j) {
        sum += static_cast<double>(read(weights, t, j)) *
               static_cast<double>(read(x, places[static_cast<std::size_t>(t * count + j)], i));
      }
      write(y, t, i, static_cast<float>(sum));
    }
  }
}

void mix_rows_backward(Stream& /*stream*/, const Tensor& x, std::span<const std::int32_t> places, const Tensor& weights,
                       const Tensor& dy, Tensor& dx, Tensor& dweights) {
  const std::int64_t count = weights.dim(1);
  for (std::int64_t t = 0; t < dy.dim(0); ++t) {
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t row = places[static_cast<std::size_t>(t * count + j)];
      double sum = 0;
      for (std::int64_t i = 0; i < dy.dim(1); ++i) {
        sum += static_cast<double>(read(dy, t, i)) * static_cast<double>(read(x, row, i));
        write(dx, row, i, read(weights, t, j) * read(dy, t, i));
      }
      write(dweights, t, j, static_cast<float>(sum));
    }
  }
}

}  // namespace instruct::kernels::reference
