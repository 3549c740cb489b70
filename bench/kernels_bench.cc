// Micro-benchmarks of kernels beside their plain twins, on the shapes of a 135M-parameter model (D 576, F 1536, 9 query
// and 3 key/value heads of 64, V 49152). `instruct bench` measures whole passes; this is for work on one kernel.
//
//   cmake --preset bench && cmake --build --preset bench && build/bench/bin/kernels_bench --benchmark_filter=attention
//
// Names: kernel, backend, dtype, sizes. All processors are used. items_per_second are floating-point operations of
// products (matmul, attention) and rows of the others.
#include <benchmark/benchmark.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/kernels.h"

namespace instruct::kernels {
namespace {

using benchmark::State;
using tensor::DType;

constexpr std::int64_t kWidth = 576, kFeedForward = 1536, kVocabulary = 49152;
constexpr std::int64_t kQueryHeads = 9, kKeyHeads = 3, kHeadWidth = 64;

struct Machine {
  ThreadPool pool;
  std::shared_ptr<tensor::Allocator> allocator = tensor::make_host_allocator();
  std::unique_ptr<ProductCache> products = cpu::make_product_cache(detect_cpu_features());
  Stream stream{pool, *allocator, products.get()};

  Tensor empty(const tensor::Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, *allocator); }
  // Values in [-0.5, 0.5).
  Tensor random(const tensor::Shape& shape, DType dtype) {
    Tensor values = empty(shape, DType::kF32);
    const RandomStream stream_of_values(7, RandomPurpose::kTest);
    for (std::int64_t i = 0; i < values.elements(); ++i)
      values.data<float>()[i] = stream_of_values.uniform(static_cast<std::uint64_t>(i)) - 0.5F;
    if (dtype == DType::kF32) return values;
    Tensor converted = empty(shape, dtype);
    cpu::convert(stream, values, converted);
    return converted;
  }
};

// What the state's arguments mean is the business of each function; `kernel` is one backend's.
void matmul(State& state, decltype(&cpu::matmul) kernel, DType dtype) {
  Machine machine;
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Matmul product{.a = machine.random({m, k}, dtype),
                       .b = machine.random({n, k}, dtype),
                       .c = machine.empty({m, n}, dtype),
                       .transpose_b = Transpose::kYes};
  for (auto _ : state) kernel(machine.stream, product);
  state.SetItemsProcessed(state.iterations() * 2 * m * n * k);
}

// Rows that start with the same `shared` tokens: branches of one segment, or side by side when nothing is shared.
struct Attention {
  Attention(std::int64_t rows, std::int64_t row_length, std::int64_t shared, DType dtype)
      : tokens(shared + rows * (row_length - shared)) {
    std::vector<tensor::Segment> segments;
    if (shared > 0) segments.push_back({.begin = 0, .end = shared});
    const std::int32_t parent = shared > 0 ? 0 : -1;
    for (std::int64_t begin = shared; begin < tokens; begin += row_length - shared)
      segments.push_back({.begin = begin, .end = begin + row_length - shared, .parent = parent});
    // Causal: token t of a row sees t + 1 keys.
    pairs = (rows * row_length * (row_length + 1) - (rows - 1) * shared * (shared + 1)) / 2;
    plan = tensor::plan_of(segments);
    args = {.query = machine.random({tokens, kQueryHeads * kHeadWidth}, dtype),
            .key = machine.random({tokens, kKeyHeads * kHeadWidth}, dtype),
            .value = machine.random({tokens, kKeyHeads * kHeadWidth}, dtype),
            .head_width = kHeadWidth,
            .scale = 1.0F / std::sqrt(static_cast<float>(kHeadWidth)),
            .plan = &plan};
    output = machine.empty({tokens, kQueryHeads * kHeadWidth}, dtype);
    log_sum = machine.empty({tokens, kQueryHeads}, DType::kF32);
  }
  std::int64_t operations_of_a_product() const { return 2 * pairs * kQueryHeads * kHeadWidth; }

  Machine machine;
  std::int64_t tokens;
  std::int64_t pairs = 0;  // of queries and keys
  tensor::AttentionPlan plan;
  AttentionArgs args;
  Tensor output;
  Tensor log_sum;
};

void attention(State& state, decltype(&cpu::attention) kernel, DType dtype) {
  Attention at(state.range(0), state.range(1), state.range(2), dtype);
  for (auto _ : state) kernel(at.machine.stream, at.args, at.output, at.log_sum);
  state.SetItemsProcessed(state.iterations() * 2 * at.operations_of_a_product());
}

// New tokens of one row behind those in a cache: a step of generation, or the verification of proposed tokens.
void cached_attention(State& state, decltype(&cpu::attention) kernel, DType dtype) {
  const std::int64_t cached = state.range(0), queries = state.range(1);
  Attention at(1, cached + queries, 0, dtype);
  at.plan.queries = {{.begin = 0, .end = queries, .self_begin = cached, .visible = {{0, cached}}}};
  at.args.query = at.args.query.rows(0, queries);
  at.output = at.output.rows(0, queries);
  at.log_sum = at.log_sum.rows(0, queries);
  for (auto _ : state) kernel(at.machine.stream, at.args, at.output, at.log_sum);
  state.SetItemsProcessed(state.iterations() * 4 * queries * cached * kQueryHeads * kHeadWidth);
}

void attention_backward(State& state, decltype(&cpu::attention_backward) kernel, DType dtype) {
  Attention at(state.range(0), state.range(1), state.range(2), dtype);
  cpu::attention(at.machine.stream, at.args, at.output, at.log_sum);
  const Tensor doutput = at.machine.random(at.output.shape(), dtype);
  Tensor dquery = at.machine.empty(at.args.query.shape(), dtype);
  Tensor dkey = at.machine.empty(at.args.key.shape(), dtype);
  Tensor dvalue = at.machine.empty(at.args.key.shape(), dtype);
  for (auto _ : state)
    kernel(at.machine.stream, at.args, at.output, at.log_sum, doutput, dquery, dkey, dvalue, nullptr);
  state.SetItemsProcessed(state.iterations() * 5 * at.operations_of_a_product());
}

void rms_norm(State& state, decltype(&cpu::rms_norm) kernel, DType dtype) {
  Machine machine;
  const std::int64_t tokens = state.range(0);
  const Tensor x = machine.random({tokens, kWidth}, dtype), weight = machine.random({kWidth}, DType::kF32);
  Tensor y = machine.empty({tokens, kWidth}, dtype), inverse_rms = machine.empty({tokens}, DType::kF32);
  for (auto _ : state) kernel(machine.stream, x, weight, 0.0F, 1e-5F, y, inverse_rms);
  state.SetItemsProcessed(state.iterations() * tokens);
}

// Likelihood alone: with a gradient the logits are replaced, and each round would start from other ones.
void cross_entropy(State& state, decltype(&cpu::cross_entropy) kernel, DType /*dtype*/) {
  Machine machine;
  const std::int64_t rows = state.range(0);
  Tensor logits = machine.random({rows, kVocabulary}, DType::kF32);
  std::vector<std::int32_t> targets;
  for (std::int64_t i = 0; i < rows; ++i) targets.push_back(static_cast<std::int32_t>(i * 97 % kVocabulary));
  const std::vector<float> weights(targets.size(), 1.0F);
  std::vector<float> log_probability(targets.size());
  for (auto _ : state) kernel(machine.stream, logits, kVocabulary, targets, weights, log_probability, nullptr);
  state.SetItemsProcessed(state.iterations() * rows);
}

using Arguments = std::vector<std::vector<std::int64_t>>;

// Registers both backends of a kernel. The plain loops get the first, smallest size only: they are slow.
template <typename Body, typename Kernel>
void add(const std::string& name, Body body, Kernel fast, Kernel plain, const std::vector<DType>& dtypes,
         const Arguments& sizes) {
  for (const DType dtype : dtypes) {
    const std::string type(tensor::info(dtype).name);
    auto* of_cpu = benchmark::RegisterBenchmark((name + "/cpu/" + type).c_str(), body, fast, dtype);
    auto* of_reference = benchmark::RegisterBenchmark((name + "/reference/" + type).c_str(), body, plain, dtype);
    for (const auto& size : sizes) of_cpu->Args(size);
    of_reference->Args(sizes.front());
    for (auto* one : {of_cpu, of_reference}) one->UseRealTime()->Unit(benchmark::kMicrosecond);
  }
}

void add_all() {
  const std::vector<DType> both{DType::kF32, DType::kBF16};
  add("matmul", matmul, &cpu::matmul, &reference::matmul, both,
      {{128, kWidth, kWidth}, {2048, kWidth, kWidth}, {2048, kFeedForward, kWidth}, {2048, kWidth, kFeedForward}});
  add("cached_attention", cached_attention, &cpu::attention, &reference::attention, both,
      {{512, 1}, {512, 4}, {512, 8}, {512, 16}, {512, 32}, {4096, 1}, {4096, 8}, {4096, 16}});
  // Rows, their length, what they share: plain ones, four instructions over a document, the labels of a set.
  const Arguments attended{{1, 128, 0},  {1, 256, 0}, {1, 512, 0}, {1, 1024, 0},  {1, 2048, 0}, {1, 4096, 0},
                           {1, 8192, 0}, {4, 512, 0}, {4, 840, 0}, {4, 840, 800}, {77, 444, 0}, {77, 444, 440}};
  add("attention", attention, &cpu::attention, &reference::attention, both, attended);
  add("attention_backward", attention_backward, &cpu::attention_backward, &reference::attention_backward, both,
      attended);
  add("rms_norm", rms_norm, &cpu::rms_norm, &reference::rms_norm, both, {{128}, {2048}});
  add("cross_entropy", cross_entropy, &cpu::cross_entropy, &reference::cross_entropy, {DType::kF32}, {{16}, {128}});
}

}  // namespace
}  // namespace instruct::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  instruct::kernels::add_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
