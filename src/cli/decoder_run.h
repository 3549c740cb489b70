// A training run of a decoder, LoRA or full, from configuration to results: model, rows, forecast and memory, the loop,
// the table of test rows.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/forecast.h"
#include "cli/decoder_evaluation.h"
#include "cli/results.h"
#include "cli/session.h"
#include "cli/train_loop.h"
#include "cli/trained_model.h"
#include "data/encode.h"
#include "train/config.h"
#include "train/token_objective.h"

namespace instruct::cli {

class DecoderRun : public Trainee {
 public:
  DecoderRun(train::TrainConfig config, Results results) : config_(std::move(config)), results_(results) {}

  // Trains, evaluates, tests and writes. Raises what configuration, data or model are refused for before anything is
  // written; Numeric when training diverges and Cancelled on Ctrl-C (see TrainLoop).
  void execute();

 private:
  train::Optimizer& optimizer() override { return trained_->optimizer(); }
  void write(const std::filesystem::path& folder) const override { trained_->write(folder); }
  std::optional<BestMetric> best_metric() const override;
  Evaluation evaluate(std::int64_t step, double epoch) override { return evaluation_->run(step, epoch); }
  std::string units_name() const override { return "tokens"; }
  std::string progress_text(const train::StepReport& report) const override;

  std::int64_t cutoff() const;
  data::EncodeOptions encode_options(std::int64_t epoch) const;

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
  void begin();
  const std::vector<data::EncodedRow>& rows_of(std::int64_t epoch);
  void before_pass(std::int64_t step, std::int64_t pass);
  Value test();
  void say_what_next() const;

  train::TrainConfig config_;
  Results results_;
  std::unique_ptr<TrainLoop> loop_;
  std::unique_ptr<Session> session_;
  data::Dataset dataset_, test_dataset_;
  std::unique_ptr<data::RowEncoder> encoder_;
  std::vector<std::int64_t> train_indices_;
  std::vector<data::EncodedRow> rows_;
  std::int64_t rows_epoch_ = 0;
  std::unique_ptr<DecoderEvaluation> evaluation_;
  std::unique_ptr<TrainedModel> trained_;
  double product_limit_ = 0;    // floating-point operations a second
  train::LoopOptions options_;  // with what memory_limit chose
  std::int64_t forecast_bytes_ = 0;
  bench::TimeForecast forecast_;
};

}  // namespace instruct::cli
