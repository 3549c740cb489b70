#include <gtest/gtest.h>

#include "base/error.h"
#include "base/yaml.h"
#include "train/config.h"
#include "train/schedule.h"
#include "train/token_objective.h"

namespace instruct::train {
namespace {

TEST(Schedule, EqualsTransformers) {
  // transformers 5.23 get_scheduler(name, num_warmup_steps=10, num_training_steps=100), lr 1, at steps 0, 5, 10,
  // 55, 99.
  const Schedule cosine{ScheduleKind::kCosine, 1.0, 10, 100};
  EXPECT_DOUBLE_EQ(cosine.rate(0), 0.0);
  EXPECT_DOUBLE_EQ(cosine.rate(5), 0.5);
  EXPECT_DOUBLE_EQ(cosine.rate(10), 1.0);
  EXPECT_DOUBLE_EQ(cosine.rate(55), 0.5);
  EXPECT_NEAR(cosine.rate(99), 0.00030458649045213493, 1e-15);
  const Schedule linear{ScheduleKind::kLinear, 1.0, 10, 100};
  EXPECT_DOUBLE_EQ(linear.rate(55), 0.5);
  EXPECT_NEAR(linear.rate(99), 1.0 / 90, 1e-15);
  EXPECT_DOUBLE_EQ((Schedule{ScheduleKind::kConstant, 1.0, 10, 100}.rate(0)), 1.0);
  EXPECT_DOUBLE_EQ((Schedule{ScheduleKind::kConstantWithWarmup, 1.0, 10, 100}.rate(5)), 0.5);
  EXPECT_THROW(schedule_from_name("cosin"), Error);
}

TEST(Packing, TheWayThatIsPredictedToCostLeast) {
  const data::CostModel model = cost_model_of({.layers = 30,
                                               .width = 576,
                                               .feed_forward_width = 1536,
                                               .heads = 9,
                                               .key_value_heads = 3,
                                               .head_width = 64,
                                               .vocabulary = 49152});
  EXPECT_NEAR(model.pair, 2 * 2 * 576.0 / (576 * (2 * 576 + 2 * 192 + 3 * 1536)), 1e-9);
  // Documents of 400 tokens: four questions about each, rows of one document apart.
  const auto rows_about = [](int documents, int questions) {
    std::vector<data::EncodedRow> rows;
    for (int i = 0; i < documents * questions; ++i) {
      data::EncodedRow row{.tokens = std::vector<std::int32_t>(400, i % documents)};
      for (std::int32_t t = 0; t < 40; ++t) row.tokens.push_back(1000 + 40 * i + t);
      row.trained.assign(440, 0);
      row.trained.back() = 1;
      rows.push_back(std::move(row));
    }
    return rows;
  };
  const PackingChoice shared = choose_packing(rows_about(10, 4), {}, model);
  EXPECT_EQ(shared.packing, Packing::kTree);
  EXPECT_GT(shared.packed, 2.5 * shared.tree);
  const PackingChoice alone = choose_packing(rows_about(40, 1), {}, model);
  EXPECT_EQ(alone.packing, Packing::kPacked);
  EXPECT_NEAR(alone.tree, alone.packed, 1e-6 * alone.packed);
  EXPECT_GT(alone.rows, alone.packed) << "a pass a row";
  EXPECT_EQ(choose_packing(rows_about(40, 1), {.micro_batch_rows = 1, .accumulation = 8}, model).packing,
            Packing::kPacked)
      << "one row a pass either way";
}

TrainConfig parse(const char* text, std::vector<std::pair<std::string, std::string>> overrides = {}) {
  return parse_train_config(parse_yaml(text, "train.yaml"), "train.yaml", overrides);
}

TEST(Config, ReadsTheNamesOfOtherTrainers) {
  const TrainConfig config = parse(
      "base_model: m.gguf\nlora_r: 8\nmicro_batch_size: 4\nsequence_len: 512\nlr_scheduler: linear\nlr: 1e-3\n"
      "target_modules: [q_proj, v_proj]\n",
      {{"seed", "7"}, {"learning_rate", "2e-3"}});
  EXPECT_EQ(config.model_name_or_path, "m.gguf");
  EXPECT_EQ(config.lora_rank, 8);
  EXPECT_DOUBLE_EQ(config.alpha(), 16);
  EXPECT_EQ(config.per_device_train_batch_size, 4);
  EXPECT_EQ(config.cutoff_len, 512);
  EXPECT_EQ(config.lora_target, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_DOUBLE_EQ(config.learning_rate, 2e-3);  // the command line wins
  EXPECT_EQ(config.seed, 7U);
}

TEST(Config, KnowsTheOptimizersNames) {
  EXPECT_EQ(parse("").optim, "adamw");
  EXPECT_EQ(parse("optim: adamw_torch\n").optim, "adamw");
  EXPECT_EQ(parse("optim: adamw_8bit\n").optim, "adamw_8bit");
  EXPECT_EQ(parse("optimizer: paged_adamw_8bit\n").optim, "adamw_8bit");
}

TEST(Config, MemoryLimitIsASizeThatTheMachineHas) {
  EXPECT_EQ(parse("").memory_limit_bytes(), 0);
  EXPECT_EQ(parse("memory_limit: 200M\n").memory_limit_bytes(), 200'000'000);
  for (const char* text : {"memory_limit: much\n", "memory_limit: 0\n", "memory_limit: -1G\n", "memory_limit: 9000T\n"})
    EXPECT_THROW(static_cast<void>(parse(text).memory_limit_bytes()), Error) << text;
}

TEST(Config, MistakesNameLineKeyAndExpectation) {
  const std::pair<const char*, const char*> cases[] = {
      {"seed: 1\nlearning_rte: 1\n", "train.yaml:2: unknown key 'learning_rte'; did you mean 'learning_rate'?"},
      {"lora_rank: many\n", "expects a number, got 'many'"},
      {"lora_rank: 1.5\n", "whole number"},
      {"lora_rank: 0\n", "1 to 65536"},
      {"packing: maybe\n", "one of true, false, tree, auto"},
      {"lr: 1\nlearning_rate: 2\n", "repeats 'learning_rate'"},
      {"- a\n", "expected 'key: value'"},
      {"learning_rate: nan\n", "a number"},
      {"optim: adafactor\n", "one of adamw, adamw_8bit, got 'adafactor'"},
  };
  for (const auto& [text, expected] : cases) {
    try {
      parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  }
}

TEST(Config, WhatIsSavedReadsBackEqual) {
  const TrainConfig config = parse("lora_alpha: 12.5\ngreater_is_better: true\noutput_dir: out\n");
  const Value saved = to_value(config);
  EXPECT_EQ(to_value(parse_train_config(saved, "saved", {})), saved);
  EXPECT_GT(train_key_help().size(), 50U);
}

}  // namespace
}  // namespace instruct::train
