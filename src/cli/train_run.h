// One training run, from configuration to results: configuration, data, model, trainer, checkpoints, logs and
// evaluation wired together.
#pragma once

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "bench/forecast.h"
#include "cli/session.h"
#include "cli/train_evaluation.h"
#include "cli/trained_model.h"
#include "data/encode.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/token_objective.h"
#include "train/trainer.h"

namespace instruct::cli {

class TrainRun {
 public:
  enum class Results { kText, kJson };
  TrainRun(train::TrainConfig config, Results results) : config_(std::move(config)), results_(results) {}

  // Trains, evaluates, tests and writes. Raises what configuration, data or model are refused for before anything is
  // written; Numeric when training diverges and Cancelled on Ctrl-C, both after saving a checkpoint.
  void execute();

 private:
  std::int64_t cutoff() const;
  data::EncodeOptions encode_options(std::int64_t epoch) const;

  void check_output() const;
  void open();
  void prepare_rows();
  data::Dataset development_rows(const std::vector<std::int64_t>& held) const;
  void report_rows(const data::EncodeReport& report) const;
  void measure_limit();
  std::int64_t slot_bytes() const;
  bench::Run forecast_run() const;
  void plan_memory();
  void choose_passes(const bench::Run& run);
  void refuse_limit(const bench::MemoryPlan& least) const;
  void check_free_memory() const;
  void forecast_time();
  std::int64_t evaluations_left() const;
  Value forecast_value() const;

  void train();
  void resume();
  void start_log();
  bool stopped() const;
  bool evaluation_due() const;
  train::LoopOptions loop_options() const;  // as configured
  void before_pass(std::int64_t step, std::int64_t pass);
  train::Observer observer();
  const std::vector<data::EncodedRow>& rows_of(std::int64_t epoch);
  void on_step(const train::StepReport& report);
  void log_step(const train::StepReport& report);
  void log_line(const Value& line);
  void evaluate_once(double epoch);
  void save();

  void take_best();
  void write_results() const;
  Value test();
  void say_what_next() const;

  train::TrainConfig config_;
  Results results_;
  std::unique_ptr<Session> session_;
  data::Dataset dataset_, test_dataset_;
  std::unique_ptr<data::RowEncoder> encoder_;
  std::vector<std::int64_t> train_indices_;
  std::vector<data::EncodedRow> rows_;
  std::int64_t rows_epoch_ = 0;
  std::unique_ptr<TrainEvaluation> evaluation_;
  std::unique_ptr<TrainedModel> trained_;
  train::TrainingState state_;
  std::int64_t saved_step_ = -1;
  double product_limit_ = 0;  // floating-point operations a second
  train::LoopOptions loop_;   // with what memory_limit chose
  std::int64_t forecast_bytes_ = 0;
  bench::TimeForecast forecast_;

  std::ofstream log_file_;
  std::unique_ptr<Progress> progress_;
  std::chrono::steady_clock::time_point start_;
  std::int64_t window_tokens_ = 0;
  double window_seconds_ = 0;
};

}  // namespace instruct::cli
