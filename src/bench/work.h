// How much arithmetic a pass needs: what its share of the machine's limit is measured by.
#pragma once

#include "adapters/lora.h"
#include "data/layout.h"
#include "models/language_model.h"

namespace instruct::bench {

enum class Purpose {
  kForward,  // scoring
  kLora,     // forward, gradients of activations and of the adapter
  kFull      // forward, gradients of activations and of every weight
};

// Floating-point operations, two a multiply-add.
struct Work {
  double linear = 0;     // base weights, output projection included
  double adapter = 0;    // low-rank branches
  double attention = 0;  // scores and weighted values; what the backward pass recomputes is not counted
  double total() const { return linear + adapter + attention; }
};

// One matrix product [m, k] x [k, n] that a pass makes, and how often.
struct Product {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t count = 0;
  double operations() const { return 2.0 * static_cast<double>(m * n * k) * static_cast<double>(count); }
};

// Products with base weights of one pass over `cost`; equal ones counted together. `adapter` may be null.
std::vector<Product> linear_products(models::LanguageModel& model, const data::BatchCost& cost, Purpose purpose);
Work work_of(models::LanguageModel& model, const adapters::LoraAdapter* adapter, const data::BatchCost& cost,
             Purpose purpose);

}  // namespace instruct::bench
