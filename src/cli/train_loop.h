// What every training run does, whatever is trained: the output folder, going on from a checkpoint, the log, when to
// evaluate and save, early stopping, the best checkpoint, Ctrl-C, results.
//
// A kind of training is a Trainee. Its run makes a TrainLoop, opens model and rows, and calls begin, train and finish.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/progress.h"
#include "ops/engine.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/trainer.h"

namespace instruct::cli {

// What one evaluation found.
struct Evaluation {
  Value log;                // current_steps, epoch, eval_loss and other eval_<metric>
  double metric = 0;        // the one that decides which step is best
  std::string table_lines;  // the rows of this evaluation, with the heading before the first
};

// The metric that decides which step is best.
struct BestMetric {
  std::string name;
  train::TrainingState::Direction better = train::TrainingState::Direction::kLess;
};

// What is trained, as TrainLoop sees it.
class Trainee {
 public:
  virtual ~Trainee() = default;

  virtual train::Optimizer& optimizer() = 0;
  // The files that training makes, from the optimizer's weights, into a folder that exists.
  virtual void write(const std::filesystem::path& folder) const = 0;
  // Nothing where there are no development rows: then evaluate is never called.
  virtual std::optional<BestMetric> best_metric() const = 0;
  virtual Evaluation evaluate(std::int64_t step, double epoch) = 0;
  // What the objective's units are, in the plural, as keys have it: "tokens" for total_tokens.
  virtual std::string units_name() const = 0;
  // What the progress bar says behind a step.
  virtual std::string progress_text(const train::StepReport& report) const = 0;
};

class TrainLoop {
 public:
  // Checks the configuration and that its output_dir may be written to: raises InvalidArgument. Both references must
  // outlive the loop.
  TrainLoop(const train::TrainConfig& config, Trainee& trainee);

  // As configured; what packing auto means is decided by who knows the rows.
  static train::LoopOptions options_of(const train::TrainConfig& config);
  static train::AdamwConfig adamw_of(const train::TrainConfig& config);

  // Makes the output folder and puts trainee and position where config.resume_from_checkpoint says. Returns `options`
  // with the passes that the same memory_limit chose before, so that sums are added in the same order.
  train::LoopOptions begin(const train::LoopOptions& options);

  // Trains to the end or until it no longer gets better, with checkpoints, log and evaluations. Raises Cancelled on
  // Ctrl-C, after saving a checkpoint, and Numeric when training diverges, which leaves the checkpoints as they are.
  void train(ops::Engine& engine, train::Objective& objective);

  // Takes the best checkpoint where that is asked for and writes results. `forecast` goes with them; may be null.
  void finish(const Value& forecast);

  const train::Position& position() const { return state_.position; }
  // Since training began.
  std::chrono::duration<double> elapsed() const { return std::chrono::steady_clock::now() - start_; }
  // For --json: output_dir, global_step, trained_<units>, best_step, best_metric.
  Value summary() const;

 private:
  void check_output() const;
  void resume();
  void start_log();
  train::Schedule schedule(std::int64_t total_steps) const;
  [[noreturn]] void raise_stopped();
  [[noreturn]] void raise_diverged(const Error& error) const;
  train::Observer observer();
  bool stopped() const;
  bool evaluation_due() const;
  void log_step(const train::StepReport& report);
  void log_line(const Value& line);
  void evaluate_once(double epoch);
  void save();
  void take_best();

  const train::TrainConfig& config_;
  Trainee& trainee_;
  train::LoopOptions options_;
  train::TrainingState state_;
  std::int64_t saved_step_ = -1;

  std::ofstream log_file_;
  std::unique_ptr<Progress> progress_;
  std::chrono::steady_clock::time_point start_;
  std::int64_t window_tokens_ = 0;  // of the steps since the last line of the log
  double window_seconds_ = 0;
};

}  // namespace instruct::cli
