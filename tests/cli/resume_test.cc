// A run that is killed at random moments and resumed ends with the same bytes as one that was never stopped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using Words = std::vector<std::string>;

// The numbers of a log that do not depend on the clock.
std::vector<std::string> numbers_of(const std::string& run) {
  Outcome log;
  log.out = content_of(run + "/trainer_log.jsonl");
  std::vector<std::string> lines;
  for (const Value& line : log.json_lines()) {
    std::string text;
    for (const auto& [key, value] : line.as_object()) {
      if (key != "elapsed_time" && key != "throughput" && key != "eval_runtime") text += key + dump_json(value) + " ";
    }
    lines.push_back(text);
  }
  return lines;
}

using Seconds = std::chrono::duration<double>;

// Runs `words`, sending `signal` after a part of `whole`, what an uninterrupted run took, until a run ends by itself.
void run_with_interruptions(const Words& words, int signal, unsigned seed, Seconds whole, int& interruptions) {
  std::mt19937 random(seed);
  Seconds patience = whole;
  for (int turn = 0; turn < 60; ++turn) {
    Process process(words, {});
    std::this_thread::sleep_for(patience * (0.1 + 0.4 * static_cast<double>(random() % 1000) / 1000));
    patience *= 1.1;  // so that the end is reached on a machine that gets slower, too
    process.signal(signal);
    const Outcome outcome = process.finish();
    if (outcome.code == 0) return;
    ASSERT_TRUE(outcome.code == 128 + signal || outcome.code == 130) << outcome.err;
    ++interruptions;
  }
  FAIL() << "the run never ended";
}

void expect_equal_results(const Words& more, int signal, const std::string& weights) {
  const Folder folder;
  const std::string rows = write_rows(folder, "rows.jsonl", 30), held = write_rows(folder, "held.jsonl", 4);
  const auto words = [&](const std::string& output) {
    Words all{"train",
              "--model",
              golden_model(),
              "--instructions",
              write_set(folder),
              "--dataset",
              rows,
              "--eval_dataset",
              held,
              "--per_device_train_batch_size",
              "2",
              "--gradient_accumulation_steps",
              "2",
              "--num_train_epochs",
              "3",
              "--learning_rate",
              "5e-3",
              "--predict_with_generate",
              "false",
              "--output_dir",
              folder / output,
              "--resume_from_checkpoint",
              "auto"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run(words("whole")).code, 0);
  const Seconds whole = std::chrono::steady_clock::now() - start;
  int interruptions = 0;
  ASSERT_NO_FATAL_FAILURE(run_with_interruptions(words("parts"), signal, 7, whole, interruptions));
  EXPECT_GT(interruptions, 0);
  EXPECT_EQ(content_of(folder / ("whole/" + weights)), content_of(folder / ("parts/" + weights)));
  EXPECT_EQ(numbers_of(folder / "whole"), numbers_of(folder / "parts"));
  for (const std::string& name : folder.names("parts")) EXPECT_FALSE(name.ends_with(".tmp")) << name;
}

TEST(Resume, LoraKilledWithDropoutTemplatesEvaluationAndEarlyStopping) {
  expect_equal_results({"--lora_dropout", "0.2", "--save_steps", "3", "--eval_steps", "2", "--early_stopping_patience",
                        "4", "--load_best_model_at_end", "true"},
                       SIGKILL, "adapter_model.safetensors");
}

TEST(Resume, LoraInterruptedByCtrlC) {
  expect_equal_results({"--lora_dropout", "0.2", "--eval_strategy", "epoch", "--early_stopping_patience", "1"}, SIGINT,
                       "adapter_model.safetensors");
}

TEST(Resume, FullTuningKilled) {
  expect_equal_results({"--finetuning_type", "full", "--save_steps", "2", "--weight_decay", "0.1"}, SIGKILL,
                       "model.safetensors");
}

TEST(Resume, AFinishedRunIsNotTrainedOn) {
  const Folder folder;
  const Words words{"train",
                    "--model",
                    golden_model(),
                    "--dataset",
                    golden_rows(),
                    "--output_dir",
                    folder / "run",
                    "--val_size",
                    "2",
                    "--num_train_epochs",
                    "40",
                    "--learning_rate",
                    "0.5",
                    "--early_stopping_patience",
                    "1",
                    "--resume_from_checkpoint",
                    "auto"};
  ASSERT_EQ(run(words).code, 0);
  const std::vector<std::string> before = numbers_of(folder / "run");
  ASSERT_LT(before.size(), 80u);  // it stopped early
  const std::string adapter = content_of(folder / "run/adapter_model.safetensors");
  ASSERT_EQ(run(words).code, 0);
  EXPECT_EQ(numbers_of(folder / "run"), before);
  EXPECT_EQ(content_of(folder / "run/adapter_model.safetensors"), adapter);
}

TEST(Resume, DamagedCheckpointsArePassedOverAndOtherConfigurationsNamed) {
  const Folder folder;
  Words words{"train",        "--model",     golden_model(),
              "--dataset",    golden_rows(), "--output_dir",
              folder / "run", "--max_steps", "4",
              "--save_steps", "2",           "--resume_from_checkpoint",
              "auto"};
  ASSERT_EQ(run(words).code, 0);
  const std::string newest = folder / "run/checkpoint-4/optimizer.safetensors";
  std::string content = content_of(newest);
  content[content.size() - 3] = static_cast<char>(content[content.size() - 3] ^ 1);
  folder.write("run/checkpoint-4/optimizer.safetensors", content);
  words.insert(words.end(), {"--learning_rate", "1e-3"});
  const Outcome outcome = run(words);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, testing::AllOf(testing::HasSubstr("checkpoint-4 is damaged"),
                                          testing::HasSubstr("Resuming from " + folder / "run" + "/checkpoint-2"),
                                          testing::HasSubstr("learning_rate (was 2e-04)")));
  words.back() = "2e-4";
  words.insert(words.end(), {"--lora_rank", "4"});
  const Outcome other = run(words);
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, testing::HasSubstr("was the configuration changed?"));
}

}  // namespace
}  // namespace instruct::test
