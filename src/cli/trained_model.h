// The parameters a run trains, LoRA or all, and the files they become.
#pragma once

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "cli/session.h"
#include "models/export.h"
#include "train/config.h"
#include "train/optimizer.h"

namespace instruct::cli {

class TrainedModel {
 public:
  // Adds a fresh adapter to the session where LoRA is trained and none was loaded.
  TrainedModel(const train::TrainConfig& config, Session& session);

  bool is_lora() const { return lora_; }
  train::Optimizer& optimizer() { return *optimizer_; }
  const train::Optimizer& optimizer() const { return *optimizer_; }
  // A PEFT folder, or a Hugging Face folder in f32: its files, written into `folder`.
  void write(const std::filesystem::path& folder) const;

 private:
  std::vector<train::Optimizer::Named> lora_parameters(const train::TrainConfig& config);
  std::vector<train::Optimizer::Named> all_parameters();
  std::vector<std::pair<tensor::Tensor, tensor::Tensor>> masters() const;
  models::WeightLookup full_weights() const;

  Session& session_;
  bool lora_;
  std::unique_ptr<train::Optimizer> optimizer_;
};

}  // namespace instruct::cli
