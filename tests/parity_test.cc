// Whole models against transformers and PEFT (tests/goldens/models/make.py), and the invariances training promises.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "bench/forecast.h"
#include "data/encode.h"
#include "evaluate/score.h"
#include "generate/generator.h"
#include "models/adapter_files.h"
#include "models/export.h"
#include "models/package.h"
#include "models/test_support.h"
#include "train/checkpoint.h"
#include "train/token_objective.h"
#include "train/trainer.h"

namespace instruct {
namespace {

namespace fs = std::filesystem;
using tensor::DType;

// A model with everything around it, opened from a folder or file.
struct Opened {
  explicit Opened(const fs::path& path, const models::WeightOptions& options = {}, int threads = 2)
      : engine(threads),
        package(models::open_package(path, models::PackageParts::kAll, options, engine.allocator())),
        dialogue(dialogue_of(package)) {}
  static instructions::DialogueEncoder dialogue_of(const models::Package& package) {
    if (!package.seq2seq) return {*package.tokenizer, package.chat_template, package.path.string()};
    return {*package.tokenizer, instructions::TextToText{.start = package.seq2seq->start,
                                                         .forced_first = package.seq2seq->forced_first,
                                                         .source = package.source_tokenizer.get()}};
  }
  ops::Engine engine;
  models::Package package;
  instructions::DialogueEncoder dialogue;
};

class Parity : public ::testing::TestWithParam<std::string> {
 protected:
  fs::path folder() const { return models::golden_writer(GetParam()); }
  Value expected() const { return parse_json(read_file(folder() / "expected.json"), "expected.json"); }

  static std::vector<data::EncodedRow> encode(const Opened& opened, const fs::path& rows) {
    const data::Dataset dataset = data::read_dataset(rows);
    const data::RowEncoder encoder(opened.dialogue, nullptr);
    std::vector<std::int64_t> indices(dataset.examples.size());
    std::iota(indices.begin(), indices.end(), std::int64_t{0});
    data::EncodeReport report;
    return encoder.encode_all(dataset, indices, {}, report);
  }
  static std::vector<std::int32_t> tokens_of(const Value& ids) {
    std::vector<std::int32_t> tokens;
    for (const Value& id : ids.as_array()) tokens.push_back(static_cast<std::int32_t>(id.as_integer()));
    return tokens;
  }
  std::vector<data::EncodedRow> rows(const Opened& opened) const { return encode(opened, folder() / "rows.jsonl"); }

  static std::vector<double> scores(Opened& opened, const std::vector<data::EncodedRow>& rows, data::Layout layout) {
    std::vector<double> result;
    for (const auto& score : evaluate::score_rows(opened.engine, *opened.package.model, rows,
                                                  opened.package.tokenizer->vocabulary_size(), {.layout = layout})) {
      result.push_back(score.log_probability);
    }
    return result;
  }
};

TEST_P(Parity, TokensAndMasksAreTheOfficialOnes) {
  const Opened opened(folder());
  const Value golden = expected();
  const auto encoded = rows(opened);
  ASSERT_EQ(encoded.size(), golden.at("rows").size());
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    const Value& row = golden.at("rows").as_array()[i];
    ASSERT_EQ(encoded[i].tokens.size(), row.at("ids").size()) << "row " << i;
    for (std::size_t t = 0; t < encoded[i].tokens.size(); ++t) {
      EXPECT_EQ(encoded[i].tokens[t], row.at("ids").as_array()[t].as_integer()) << "row " << i << " token " << t;
      EXPECT_EQ(encoded[i].trained[t], row.at("mask").as_array()[t].as_integer()) << "row " << i << " token " << t;
    }
    const Value* source = row.find("source");
    EXPECT_EQ(encoded[i].source, source == nullptr ? 0 : source->as_integer());
  }
}

TEST_P(Parity, AnswersAreAsLikelyAsInTransformers) {
  const Value golden = expected();
  for (const ops::Backend backend : {ops::Backend::kCpu, ops::Backend::kReference}) {
    ops::Engine engine(2, backend);
    const models::Package package = models::open_package(folder(), models::PackageParts::kAll, {}, engine.allocator());
    const Opened for_rows(folder());
    const auto encoded = rows(for_rows);
    for (const data::Layout layout : {data::Layout::kRows, data::Layout::kTree}) {
      const auto scored = evaluate::score_rows(engine, *package.model, encoded, package.tokenizer->vocabulary_size(),
                                               {.layout = layout});
      for (std::size_t i = 0; i < scored.size(); ++i) {
        // f32: a few thousand roundings of relative size 6e-8 on sums of magnitude 10 to 100.
        const double reference = golden.at("rows").as_array()[i].at("logprob").as_double();
        EXPECT_NEAR(scored[i].log_probability, reference, 2e-4) << "row " << i;
      }
    }
  }
}

TEST_P(Parity, GreedyAnswerIsTheSame) {
  Opened opened(folder());
  const Value golden = expected().at("greedy");
  generate::Request request{.prompt = tokens_of(golden.at("prompt")), .max_new_tokens = 12};
  request.source = opened.dialogue.source_tokens(request.prompt);
  std::vector<std::int32_t> answer = tokens_of(golden.at("answer"));
  if (!answer.empty() && answer.back() == *opened.package.tokenizer->eos()) answer.pop_back();
  // The same request three times with others that share its start: one batch, shared prefixes, the same answer.
  std::vector<generate::Request> requests(3, request);
  generate::Request longer = request;
  longer.prompt.push_back(answer.empty() ? 5 : answer.front());
  requests.insert(requests.begin() + 1, longer);
  generate::Generator generator(opened.engine, *opened.package.model, *opened.package.tokenizer);
  const auto answers = generator.run(requests);
  for (const std::size_t i : {std::size_t{0}, std::size_t{2}, std::size_t{3}}) EXPECT_EQ(answers[i].tokens, answer);
  generate::Generator alone(opened.engine, *opened.package.model, *opened.package.tokenizer, {.max_batch = 1});
  EXPECT_EQ(alone.run(requests)[1].tokens, answers[1].tokens);
}

// Answers of beam search: all searches at once and, of the same options, one by one.
TEST_P(Parity, BeamsFindTheOfficialAnswers) {
  Opened opened(folder());
  const Value own = expected();
  const Value of_decoders = parse_json(read_file(fs::path(INSTRUCT_GOLDENS) / "generate" / "beams.json"), "beams.json");
  const Value* searches = opened.package.seq2seq ? own.find("beams") : of_decoders.find(GetParam());
  ASSERT_NE(searches, nullptr);
  std::map<std::string, std::vector<const Value*>> by_options;
  for (const Value& search : searches->as_array()) {
    by_options[fmt::format("{} {} {}", search.at("num_beams").as_integer(), search.at("length_penalty").as_double(),
                           search.at("early_stopping").as_string())]
        .push_back(&search);
  }
  ASSERT_GE(by_options.size(), 4U);
  for (const auto& [name, group] : by_options) {
    const Value& first = *group.front();
    generate::GenerateOptions options{
        .beams = {.count = first.at("num_beams").as_integer(),
                  .length_penalty = first.at("length_penalty").as_double(),
                  .early_stopping = generate::early_stopping_from_name(first.at("early_stopping").as_string())}};
    std::vector<generate::Request> requests;
    for (const Value* search : group) {
      generate::Request request{.prompt = tokens_of(search->at("prompt")),
                                .max_new_tokens = search->at("max_new_tokens").as_integer()};
      request.source = opened.dialogue.source_tokens(request.prompt);
      requests.push_back(std::move(request));
    }
    generate::Generator together(opened.engine, *opened.package.model, *opened.package.tokenizer, options);
    const std::vector<generate::Answer> answers = together.run(requests);
    options.max_batch = 1;
    generate::Generator apart(opened.engine, *opened.package.model, *opened.package.tokenizer, options);
    const std::vector<generate::Answer> alone = apart.run(requests);
    for (std::size_t i = 0; i < group.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, tokens_of(group[i]->at("answer"))) << name << ", search " << i;
      EXPECT_EQ(answers[i].finish == generate::Finish::kStop, group[i]->at("ended").as_bool());
      EXPECT_NEAR(answers[i].log_probability, group[i]->at("log_probability").as_double(), 2e-4);
      EXPECT_EQ(alone[i].tokens, answers[i].tokens) << name;
      EXPECT_NEAR(alone[i].log_probability, answers[i].log_probability, 1e-4) << name;
    }
  }
}

// Ten steps over the golden's batches of three rows.
struct TrainResult {
  std::vector<double> losses, norms, after;
};

struct TrainOptions {
  bool full = false;
  int threads = 2;
  train::Packing packing = train::Packing::kPacked;
  std::int64_t micro_batch = 3;
  std::int64_t pass_rows = 0;
  DType dtype = DType::kF32;
  bool checkpoint = false;  // activation checkpointing
  train::Moments moments = train::Moments::kF32;
  fs::path checkpoint_at_step_4;  // saved there, and training goes on from what was loaded back
};

class Training : public Parity {
 protected:
  // The balance of experts is that of a pass, no sum over rows: rows apart have another.
  bool has_balance() const {
    const Value config = parse_json(read_file(folder() / "config.json"), "config.json");
    const Value* asked = config.find("output_router_logits");
    return asked != nullptr && asked->as_bool();
  }
  TrainResult run(const TrainOptions& options) {
    Opened opened(folder(), {.dtype = options.dtype, .trainable = options.full}, options.threads);
    const auto encoded = rows(opened);
    models::LoadedAdapter adapter;
    auto optimizer = make_optimizer(opened, adapter, options);
    TrainResult result;
    for (std::int64_t step = 0; step < 10; ++step) {
      if (step == 4 && !options.checkpoint_at_step_4.empty()) {
        const fs::path saved = train::save_checkpoint(options.checkpoint_at_step_4, {.position = {.step = step}},
                                                      *optimizer, Value::object(), [](const fs::path&) {});
        adapter = {};
        optimizer = make_optimizer(opened, adapter, options);
        EXPECT_EQ(train::load_checkpoint(saved, *optimizer).position.step, step);
      }
      one_step(opened, encoded, *optimizer, step, options, result);
    }
    result.after = scores(opened, encoded, data::Layout::kRows);
    return result;
  }

 private:
  std::unique_ptr<train::Optimizer> make_optimizer(Opened& opened, models::LoadedAdapter& adapter,
                                                   const TrainOptions& options) {
    std::vector<train::Optimizer::Named> named;
    if (options.full) {
      for (const auto& weight : models::trained_weights(*opened.package.model))
        named.push_back({weight.name, weight.variable, {}});
    } else {
      adapter = models::load_adapter_folder(folder() / "adapter", *opened.package.model, opened.engine.allocator());
      for (std::size_t i = 0; i < adapter.adapter->modules().size(); ++i) {
        const auto& module = adapter.adapter->modules()[i];
        named.push_back({module.name + ".A", module.a, adapter.masters[i].first});
        named.push_back({module.name + ".B", module.b, adapter.masters[i].second});
      }
    }
    return std::make_unique<train::Optimizer>(train::AdamwConfig{.moments = options.moments}, std::move(named),
                                              opened.engine.allocator());
  }

  static void one_step(Opened& opened, const std::vector<data::EncodedRow>& rows, train::Optimizer& optimizer,
                       std::int64_t step, const TrainOptions& options, TrainResult& result) {
    std::vector<data::EncodedRow> chosen;
    for (std::size_t i = 0; i < 3; ++i) chosen.push_back(rows[(3 * static_cast<std::size_t>(step) + i) % rows.size()]);
    const train::LoopOptions loop{.micro_batch_rows = options.micro_batch,
                                  .accumulation = 3 / options.micro_batch,
                                  .pass_rows = options.pass_rows,
                                  .packing = options.packing,
                                  .shuffle = false,
                                  .checkpoint = options.checkpoint,
                                  .max_steps = 1};
    train::TokenObjective objective(
        {.engine = opened.engine,
         .model = *opened.package.model,
         .vocabulary = opened.package.tokenizer->vocabulary_size(),
         .rows = [&](std::int64_t) -> const std::vector<data::EncodedRow>& { return chosen; }},
        loop);
    train::Trainer trainer(opened.engine, objective, optimizer, {train::ScheduleKind::kConstant, 1e-3, 0, 1},
                           loop.step_rows());
    train::Position position;
    trainer.run(position, {.on_step = [&](const train::StepReport& report) {
                  result.losses.push_back(report.loss);
                  result.norms.push_back(report.gradient_norm);
                  return false;
                }});
  }
};

TEST_P(Training, TenStepsFollowPeftAndTransformers) {
  for (const bool full : {false, true}) {
    const Value golden = expected().at(full ? "full" : "lora");
    const TrainResult result = run({.full = full});
    for (std::size_t i = 0; i < 10; ++i) {
      const double loss = golden.at("losses").as_array()[i].as_double();
      EXPECT_NEAR(result.losses[i], loss, 1e-4 * loss) << "step " << i;
      EXPECT_NEAR(result.norms[i], golden.at("norms").as_array()[i].as_double(), 1e-3 * result.norms[i])
          << "step " << i;
    }
    for (std::size_t i = 0; i < result.after.size(); ++i)
      EXPECT_NEAR(result.after[i], golden.at("after").as_array()[i].as_double(), 5e-3);
  }
}

TEST_P(Training, ThreadsAndAKillChangeNotOneBit) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("instruct-parity-{}-{}", ::getpid(), GetParam());
  fs::create_directories(folder);
  for (const TrainOptions& options :
       {TrainOptions{}, TrainOptions{.dtype = DType::kBF16}, TrainOptions{.full = true, .dtype = DType::kBF16},
        TrainOptions{.full = true, .moments = train::Moments::k8Bit},
        TrainOptions{.full = true, .dtype = DType::kBF16, .moments = train::Moments::k8Bit}}) {
    const TrainResult two = run(options);
    TrainOptions alone = options, interrupted = options;
    alone.threads = 1;
    interrupted.checkpoint_at_step_4 = folder;
    const TrainResult one = run(alone);
    const TrainResult resumed = run(interrupted);
    EXPECT_EQ(two.losses, one.losses);
    EXPECT_EQ(two.norms, one.norms);
    EXPECT_EQ(two.after, one.after);
    EXPECT_EQ(two.losses, resumed.losses);
    EXPECT_EQ(two.after, resumed.after);
  }
  fs::remove_all(folder);
}

// Rounded moments give other steps, but of the same length: losses stay within what rounding to 8 bits explains.
TEST_P(Training, MomentsOf8BitsLearnAsFast) {
  // Smaller weights keep moments in full.
  const Opened opened(folder());
  const std::vector<models::NamedWeight> weights = opened.package.model->weights();
  const bool any = std::any_of(weights.begin(), weights.end(), [](const models::NamedWeight& weight) {
    return weight.variable.value().elements() >= train::kLeast8Bit;
  });
  if (!any) GTEST_SKIP() << "no weight is large enough";
  const TrainResult exact = run({.full = true});
  const TrainResult rounded = run({.full = true, .moments = train::Moments::k8Bit});
  EXPECT_EQ(rounded.losses[0], exact.losses[0]);
  EXPECT_NE(rounded.losses[9], exact.losses[9]);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(rounded.losses[i], exact.losses[i], 5e-3 * exact.losses[i]);
}

TEST_P(Training, ActivationCheckpointingChangesNotOneBit) {
  for (const TrainOptions& options : {TrainOptions{}, TrainOptions{.full = true}, TrainOptions{.dtype = DType::kBF16},
                                      TrainOptions{.packing = train::Packing::kTree}}) {
    TrainOptions with = options;
    with.checkpoint = true;
    const TrainResult kept = run(options);
    const TrainResult recomputed = run(with);
    EXPECT_EQ(kept.losses, recomputed.losses);
    EXPECT_EQ(kept.norms, recomputed.norms);
    EXPECT_EQ(kept.after, recomputed.after);
  }
}

TEST_P(Training, MicroBatchesPackingAndBranchingAreTheSameTraining) {
  if (has_balance()) return;
  const TrainResult together = run({});
  for (const TrainOptions& options : {TrainOptions{.micro_batch = 1}, TrainOptions{.packing = train::Packing::kRows},
                                      TrainOptions{.packing = train::Packing::kTree}}) {
    const TrainResult other = run(options);
    // Other orders of f32 additions, amplified by ten Adam steps of 1e-3.
    for (std::size_t i = 0; i < 10; ++i)
      EXPECT_NEAR(other.losses[i], together.losses[i], 2e-4 * together.losses[i]) << "step " << i;
  }
}

// Rehearsed memory is that of the pass itself, and rehearsing leaves nothing behind.
TEST_P(Parity, RehearsalsForecastMemory) {
  Opened opened(folder(), {.dtype = DType::kF32, .trainable = true});
  std::vector<data::EncodedRow> many;
  for (const data::EncodedRow& row : rows(opened)) many.insert(many.end(), 8, row);
  std::vector<train::Optimizer::Named> named;
  for (const auto& weight : models::trained_weights(*opened.package.model))
    named.push_back({weight.name, weight.variable, {}});
  train::Optimizer optimizer({}, std::move(named), opened.engine.allocator());
  const bench::Run run{.engine = opened.engine,
                       .model = *opened.package.model,
                       .optimizer = optimizer,
                       .vocabulary = opened.package.tokenizer->vocabulary_size(),
                       .rows = many,
                       .evaluation = {}};
  const auto peak = [&](std::int64_t pass_rows, bool checkpoint) {
    return bench::forecast_peak(run, {.micro_batch_rows = 32, .pass_rows = pass_rows, .checkpoint = checkpoint});
  };
  const std::int64_t kept = opened.engine.allocator().bytes_kept();
  peak(32, false);
  EXPECT_LE(opened.engine.allocator().bytes_kept(), kept + (4 << 20));  // small blocks stay
  const train::LoopOptions options{.micro_batch_rows = 32};
  EXPECT_EQ(bench::plan_memory(run, options, std::int64_t{1} << 50).pass_rows, 32);
  // Few rows, and less kept of them, need less.
  const std::int64_t all = peak(32, false), one = peak(1, false), least = peak(1, true);
  if (INSTRUCT_SANITIZED == 0) {  // sanitizers take memory of their own, more each time
    EXPECT_GT(all, one);
    EXPECT_GE(one, least);
    EXPECT_LT(bench::plan_memory(run, options, one + (all - one) / 2).pass_rows, 32);
  }
  const bench::MemoryPlan last = bench::plan_memory(run, options, 1);
  EXPECT_EQ(last.pass_rows, 1);
  EXPECT_TRUE(last.checkpoint);

  std::vector<const data::EncodedRow*> chosen;
  for (std::size_t i = 0; i < 32; ++i) chosen.push_back(&many[i]);
  const data::Batch batch = data::make_batch(chosen, data::Layout::kRows);
  const auto pass = [&] {
    train::batch_loss(opened.engine, *opened.package.model, batch, 1.0F, run.vocabulary);
    optimizer.drop_gradients();
  };
  const std::int64_t rehearsed = opened.engine.rehearse(pass);
  pass();
  // What single tasks ask for is not rehearsed.
  EXPECT_NEAR(static_cast<double>(opened.engine.allocator().bytes_kept()), static_cast<double>(rehearsed), 4 << 20);
  EXPECT_GE(opened.engine.allocator().bytes_kept(), rehearsed);
}

// Fewer rows at a time are the same training: every row's loss to the bit, sums in another order.
TEST_P(Training, RowsAtATimeAreTheSameTraining) {
  if (has_balance()) return;
  TrainOptions apart;
  apart.pass_rows = 1;
  const TrainResult together = run({}), parts = run(apart);
  for (std::size_t i = 0; i < 10; ++i)
    EXPECT_NEAR(parts.losses[i], together.losses[i], 2e-4 * together.losses[i]) << "step " << i;
}

TEST_P(Parity, ExportsReadBackEqual) {
  Opened opened(folder());
  const auto encoded = rows(opened);
  const models::LoadedAdapter adapter =
      models::load_adapter_folder(folder() / "adapter", *opened.package.model, opened.engine.allocator());
  const std::vector<double> with_adapter = scores(opened, encoded, data::Layout::kRows);
  const fs::path out = fs::temp_directory_path() / fmt::format("instruct-export-{}-{}", ::getpid(), GetParam());
  fs::create_directories(out / "hf");
  const auto weights = models::merged_weights(opened.package, &adapter, opened.engine);
  models::write_hugging_face_files(out / "hf", opened.package, opened.package.chat_template, weights, DType::kF32);
  std::vector<std::pair<std::string, double>> written{{"hf", 2e-4}};
  const auto write_gguf = [&](const std::string& name, const char* type, double tolerance) {
    models::write_gguf(out / name, opened.package, opened.package.chat_template, weights,
                       {models::gguf_type(type), opened.engine.threads()});
    written.emplace_back(name, tolerance);
  };
  const models::LlamaConfig& config = opened.package.config;
  if (opened.package.seq2seq) {
    EXPECT_THROW(write_gguf("f32.gguf", "f32", 0), Error) << "encoder-decoders are not written as GGUF";
  } else if ((config.windowed.empty() || config.out_norms) && config.dense.empty() && !config.scores_by_layer) {
    write_gguf("f32.gguf", "f32", 2e-4);
    write_gguf("q8.gguf", "q8_0", 3.0);
  } else {
    EXPECT_THROW(write_gguf("f32.gguf", "f32", 0), Error)
        << "GGUF has no word for what holds in some layers, or for other scores";
  }
  for (const auto& [name, tolerance] : written) {
    Opened again(out / name);
    const auto again_encoded = encode(again, folder() / "rows.jsonl");
    const std::vector<double> scored = scores(again, again_encoded, data::Layout::kRows);
    for (std::size_t i = 0; i < scored.size(); ++i) {
      EXPECT_EQ(again_encoded[i].tokens, encoded[i].tokens);
      EXPECT_NEAR(scored[i], with_adapter[i], tolerance) << name << " row " << i;
    }
  }
  fs::remove_all(out);
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, ::testing::ValuesIn(models::golden_writers()), models::test_name);
INSTANTIATE_TEST_SUITE_P(Models, Training, ::testing::ValuesIn(models::golden_writers()), models::test_name);

}  // namespace
}  // namespace instruct
