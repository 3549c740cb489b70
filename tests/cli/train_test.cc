// instruct train: what it writes and prints, and what it refuses before it starts.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;

using Words = std::vector<std::string>;

Outcome train(const Folder& folder, const Words& more, const Setting& setting = {}) {
  Words words{"train", "--model", golden_model(), "--dataset", golden_rows(), "--output_dir", folder / "run"};
  words.insert(words.end(), more.begin(), more.end());
  return run(words, setting);
}

std::vector<Value> log_of(const Folder& folder) {
  Outcome outcome;
  outcome.out = content_of(folder / "run/trainer_log.jsonl");
  return outcome.json_lines();
}

TEST(Train, LoraWritesAdapterLogAndCheckpoints) {
  const Folder folder;
  const Outcome outcome = train(folder, {"--num_train_epochs", "2", "--per_device_train_batch_size", "4"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(folder.names("run"),
              IsSupersetOf({"adapter_config.json", "adapter_model.safetensors", "checkpoint-2", "checkpoint-4",
                            "instruct.json", "train_config.json", "trainer_log.jsonl", "trainer_state.json"}));
  const std::vector<Value> log = log_of(folder);
  ASSERT_EQ(log.size(), 4u);
  for (const Value& line : log) {
    for (const char* key : {"loss", "grad_norm", "learning_rate", "epoch"})
      EXPECT_TRUE(line.at(key).is_number()) << key;
  }
  EXPECT_LT(log.back().at("loss").as_double(), log.front().at("loss").as_double() + 0.5);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("Training 4/4 steps"), HasSubstr("Adapter in " + folder / "run"),
                                 HasSubstr("instruct chat --model")));
  EXPECT_EQ(run({"score", "--model", golden_model(), "--adapter", folder / "run", "--data", golden_rows()}).code, 0);
}

TEST(Train, FullWritesAModelFolder) {
  const Folder folder;
  ASSERT_EQ(train(folder, {"--finetuning_type", "full", "--max_steps", "2", "--learning_rate", "1e-3"}).code, 0);
  EXPECT_THAT(folder.names("run"), IsSupersetOf({"config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(run({"score", "--model", folder / "run", "--data", golden_rows()}).code, 0);
}

TEST(Train, DevelopmentTableBestStepAndTestTable) {
  const Folder folder;
  const std::string rows = write_rows(folder, "rows.jsonl", 9);
  const Outcome outcome =
      run({"train", "--model", golden_model(), "--instructions", write_set(folder), "--dataset", rows, "--eval_dataset",
           rows, "--test_dataset", rows, "--num_train_epochs", "2", "--load_best_model_at_end",
           "--metric_for_best_model", "eval_loss", "--output_dir", folder / "run", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("epoch"), HasSubstr("summary"), HasSubstr("accuracy")));
  EXPECT_EQ(outcome.json().at("best_step").as_integer(), outcome.json().at("global_step").as_integer());
  EXPECT_TRUE(outcome.json().at("test").at("kind").at("accuracy").is_number());
  EXPECT_THAT(folder.names("run"), IsSupersetOf({"generated_predictions.jsonl", "test_results.json"}));
}

TEST(Train, ForecastsMemoryAndTime) {
  const Folder folder;
  const Outcome outcome = train(folder, {"--max_steps", "3", "--memory-limit", "1G", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("Forecast: "));
  const Value forecast = outcome.json().at("forecast");
  EXPECT_EQ(forecast.at("pass_rows").as_integer(), 8);
  EXPECT_FALSE(forecast.at("gradient_checkpointing").as_bool());
  EXPECT_GT(forecast.at("seconds").as_double(), 0);
  if (INSTRUCT_SANITIZED != 0) return;  // sanitizers take memory of their own
  const double measured = forecast.at("measured_peak_bytes").as_double();
  EXPECT_NEAR(forecast.at("peak_bytes").as_double(), measured, 0.2 * measured);  // mostly the program itself
}

TEST(Train, RefusesALimitThatCannotBeKept) {
  const Folder folder;
  const Outcome outcome = train(folder, {"--memory_limit", "5M"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("memory_limit 5M is too little"), HasSubstr("this run needs about"),
                                 HasSubstr("optim: adamw_8bit"), HasSubstr("cutoff_len")));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST(Train, StepsAloneChooseTheirStrategies) {
  const Folder folder;
  const Outcome outcome = train(folder, {"--max_steps", "5", "--save_steps", "2", "--eval_steps", "2", "--val_size",
                                         "2", "--save_total_limit", "0"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(folder.names("run"), IsSupersetOf({"checkpoint-2", "checkpoint-4"}));
  int evaluations = 0;
  for (const Value& line : log_of(folder)) evaluations += line.find("eval_loss") != nullptr ? 1 : 0;
  EXPECT_EQ(evaluations, 2);
}

TEST(Train, ConfigurationsOfOtherTrainersAreRead) {
  const Folder folder;
  const std::string config = folder.write("train.yaml", fmt::format(R"(stage: sft
do_train: true
model_name_or_path: {}
dataset: {}
output_dir: {}
finetuning_type: lora
lora_target: all
lora_rank: 4
cutoff_len: 256
preprocessing_num_workers: 16
dataloader_num_workers: 4
logging_steps: 2
save_strategy: epoch
save_total_limit: 1
plot_loss: true
overwrite_output_dir: true
report_to: none
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
optim: adamw_torch
gradient_checkpointing: false
bf16: false
ddp_timeout: 180000000
resume_from_checkpoint: null
)",
                                                                    golden_model(), golden_rows(), folder / "run"));
  const Outcome outcome = run({"train", config, "--log-level", "warning", "max_steps=3"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_EQ(log_of(folder).size(), 2u);  // steps 2 and 3, the last
}

TEST(Train, CheckpointingChangesNoLoss) {
  std::vector<std::vector<Value>> logs;
  for (const std::string checkpointing : {"false", "true"}) {
    const Folder folder;
    const Outcome outcome = train(folder, {"--gradient_checkpointing", checkpointing, "--lora_dropout", "0.3"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    logs.push_back(log_of(folder));
  }
  ASSERT_EQ(logs[0].size(), logs[1].size());
  for (std::size_t i = 0; i < logs[0].size(); ++i) {
    for (const char* key : {"loss", "grad_norm"})
      EXPECT_EQ(logs[0][i].at(key).as_double(), logs[1][i].at(key).as_double()) << key << " of line " << i;
  }
}

TEST(Train, AFrozenBaseOnIntegersTrainsAlike) {
  std::vector<std::vector<Value>> logs;
  for (const std::string compute : {"dtype", "int8"}) {
    const Folder folder;
    const Outcome outcome = train(folder, {"--base_compute", compute});
    if (outcome.code == 6) GTEST_SKIP() << "no integer products on this processor";
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    logs.push_back(log_of(folder));
  }
  ASSERT_EQ(logs[0].size(), logs[1].size());
  for (std::size_t i = 0; i < logs[0].size(); ++i) {
    const double plain = logs[0][i].at("loss").as_double();
    EXPECT_NEAR(logs[1][i].at("loss").as_double(), plain, 0.01 * plain) << "line " << i;
    EXPECT_NE(logs[1][i].at("loss").as_double(), plain);
  }
}

TEST(Train, RefusesBeforeAnythingIsWritten) {
  const Folder folder;
  const auto refused = [&](const Words& more, int code, const std::string& message) {
    const Outcome outcome = train(folder, more);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_FALSE(std::filesystem::exists(folder / "run"));
  };
  refused({"--use_dora", "true"}, 6, "'use_dora: true' is not supported yet");
  refused({"--stage", "dpo"}, 6, "'stage: dpo' is not supported yet");
  refused({"--eval_strategy", "epoch"}, 2, "give eval_dataset or val_size");
  refused({"--early_stopping_patience", "2"}, 2, "give eval_dataset or val_size");
  refused({"--metric_for_best_model", "eval_blue", "--val_size", "2"}, 2, "eval_loss");
  refused({"--cutoff_len", "5"}, 2, "cutoff_len");
  refused({"--cutoff_len", "20"}, 3, "cutoff_len");
  refused({"--lora_target", "q_prj"}, 2, "q_prj");
  refused({"--base_compute", "int8", "--finetuning_type", "full"}, 2, "need a frozen base");
  refused({"--base_compute", "int4"}, 2, "'base_compute' expects one of dtype, int8");
  refused({"--chat_template", "llama3"}, 4, "llama3");
}

TEST(Train, AFolderThatExistsIsKept) {
  const Folder folder;
  std::filesystem::create_directory(folder / "run");
  folder.write("run/mine.txt", "mine");
  const Outcome refused = train(folder, {"--max_steps", "1"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("is not empty"), HasSubstr("overwrite_output_dir")));
  EXPECT_THAT(folder.names("run"), testing::ElementsAre("mine.txt"));
  EXPECT_EQ(train(folder, {"--overwrite_output_dir", "--max_steps", "1"}).code, 0);
  EXPECT_THAT(folder.names("run"), Contains("mine.txt"));
  const Folder other;
  other.write("run", "a file");
  EXPECT_EQ(train(other, {}).code, 2);
}

TEST(Train, OverwritingForgetsTheCheckpointsOfTheOldRun) {
  const Folder folder;
  ASSERT_EQ(train(folder, {"--max_steps", "6", "--save_steps", "6"}).code, 0);
  ASSERT_EQ(train(folder, {"--max_steps", "2", "--save_steps", "2", "--overwrite_output_dir"}).code, 0);
  EXPECT_THAT(folder.names("run"), testing::Not(Contains("checkpoint-6")));
}

TEST(Train, DivergenceNamesStepRateAndNormAndKeepsTheLastGoodCheckpoint) {
  const Folder folder;
  ASSERT_EQ(train(folder, {"--max_steps", "2", "--save_steps", "2"}).code, 0);
  const std::string good = content_of(folder / "run/checkpoint-2/adapter_model.safetensors");
  const Outcome outcome = train(folder, {"--learning_rate", "1e6", "--max_grad_norm", "0", "--max_steps", "60",
                                         "--save_steps", "50", "--resume_from_checkpoint", "auto"});
  EXPECT_EQ(outcome.code, 7);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("step 4: loss"), HasSubstr("gradient norm"), HasSubstr("learning rate"),
                                 HasSubstr("the last checkpoint is " + folder / "run" + "/checkpoint-2")));
  EXPECT_EQ(content_of(folder / "run/checkpoint-2/adapter_model.safetensors"), good);
  const Folder fresh;
  const Outcome first = train(fresh, {"--learning_rate", "1e6", "--max_steps", "60", "--save_strategy", "no",
                                      "--finetuning_type", "full", "--lr_scheduler_type", "constant"});
  EXPECT_EQ(first.code, 7);
  EXPECT_THAT(first.err, HasSubstr("no checkpoint was saved before it"));
}

}  // namespace
}  // namespace instruct::test
