// What this machine can do, measured in this process: the limits that shares are shares of.
#pragma once

#include <cstdint>

#include "models/language_model.h"
#include "ops/engine.h"

namespace instruct::bench {

// Values in [-0.5, 0.5).
tensor::Tensor random_matrix(std::int64_t rows, std::int64_t columns, tensor::DType dtype,
                             tensor::Allocator& allocator);

// Floating-point operations a second of [m, k] x [k, n] with all threads: the best of repeated runs over about
// `seconds`. dtype f32 or bf16.
double product_rate(ops::Engine& engine, tensor::DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
                    double seconds);
// The same on 8-bit integers, as training over an int8 base has them: weights with one scale for 64 neighbours,
// activations of `dtype` rounded in the product. 0 where the processor has none; n and k are multiples of 32.
double integer_product_rate(ops::Engine& engine, tensor::DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
                            double seconds);
// Of a large square product in `dtype`, which is as good as it gets.
double peak_product_rate(ops::Engine& engine, tensor::DType dtype, double seconds);

// Bytes a second that all threads together read from `bytes` of memory; far more than the caches hold gives main
// memory's bandwidth, less that of a cache.
double read_bandwidth(ops::Engine& engine, std::int64_t bytes, double seconds);

// Bytes of a model's weights as they are held, each of which a pass reads at least once.
std::int64_t weight_bytes(const models::LanguageModel& model);

}  // namespace instruct::bench
