// Plans of attention and what they are computed over, for its tests.
#pragma once

#include "kernels/test_support.h"

namespace instruct::kernels::testing {

using tensor::AttentionPlan;
using tensor::Segment;

struct Heads {
  std::int64_t query = 4;   // H
  std::int64_t key = 2;     // G
  std::int64_t width = 16;  // K
};

struct AttentionCase {
  std::string name;
  AttentionPlan plan;
  std::int64_t keys = 0;  // S
  Heads heads = {};
  std::int64_t window = 0;
  float soft_cap = 0;
  std::int64_t reach = 0;  // of a bias of distances, 0: none
  DType dtype = DType::kF32;
  Layout layout = Layout::kDense;
};

inline std::int64_t query_count(const AttentionPlan& plan) {
  return plan.queries.empty() ? 0 : plan.queries.back().end;
}

inline AttentionCase tree_case(std::string name, const std::vector<Segment>& segments) {
  AttentionCase made{.name = std::move(name), .plan = tensor::plan_of(segments), .heads = {}};
  made.keys = query_count(made.plan);
  return made;
}

// Rows of the given lengths side by side, each a tree of one segment.
inline std::vector<Segment> rows_of(const std::vector<std::int64_t>& lengths) {
  std::vector<Segment> segments;
  std::int64_t at = 0;
  for (const std::int64_t length : lengths) {
    segments.push_back({.begin = at, .end = at + length});
    at += length;
  }
  return segments;
}

// Segments of the given lengths with the given parents.
inline std::vector<Segment> tree_of(const std::vector<std::int64_t>& lengths,
                                    const std::vector<std::int32_t>& parents) {
  std::vector<Segment> segments = rows_of(lengths);
  for (std::size_t i = 0; i < segments.size(); ++i) segments[i].parent = parents[i];
  return segments;
}

inline std::vector<Segment> depth_three_tree() {
  return tree_of({70, 20, 7, 9, 33, 1, 2, 3}, {-1, 0, 1, 1, 0, 4, 4, 0});
}

// A second tree between the parts of the first: what is summed together must not be guessed from neighbours.
inline std::vector<Segment> interleaved_trees() {
  return tree_of({40, 12, 30, 17, 25, 9, 6}, {-1, 0, -1, 0, 2, 1, 4});
}

// New tokens after a cache: query i sits at key cached + i of an array longer than needed.
inline AttentionCase decode_case(std::int64_t cached, std::int64_t count, std::int64_t capacity) {
  AttentionCase made{.name = fmt::format("{} queries after {} cached keys", count, cached), .plan = {}, .heads = {}};
  made.plan.queries.push_back({.begin = 0, .end = count, .self_begin = cached, .visible = {}});
  if (cached > 0) made.plan.queries[0].visible.push_back({0, cached});
  made.keys = capacity;
  return made;
}

// Several sequences that share a prompt in one cache, each with its own range behind it, as in batched decoding.
inline AttentionCase branched_decode_case() {
  AttentionCase made{.name = "three branches of one cached prompt", .plan = {}, .heads = {}};
  made.plan.queries = {{.begin = 0, .end = 1, .self_begin = 130, .visible = {{0, 100}, {120, 130}}},
                       {.begin = 1, .end = 2, .self_begin = 155, .visible = {{0, 100}, {150, 155}}},
                       {.begin = 2, .end = 3, .self_begin = 180, .visible = {{0, 100}}}};
  made.keys = 200;
  return made;
}

// Rows that are seen whole, as encoders see them.
inline AttentionCase whole_case(std::string name, const std::vector<std::int64_t>& lengths) {
  AttentionCase made{.name = std::move(name), .plan = tensor::plan_of_whole_rows(rows_of(lengths)), .heads = {}};
  made.keys = query_count(made.plan);
  return made;
}

// Blocks of queries that see chosen blocks of keys and none of their own, some behind them.
inline AttentionCase blocks_case() {
  AttentionCase made{.name = "blocks of keys", .plan = {}, .keys = 260, .heads = {}};
  using tensor::OwnKeys;
  made.plan.queries = {
      {.begin = 0, .end = 64, .self_begin = 0, .visible = {{0, 260}}, .own = OwnKeys::kNone},
      {.begin = 64, .end = 128, .self_begin = 0, .visible = {{0, 40}, {130, 135}, {200, 260}}, .own = OwnKeys::kNone},
      {.begin = 128, .end = 131, .self_begin = 0, .visible = {{0, 40}, {250, 260}}, .own = OwnKeys::kNone},
      {.begin = 131, .end = 170, .self_begin = 0, .visible = {{17, 18}}, .own = OwnKeys::kNone}};
  return made;
}

inline std::vector<AttentionCase> plans() {
  std::vector<AttentionCase> cases;
  for (const std::int64_t length : {0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 128, 200}) {
    cases.push_back(tree_case(fmt::format("one row of {}", length), rows_of({length})));
  }
  cases.push_back(tree_case("packed rows", rows_of({5, 64, 1, 90, 3, 17})));
  cases.push_back(tree_case("packed rows with an empty one", rows_of({5, 0, 20})));
  cases.push_back(tree_case("tree of depth three", depth_three_tree()));
  cases.push_back(tree_case("interleaved trees", interleaved_trees()));
  cases.push_back(decode_case(1000, 1, 1024));
  cases.push_back(decode_case(0, 1, 8));
  cases.push_back(decode_case(33, 6, 64));
  cases.push_back(decode_case(100, 70, 300));
  cases.push_back(branched_decode_case());
  for (const std::int64_t length : {1, 3, 5, 31, 32, 33, 64, 65, 200})
    cases.push_back(whole_case(fmt::format("a row of {} seen whole", length), {length}));
  cases.push_back(whole_case("rows seen whole", {5, 64, 1, 90, 3, 17}));
  cases.push_back(blocks_case());
  // Ranges that end within the stretches that the direct path cuts keys into.
  AttentionCase scattered{
      .name = "three queries after ranges of 300 and 310 keys", .plan = {}, .keys = 710, .heads = {}};
  scattered.plan.queries = {{.begin = 0, .end = 3, .self_begin = 700, .visible = {{0, 300}, {310, 620}}}};
  cases.push_back(scattered);
  return cases;
}

inline constexpr std::array kHeads = {Heads{9, 3, 64}, Heads{4, 4, 16}, Heads{2, 1, 80}, Heads{2, 2, 128},
                                      Heads{1, 1, 2}};

inline std::string text(const AttentionCase& c) {
  return fmt::format("{}; H={} G={} K={} window {} cap {} reach {} {} {}", c.name, c.heads.query, c.heads.key,
                     c.heads.width, c.window, c.soft_cap, c.reach, info(c.dtype).name,
                     c.layout == Layout::kGaps ? "with gaps" : "dense");
}

// The tensors of a case.
struct Inputs {
  Operand query, key, value, doutput;
  Tensor relative = {};
  AttentionArgs args(const AttentionCase& c) const {
    return {.query = query.view,
            .key = key.view,
            .value = value.view,
            .head_width = c.heads.width,
            .scale = 1.0F / std::sqrt(static_cast<float>(c.heads.width)),
            .window = c.window,
            .soft_cap = c.soft_cap,
            .relative = relative,
            .plan = &c.plan};
  }
};

inline Inputs make_inputs(const AttentionCase& c, tensor::Allocator& allocator) {
  const std::int64_t queries = query_count(c.plan);
  Inputs made{.query = make_operand({queries, c.heads.query * c.heads.width}, c.dtype, c.layout, allocator),
              .key = make_operand({c.keys, c.heads.key * c.heads.width}, c.dtype, c.layout, allocator),
              .value = make_operand({c.keys, c.heads.key * c.heads.width}, c.dtype, c.layout, allocator),
              .doutput = make_operand({queries, c.heads.query * c.heads.width}, c.dtype, c.layout, allocator)};
  RandomStream random(29, RandomPurpose::kTest);
  fill_uniform(made.query.view, random, 0, 2);
  fill_uniform(made.key.view, random, 0, 2);
  fill_uniform(made.value.view, random, 0, 1);
  fill_uniform(made.doutput.view, random, 0, 1);
  if (c.reach > 0) {
    made.relative = Tensor::empty({c.heads.query, 2 * c.reach + 1}, DType::kF32, allocator);
    fill_uniform(made.relative, random, 0, 1);
  }
  return made;
}

struct Forward {
  Operand output;
  Tensor log_sum;
};

inline Forward forward(void (*kernel)(Stream&, const AttentionArgs&, Tensor&, Tensor&), const AttentionCase& c,
                       const Inputs& inputs, Machine& machine) {
  Forward made{.output = make_operand(inputs.query.view.shape(), c.dtype, c.layout, *machine.allocator),
               .log_sum = Tensor::empty({query_count(c.plan), c.heads.query}, DType::kF32, *machine.allocator)};
  kernel(machine.stream, inputs.args(c), made.output.view, made.log_sum);
  return made;
}

struct Gradients {
  Operand query, key, value;
  Tensor relative = {};
};

using BackwardKernel = void (*)(Stream&, const AttentionArgs&, const Tensor&, const Tensor&, const Tensor&, Tensor&,
                                Tensor&, Tensor&, Tensor*);

inline Gradients backward(BackwardKernel kernel, const AttentionCase& c, const Inputs& inputs, const Forward& kept,
                          Machine& machine) {
  tensor::Allocator& allocator = *machine.allocator;
  Gradients made{.query = make_operand(inputs.query.view.shape(), c.dtype, c.layout, allocator),
                 .key = make_operand(inputs.key.view.shape(), c.dtype, c.layout, allocator),
                 .value = make_operand(inputs.value.view.shape(), c.dtype, c.layout, allocator)};
  if (c.reach > 0) made.relative = Tensor::empty(inputs.relative.shape(), DType::kF32, allocator);
  kernel(machine.stream, inputs.args(c), kept.output.view, kept.log_sum, inputs.doutput.view, made.query.view,
         made.key.view, made.value.view, c.reach > 0 ? &made.relative : nullptr);
  return made;
}

// Scores: |scale q.k| <= 4 sqrt(K), their rounding error grows with the sum over K. It enters the softmax as a relative
// error of every probability, hence once more in the log of the sum. The output is an average of values below 1. A soft
// cap makes errors smaller and adds a few roundings of a smaller score.
inline double score_error(const AttentionCase& c) {
  return sum_units(c.heads.width) * kUnit * 4;
}

// In bf16 the probabilities may be rounded to bf16 before they meet the values: a relative error of 2^-9 each (half a
// spacing), on an average of values below 1.
inline double probability_error(const AttentionCase& c) {
  return c.dtype == DType::kBF16 ? 0x1p-9 : 0.0;
}

inline Bound output_bound(const AttentionCase& c) {
  return {.relative = 4, .absolute = 2 * score_error(c) + sum_units(c.keys) * kUnit + probability_error(c)};
}

inline Bound log_sum_bound(const AttentionCase& c) {
  return {.relative = 4, .absolute = 2 * score_error(c) + sum_units(c.keys) * kUnit};
}

// dq = sum_k p_k (do.v_k - do.o) scale k: |do.v - do.o| stays below 2 sqrt(K) and |scale k| below 2, so with the
// probabilities summing to one |dq| is below 4 sqrt(K). Per-probability relative errors: the score error, and in bf16
// the rounding of ds and of the kept output inside do.o (2^-9 each).
inline Bound query_gradient_bound(const AttentionCase& c) {
  const double size =
      4 * std::sqrt(static_cast<double>(c.heads.width)) * 2 / std::sqrt(static_cast<double>(c.heads.width));
  const double relative = 4 * score_error(c) + sum_units(c.keys) * kUnit + 2 * probability_error(c);
  return {.relative = 4, .absolute = size * relative};
}

}  // namespace instruct::kernels::testing
