// Training configuration: YAML keys under their Hugging Face names, with the aliases of other trainers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/value.h"

namespace instruct::train {

struct TrainConfig {
  // What to train on what.
  std::string model_name_or_path;
  std::string adapter_name_or_path;  // start from an existing LoRA adapter
  std::string instructions;          // *.iset.yaml
  std::string dataset;               // path, or a name in dataset_dir/dataset_info.json
  std::string dataset_dir;
  std::string eval_dataset;
  std::string test_dataset;              // final table after training
  double val_size = 0;                   // fraction (below 1) or number of training rows held out
  std::string chat_template;             // path of a template file that replaces the model's own
  std::string finetuning_type = "lora";  // lora | full
  bool keep_quantised = false;           // leave a quantised base as it is (QLoRA)
  std::string base_compute = "dtype";    // products with a frozen base: dtype | int8
  bool gradient_checkpointing = false;   // keep the input of each block, compute the rest again in the backward pass

  // LoRA.
  std::int64_t lora_rank = 16;
  std::optional<double> lora_alpha;  // default twice the rank
  double lora_dropout = 0;
  std::vector<std::string> lora_target{"all-linear"};
  bool use_rslora = false;

  // Data.
  std::int64_t cutoff_len = 2048;
  std::string overflow = "raise";  // drop | split | left | raise | right
  std::string packing = "true";    // true | false | tree | auto
  bool shuffle = true;
  bool train_on_prompt = false;
  bool mask_history = false;
  std::int64_t shots = 0;

  // Encoders.
  std::string pooling = "auto";       // auto | first | mean: what labels of texts are read off
  std::optional<double> dropout;      // default: the model's own
  double mlm_probability = 0.15;      // of texts without verbs: how many of their tokens are masked, or left out (T5)
  double mean_noise_span_length = 3;  // of what is left out, tokens
  bool whole_word_masking = false;

  // Optimisation.
  std::int64_t per_device_train_batch_size = 8;
  std::int64_t gradient_accumulation_steps = 1;
  std::int64_t per_device_eval_batch_size = 8;
  std::string optim = "adamw";  // adamw | adamw_8bit
  double learning_rate = 2e-4;
  double num_train_epochs = 1;
  std::int64_t max_steps = -1;  // above 0: overrides num_train_epochs
  std::string lr_scheduler_type = "cosine";
  std::int64_t warmup_steps = 0;
  double warmup_ratio = 0;
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;

  // Evaluation, saving, stopping.
  std::int64_t logging_steps = 1;
  std::string eval_strategy = "auto";  // auto | no | steps | epoch; auto: each epoch when there are rows for it
  std::int64_t eval_steps = 0;
  std::string save_strategy = "epoch";  // no | steps | epoch
  std::int64_t save_steps = 0;
  std::int64_t save_total_limit = 2;
  std::optional<bool> predict_with_generate;  // generated metrics; default: each epoch, where a verb names metrics
  std::int64_t max_eval_rows = 0;             // 0: all
  bool load_best_model_at_end = false;
  std::string metric_for_best_model = "eval_loss";
  std::optional<bool> greater_is_better;
  std::int64_t early_stopping_patience = 0;  // evaluations without improvement; 0: off
  std::string output_dir;
  bool overwrite_output_dir = false;
  std::string resume_from_checkpoint;  // path, "auto" or "true": the newest valid one in output_dir; "false": none

  // Run.
  std::string dtype = "auto";
  std::int64_t threads = 0;
  std::string memory_limit;  // "1.5G": the run stays below, or is refused; empty: no limit
  std::uint64_t seed = 42;

  // Bytes, 0: none. Raises InvalidArgument where memory_limit is no size, or more than this machine has.
  std::int64_t memory_limit_bytes() const;
  double alpha() const { return lora_alpha.value_or(2.0 * static_cast<double>(lora_rank)); }
};

// Reads a configuration. `overrides` are "key", "value" pairs from the command line and win over the file. Raises
// InvalidArgument (or BadData for the file) naming line, key and what was expected; unknown keys get the nearest name.
// Keys of other trainers are read where they ask for what is done here anyway (train/foreign_keys.h).
TrainConfig parse_train_config(const Value& file, std::string_view origin,
                               const std::vector<std::pair<std::string, std::string>>& overrides);

// What can be refused without opening anything: missing keys, and keys that contradict one another. Raises
// InvalidArgument.
void check_train_config(const TrainConfig& config);

// "learning_rate (was 0.0005)" of every key that makes another training of it; both as to_value wrote them.
std::vector<std::string> changed_keys(const Value& before, const Value& now);

// Every value under its main key, as saved with a run.
Value to_value(const TrainConfig& config);

// For --help and the documentation: key, aliases, default, meaning.
struct KeyHelp {
  std::string key;
  std::string aliases;
  std::string standard;
  std::string meaning;
};
std::vector<KeyHelp> train_key_help();

}  // namespace instruct::train
