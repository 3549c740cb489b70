#include "bench/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "base/random.h"
#include "ops/linear.h"
#include "ops/weights.h"

namespace instruct::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Shortest time of `body`, run for about `seconds` after one run to warm up.
template <typename Body>
double best_time(double seconds, const Body& body) {
  body();
  double best = 1e30;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    body();
    best = std::min(best, seconds_since(begin));
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace

tensor::Tensor random_matrix(std::int64_t rows, std::int64_t columns, tensor::DType dtype,
                             tensor::Allocator& allocator) {
  tensor::Tensor values = tensor::Tensor::empty({rows, columns}, tensor::DType::kF32, allocator);
  const RandomStream random(1, RandomPurpose::kTest);
  for (std::int64_t i = 0; i < values.elements(); ++i)
    values.data<float>()[i] = random.uniform(static_cast<std::uint64_t>(i)) - 0.5F;
  return dtype == tensor::DType::kF32 ? values : ops::converted_copy(values, dtype, allocator);
}

double product_rate(ops::Engine& engine, tensor::DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
                    double seconds) {
  tensor::Allocator& allocator = engine.allocator();
  const autograd::Variable x(random_matrix(m, k, dtype, allocator));
  const autograd::Variable weight(random_matrix(n, k, dtype, allocator));
  const double time = best_time(seconds, [&] { ops::linear(engine.context(), x, weight, {}, nullptr); });
  return 2.0 * static_cast<double>(m * n) * static_cast<double>(k) / time;
}

double integer_product_rate(ops::Engine& engine, tensor::DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
                            double seconds) {
  if (!ops::has_integer_products()) return 0;
  tensor::Allocator& allocator = engine.allocator();
  const autograd::Variable x(random_matrix(m, k, dtype, allocator));
  const ops::IntegerLayer layer{
      .weight = ops::pack_for_integers(random_matrix(n, k, tensor::DType::kF32, allocator),
                                       ops::IntegerUse::kGradients8, allocator, engine.threads()),
      .bias = {}};
  const double time = best_time(seconds, [&] { ops::integer_linears(engine.context(), x, std::span(&layer, 1)); });
  return 2.0 * static_cast<double>(m * n) * static_cast<double>(k) / time;
}

double peak_product_rate(ops::Engine& engine, tensor::DType dtype, double seconds) {
  return product_rate(engine, dtype, 1024, 1024, 1024, seconds);
}

double read_bandwidth(ops::Engine& engine, std::int64_t bytes, double seconds) {
  const auto words = static_cast<std::size_t>(bytes) / sizeof(std::uint64_t);
  std::vector<std::uint64_t> memory(words, 1);
  const auto threads = static_cast<std::size_t>(engine.threads().threads());
  std::atomic<std::uint64_t> total{0};  // so that the reads are not optimised away
  const double time = best_time(seconds, [&] {
    engine.threads().run(static_cast<std::int64_t>(threads), [&](std::int64_t part) {
      const std::size_t begin = words * static_cast<std::size_t>(part) / threads;
      const std::size_t end = words * (static_cast<std::size_t>(part) + 1) / threads;
      std::uint64_t sum = 0;
      for (std::size_t i = begin; i < end; ++i) sum += memory[i];
      total += sum;
    });
  });
  return static_cast<double>(bytes) / time;
}

std::int64_t weight_bytes(const models::LanguageModel& model) {
  std::int64_t bytes = 0;
  for (const models::NamedWeight& weight : model.weights()) bytes += weight.variable.value().bytes();
  return bytes;
}

}  // namespace instruct::bench
