// One training run, from configuration to results: configuration, data, model, trainer, checkpoints, logs and
// evaluation wired together.
#pragma once

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "cli/session.h"
#include "cli/train_evaluation.h"
#include "data/encode.h"
#include "models/export.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/trainer.h"

namespace instruct::cli {

class TrainRun {
 public:
  explicit TrainRun(train::TrainConfig config) : config_(std::move(config)) {}

  // Trains, evaluates, tests and writes. Raises what configuration, data or model are refused for before anything is
  // written; Numeric when training diverges and Cancelled on Ctrl-C, both after saving a checkpoint.
  void execute();

 private:
  bool is_lora() const { return config_.finetuning_type == "lora"; }
  std::int64_t cutoff() const;
  data::EncodeOptions encode_options(std::int64_t epoch) const;

  void check() const;
  void open();
  void prepare_rows();
  data::Dataset development_rows(const std::vector<std::int64_t>& held) const;
  void report_rows(const data::EncodeReport& report) const;
  void prepare_optimizer();
  void measure_limit();

  void train();
  void resume();
  void start_log();
  train::LoopOptions loop_options() const;
  train::Observer observer();
  const std::vector<data::EncodedRow>& rows_of(std::int64_t epoch);
  void on_step(const train::StepReport& report);
  void log_step(const train::StepReport& report);
  void log_line(const Value& line);
  bool evaluate_and_judge(double epoch);
  void save();

  void take_best();
  void write_results() const;
  void test();
  std::vector<std::pair<tensor::Tensor, tensor::Tensor>> masters() const;
  models::WeightLookup full_weights() const;
  void write_model(const std::filesystem::path& folder) const;

  train::TrainConfig config_;
  std::unique_ptr<Session> session_;
  data::Dataset dataset_, test_dataset_;
  std::unique_ptr<data::RowEncoder> encoder_;
  std::vector<std::int64_t> train_indices_;
  std::vector<data::EncodedRow> rows_;
  std::int64_t rows_epoch_ = 0;
  std::unique_ptr<TrainEvaluation> evaluation_;
  std::unique_ptr<train::Optimizer> optimizer_;
  train::TrainingState state_;
  double product_limit_ = 0;  // floating-point operations a second

  std::ofstream log_file_;
  std::unique_ptr<Progress> progress_;
  std::chrono::steady_clock::time_point start_;
  std::int64_t window_tokens_ = 0;
  double window_seconds_ = 0;
};

}  // namespace instruct::cli
