// A training run of an encoder with heads, from configuration to results: model, rows, the loop, the table of test
// rows.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/evaluation_table.h"
#include "cli/results.h"
#include "cli/text_session.h"
#include "cli/train_loop.h"
#include "train/config.h"

namespace instruct::cli {

class EncoderRun : public Trainee {
 public:
  EncoderRun(train::TrainConfig config, Results results) : config_(std::move(config)), results_(results) {}

  // Trains, evaluates, tests and writes. Raises what configuration, data or model are refused for before anything is
  // written; Numeric when training diverges and Cancelled on Ctrl-C (see TrainLoop).
  void execute();

 private:
  // One of the three data sets, encoded.
  struct Rows {
    data::Dataset dataset;
    std::vector<std::int64_t> indices;
    std::vector<data::TextRow> texts;  // of a masked language model: what nothing is left out of yet
    std::vector<data::TextRow> rows;
    bool empty() const { return rows.empty(); }
  };

  train::Optimizer& optimizer() override { return *optimizer_; }
  void write(const std::filesystem::path& folder) const override;
  std::optional<BestMetric> best_metric() const override;
  Evaluation evaluate(std::int64_t step, double epoch) override;
  std::string units_name() const override { return "units"; }
  std::string progress_text(const train::StepReport& report) const override;

  void open();
  void prepare_rows();
  // Training rows may be shortened as configured; what is judged by is taken whole, in windows, where that is possible.
  enum class Use { kTrained, kJudged };
  void encode(Rows& rows, std::int64_t epoch, Use use) const;
  void mask(Rows& rows, std::int64_t epoch) const;
  const std::vector<data::TextRow>& rows_of(std::int64_t epoch);
  bool is_lora() const { return config_.finetuning_type == "lora"; }
  // Without an instruction set a masked language model is trained.
  bool is_masked_lm() const { return config_.instructions.empty(); }
  void make_optimizer();
  void before_pass(std::int64_t step, std::int64_t pass);
  tensor::Tensor trained(const std::string& name) const;
  evaluate::TaskReport measure(const Rows& rows, const char* title, std::int64_t bootstrap) const;
  Value test();
  void say_what_next() const;

  train::TrainConfig config_;
  Results results_;
  std::unique_ptr<TrainLoop> loop_;
  std::unique_ptr<TextSession> session_;
  Rows train_, development_, test_;
  std::int64_t rows_epoch_ = 0;
  EvaluationTable table_;
  std::unique_ptr<train::Optimizer> optimizer_;
};

}  // namespace instruct::cli
