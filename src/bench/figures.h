// Reproducible figures of whole passes over random tokens, each with its share of a limit measured in the same process.
#pragma once

#include <cstdint>

#include "base/value.h"
#include "bench/work.h"
#include "generate/generator.h"
#include "models/encoder.h"
#include "ops/engine.h"
#include "train/optimizer.h"

namespace instruct::bench {

struct PassOptions {
  std::int64_t rows = 4;
  std::int64_t length = 512;  // tokens a row, all of them predicted
  std::int64_t repeats = 5;   // timed passes after one to warm up; the median counts
  std::uint64_t seed = 42;
  bool checkpoint = false;  // training with activation checkpointing
  train::Moments moments = train::Moments::kF32;
};

// Optimizer steps. `adapter` null: full tuning, for which the model must be trainable. Object with tokens_per_second,
// seconds (median, least and most), limit_seconds (the products of the step alone: those with base weights measured
// one by one, adapter and attention at the rate of large products), limit_share, limit_tokens_per_second,
// peak_rss_bytes.
Value bench_train(ops::Engine& engine, models::LanguageModel& model, adapters::LoraAdapter* adapter,
                  const PassOptions& options);
// The same for forward passes that give the log-probability of every token.
Value bench_score(ops::Engine& engine, models::LanguageModel& model, const PassOptions& options);

// Passes of an encoder over rows of random tokens, `backward`: and back to every weight, which must be trainable.
// Object with seconds (median, least and most), tokens_per_second, microseconds_per_token and peak_rss_bytes.
Value bench_encode(ops::Engine& engine, models::Encoder& encoder, const PassOptions& options, bool backward);

struct GenerateBenchOptions {
  std::int64_t prompt_tokens = 512;
  std::int64_t new_tokens = 128;
  std::int64_t batch = 1;     // answers together
  std::int64_t requests = 0;  // 0: as many as the batch
  bool uneven = false;        // answers of all lengths from an eighth of new_tokens to new_tokens
  std::int64_t repeats = 3;
  std::uint64_t seed = 42;
  std::int32_t adapters = 0;  // of the adapters::AdapterSet on the model: requests take them in turns
  generate::GenerateOptions engine;
};
// Object with total_tokens_per_second (prompts and answers), cache_bytes (most that keys and values took) and
// peak_rss_bytes; where all requests are one batch of even answers also prompt_tokens_per_second,
// generation_tokens_per_second (greedy) and limit_share (weight_bytes and key_value_bytes, which a step reads in the
// middle of the answers, times steps a second, over the memory's measured bandwidth).
Value bench_generate(ops::Engine& engine, models::LanguageModel& model, const tokenizers::Tokenizer& tokenizer,
                     const GenerateBenchOptions& options);

struct CrossEntropyOptions {
  std::int64_t tokens = 2048;
  std::int64_t width = 640;
  std::int64_t vocabulary = 262144;
  tensor::DType dtype = tensor::DType::kF32;
  std::int64_t repeats = 3;
};

// Output projection and cross-entropy over a frozen weight of random values, forward and backward: seconds,
// products_seconds (its two products alone, over a part of the vocabulary that fits the caches) and limit_share, their
// quotient; scratch_bytes is how much the process grew.
Value bench_cross_entropy(ops::Engine& engine, const CrossEntropyOptions& options);

// Rates of the matrix products of a model's step over `rows` tokens, of large products, and of memory: an object with
// "products" (list of m, n, k, gflops, int8_gops), "peak_gflops", "peak_int8_gops", "memory_bytes_per_second",
// "cache_bytes_per_second".
Value bench_kernels(ops::Engine& engine, models::LanguageModel& model, std::int64_t rows);

}  // namespace instruct::bench
