#include "bench/figures.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "base/cancel.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "bench/limits.h"
#include "ops/cross_entropy.h"
#include "train/token_objective.h"

namespace instruct::bench {
namespace {

using Clock = std::chrono::steady_clock;

double timed(const std::function<void()>& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Sorted seconds of repeated runs, after one that is not counted.
std::vector<double> timings(std::int64_t repeats, const std::function<void()>& body) {
  body();
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < repeats; ++i) {
    throw_if_cancelled("benchmark");
    seconds.push_back(timed(body));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocabulary, RandomStream& random) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>(random.next_below(static_cast<std::uint64_t>(vocabulary))));
  return tokens;
}

void check_length(std::int64_t length, std::int64_t context) {
  if (length > context)
    raise(ErrorCategory::kInvalidArgument, "rows of {} tokens: the model's context is {}", length, context);
}

data::Batch random_batch(const models::LanguageModel& model, const PassOptions& options) {
  check_length(options.length, model.sizes().context_length);
  RandomStream random(options.seed, RandomPurpose::kTest);
  std::vector<data::EncodedRow> rows(static_cast<std::size_t>(options.rows));
  std::vector<const data::EncodedRow*> pointers;
  for (data::EncodedRow& row : rows) {
    row.tokens = random_tokens(options.length + 1, model.sizes().vocabulary, random);  // the last is only predicted
    row.trained.assign(row.tokens.size(), 1);
    pointers.push_back(&row);
  }
  return data::make_batch(pointers, data::Layout::kRows);
}

// Seconds the products of a pass take alone.
double limit_seconds(ops::Engine& engine, models::LanguageModel& model, const adapters::LoraAdapter* adapter,
                     const data::BatchCost& cost, Purpose purpose) {
  constexpr double kSecondsEach = 0.15;
  constexpr std::int64_t kWidest = 1 << 24;  // elements of a result; larger products are measured in part
  double seconds = 0;
  for (const Product& product : linear_products(model, cost, purpose)) {
    const std::int64_t rows = std::max<std::int64_t>(1, std::min(product.m, kWidest / product.n));
    seconds += product.operations() / product_rate(engine, model.dtype(), rows, product.n, product.k, kSecondsEach);
  }
  const Work work = work_of(model, adapter, cost, purpose);
  return seconds + (work.adapter + work.attention) / peak_product_rate(engine, model.dtype(), kSecondsEach);
}

Value pass_value(const std::vector<double>& seconds, double limit, const PassOptions& options) {
  const double median = seconds[seconds.size() / 2];
  const auto tokens = static_cast<double>(options.rows * options.length);
  return Value::object({{"rows", options.rows},
                        {"length", options.length},
                        {"tokens_per_second", tokens / median},
                        {"seconds", median},
                        {"seconds_least", seconds.front()},
                        {"seconds_most", seconds.back()},
                        {"limit_seconds", limit},
                        {"limit_tokens_per_second", tokens / limit},
                        {"limit_share", limit / median},
                        {"peak_rss_bytes", peak_resident_bytes()}});
}

}  // namespace

Value bench_train(ops::Engine& engine, models::LanguageModel& model, adapters::LoraAdapter* adapter,
                  const PassOptions& options) {
  std::vector<train::Optimizer::Named> parameters;
  if (adapter != nullptr) {
    for (adapters::LoraModule& module : adapter->modules()) {
      parameters.push_back({module.name + ".lora_A", module.a, {}});
      parameters.push_back({module.name + ".lora_B", module.b, {}});
    }
  } else {
    for (const models::NamedWeight& weight : models::trained_weights(model))
      parameters.push_back({weight.name, weight.variable, {}});
  }
  train::Optimizer optimizer({.moments = options.moments}, std::move(parameters), engine.allocator());
  const data::Batch batch = random_batch(model, options);
  const auto weight = static_cast<float>(1.0 / static_cast<double>(batch.losses.size()));
  const std::vector<double> seconds = timings(options.repeats, [&] {
    train::batch_loss(engine, model, batch, weight, model.sizes().vocabulary, options.checkpoint);
    optimizer.step(engine.context(), 1e-5, optimizer.gradient_norm(engine.context()));
  });
  const std::int64_t peak = peak_resident_bytes();  // before the limits are measured
  const Purpose purpose = adapter != nullptr ? Purpose::kLora : Purpose::kFull;
  const double limit = limit_seconds(engine, model, adapter, data::cost_of(batch), purpose);
  Value value = pass_value(seconds, limit, options);
  value.set("peak_rss_bytes", peak);
  return value;
}

Value bench_score(ops::Engine& engine, models::LanguageModel& model, const PassOptions& options) {
  const data::Batch batch = random_batch(model, options);
  const std::vector<double> seconds =
      timings(options.repeats, [&] { train::batch_loss(engine, model, batch, 0.0F, model.sizes().vocabulary); });
  const std::int64_t peak = peak_resident_bytes();
  const double limit = limit_seconds(engine, model, nullptr, data::cost_of(batch), Purpose::kForward);
  Value value = pass_value(seconds, limit, options);
  value.set("peak_rss_bytes", peak);
  return value;
}

Value bench_encode(ops::Engine& engine, models::Encoder& encoder, const PassOptions& options, bool backward) {
  const models::EncoderConfig& config = encoder.config();
  check_length(options.length, config.context_length);
  RandomStream random(options.seed, RandomPurpose::kTest);
  const std::int64_t tokens = options.rows * options.length;
  std::vector<tensor::Segment> rows;
  for (std::int64_t begin = 0; begin < tokens; begin += options.length)
    rows.push_back({begin, begin + options.length, -1});
  const tensor::AttentionPlan plan = tensor::plan_of_whole_rows(rows);
  std::vector<std::int32_t> positions = tensor::positions_of(rows);
  for (std::int32_t& position : positions) position += static_cast<std::int32_t>(config.first_position);
  const std::vector<std::int32_t> ids = random_tokens(tokens, config.vocabulary, random);
  const std::vector<std::int32_t> types(static_cast<std::size_t>(tokens), 0);
  const std::vector<double> seconds = timings(options.repeats, [&] {
    autograd::Tape tape;
    const ops::Context context = engine.context(backward ? &tape : nullptr);
    const ops::Variable last = encoder.hidden(context, {.tokens = ids,
                                                        .positions = positions,
                                                        .types = types,
                                                        .plan = &plan,
                                                        .rows = {},
                                                        .checkpoint = options.checkpoint});
    if (!backward) return;
    last.mutable_gradient() = last.value();  // whatever it is, it costs the same
    tape.backward();
    for (const models::NamedWeight& weight : encoder.weights()) weight.variable.mutable_gradient() = {};
  });
  const double median = seconds[seconds.size() / 2];
  return Value::object({{"rows", options.rows},
                        {"length", options.length},
                        {"tokens_per_second", static_cast<double>(tokens) / median},
                        {"microseconds_per_token", 1e6 * median / static_cast<double>(tokens)},
                        {"seconds", median},
                        {"seconds_least", seconds.front()},
                        {"seconds_most", seconds.back()},
                        {"peak_rss_bytes", peak_resident_bytes()}});
}

namespace {

std::vector<generate::Request> random_requests(const tokenizers::Tokenizer& tokenizer,
                                               const GenerateBenchOptions& options) {
  RandomStream random(options.seed, RandomPurpose::kTest);
  const std::int64_t count = options.requests > 0 ? options.requests : options.batch;
  std::vector<generate::Request> requests(static_cast<std::size_t>(count));
  for (generate::Request& request : requests) {
    request.prompt = random_tokens(options.prompt_tokens, tokenizer.vocabulary_size(), random);
    request.ignore_end = true;
    request.max_new_tokens = options.new_tokens;
    if (options.adapters > 0)
      request.adapter = static_cast<std::int32_t>((&request - requests.data()) % options.adapters);
  }
  if (!options.uneven) return requests;
  for (generate::Request& request : requests) {
    const std::int64_t least = (options.new_tokens + 7) / 8;
    request.max_new_tokens = least + static_cast<std::int64_t>(
                                         random.next_below(static_cast<std::uint64_t>(options.new_tokens - least + 1)));
  }
  return requests;
}

// What one run over all requests took.
struct Timing {
  double seconds = 0;
  double prompt_seconds = 0;     // until every answer had begun
  std::int64_t early_steps = 0;  // steps of answers in that time
};

Timing timed_run(generate::Generator& generator, std::span<const generate::Request> requests) {
  const auto start = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  std::vector<bool> begun(requests.size(), false);
  std::size_t left = requests.size();
  Timing timing;
  generator.run(requests, {}, [&](std::size_t index, std::string_view) {
    if (left == 0) return;
    ++timing.early_steps;
    if (begun[index]) return;
    begun[index] = true;
    if (--left == 0) timing.prompt_seconds = passed();
  });
  timing.seconds = passed();
  return timing;
}

}  // namespace

Value bench_generate(ops::Engine& engine, models::LanguageModel& model, const tokenizers::Tokenizer& tokenizer,
                     const GenerateBenchOptions& options) {
  const std::vector<generate::Request> requests = random_requests(tokenizer, options);
  const auto count = static_cast<std::int64_t>(requests.size());
  std::int64_t new_tokens = 0;
  for (const generate::Request& request : requests) new_tokens += request.max_new_tokens;
  generate::GenerateOptions settings = options.engine;
  settings.max_batch = options.batch;
  settings.max_slots = INT64_MAX;
  generate::Generator generator(engine, model, tokenizer, settings);
  std::vector<Timing> runs;
  for (std::int64_t i = 0; i <= options.repeats; ++i) {
    throw_if_cancelled("benchmark");
    const Timing timing = timed_run(generator, requests);
    if (i > 0) runs.push_back(timing);
  }
  std::sort(runs.begin(), runs.end(), [](const Timing& a, const Timing& b) { return a.seconds < b.seconds; });
  const Timing& median = runs[runs.size() / 2];
  const std::int64_t peak = peak_resident_bytes();
  Value value = Value::object({{"prompt_tokens", options.prompt_tokens},
                               {"new_tokens", options.new_tokens},
                               {"batch", options.batch},
                               {"requests", count}});
  if (options.engine.prompt_lookup > 0) value.set("tokens_per_step", generator.counts().tokens_per_step());
  const auto all = static_cast<double>(count * options.prompt_tokens + new_tokens);
  value.set("total_tokens_per_second", all / median.seconds);
  if (count <= options.batch && !options.uneven) {
    const std::int64_t weights = weight_bytes(model);
    const double rest = std::max(1e-9, median.seconds - median.prompt_seconds);
    const double rate = static_cast<double>(new_tokens - median.early_steps) / rest;
    const double bandwidth = read_bandwidth(engine, std::int64_t{512} << 20, 0.5);
    value.set("prompt_tokens_per_second", static_cast<double>(count * options.prompt_tokens) / median.prompt_seconds);
    value.set("generation_tokens_per_second", rate);
    value.set("memory_bytes_per_second", bandwidth);
    value.set("weight_bytes", weights);
    const std::int64_t slot = model.make_cache(1, engine.allocator(), options.engine.cache_type).bytes_per_slot();
    const std::int64_t keys = count * (options.prompt_tokens + options.new_tokens / 2) * slot;
    value.set("key_value_bytes", keys);
    value.set("limit_share", rate / static_cast<double>(count) * static_cast<double>(weights + keys) / bandwidth);
  }
  value.set("cache_bytes", generator.cache_bytes());
  value.set("peak_rss_bytes", peak);
  return value;
}

Value bench_cross_entropy(ops::Engine& engine, const CrossEntropyOptions& options) {
  constexpr double kSecondsEach = 0.5;
  constexpr std::int64_t kPart = 4096;  // of the vocabulary, for the products alone
  const std::int64_t part = std::min(kPart, options.vocabulary);
  tensor::Allocator& allocator = engine.allocator();
  const autograd::Variable weight(random_matrix(options.vocabulary, options.width, options.dtype, allocator));
  const autograd::Variable x(random_matrix(options.tokens, options.width, options.dtype, allocator), true);
  RandomStream random(1, RandomPurpose::kTest);
  const std::vector<std::int32_t> targets = random_tokens(options.tokens, options.vocabulary, random);
  const std::vector<float> weights(targets.size(), 1.0F / static_cast<float>(targets.size()));
  const std::int64_t before = peak_resident_bytes();
  const std::vector<double> seconds = timings(options.repeats, [&] {
    autograd::Tape tape;
    ops::linear_cross_entropy(engine.context(&tape), x, weight, {targets, weights}, options.vocabulary);
    tape.backward();
    x.mutable_gradient() = tensor::Tensor();
  });
  const std::int64_t scratch = peak_resident_bytes() - before;
  const double median = seconds[seconds.size() / 2];
  const double operations = 2.0 * static_cast<double>(options.tokens * options.width * options.vocabulary);
  const double forward = product_rate(engine, options.dtype, options.tokens, part, options.width, kSecondsEach);
  const double backward = product_rate(engine, options.dtype, options.tokens, options.width, part, kSecondsEach);
  const double products = operations / forward + operations / backward;
  return Value::object({{"tokens", options.tokens},
                        {"width", options.width},
                        {"vocabulary", options.vocabulary},
                        {"dtype", std::string(tensor::info(options.dtype).name)},
                        {"seconds", median},
                        {"seconds_least", seconds.front()},
                        {"seconds_most", seconds.back()},
                        {"gflops", 2 * operations / median / 1e9},
                        {"products_seconds", products},
                        {"limit_share", products / median},
                        {"scratch_bytes", scratch}});
}

Value bench_kernels(ops::Engine& engine, models::LanguageModel& model, std::int64_t rows) {
  constexpr double kSecondsEach = 0.3;
  const double peak = peak_product_rate(engine, model.dtype(), kSecondsEach);
  Value products = Value::array();
  for (const Product& product : linear_products(
           model, {.tokens = rows, .attended = 0, .predictions = std::min<std::int64_t>(rows, 256)}, Purpose::kFull)) {
    throw_if_cancelled("benchmark");
    const double rate = product_rate(engine, model.dtype(), product.m, product.n, product.k, kSecondsEach);
    Value shape = Value::object(
        {{"m", product.m}, {"n", product.n}, {"k", product.k}, {"gflops", rate / 1e9}, {"limit_share", rate / peak}});
    if (product.n % 32 == 0 && product.k % 32 == 0) {
      const double integers =
          integer_product_rate(engine, model.dtype(), product.m, product.n, product.k, kSecondsEach);
      shape.set("int8_gops", integers / 1e9);
    }
    products.push(shape);
  }
  return Value::object(
      {{"dtype", std::string(tensor::info(model.dtype()).name)},
       {"peak_gflops", peak / 1e9},
       {"peak_int8_gops", integer_product_rate(engine, model.dtype(), 1024, 1024, 1024, kSecondsEach) / 1e9},
       {"products", products},
       {"memory_bytes_per_second", read_bandwidth(engine, std::int64_t{512} << 20, 0.5)},
       {"cache_bytes_per_second", read_bandwidth(engine, std::int64_t{256} << 10, 0.2)}});
}

}  // namespace instruct::bench
