#include "train/foreign_keys.h"

#include <algorithm>
#include <vector>

namespace instruct::train {
namespace {

struct Entry {
  std::vector<std::string_view> names;
  std::vector<std::string_view> settled;  // values that change nothing; "*": any
  std::string_view why;
};

// Names as in transformers, TRL, LLaMA-Factory, axolotl and mlx-lm.
const std::vector<Entry>& entries() {
  static const std::vector<Entry> table{
      {{"stage"}, {"sft"}, "only supervised tuning (sft)"},
      {{"pref_beta", "pref_loss", "pref_ftx", "rl", "reward_model"}, {}, "there is no preference tuning"},
      {{"fp16"}, {"false"}, "use dtype: bf16, f32 or auto"},
      {{"tf32"}, {"*"}, "it is a setting of GPUs"},
      {{"gradient_checkpointing_kwargs", "use_reentrant"}, {"*"}, "blocks are recomputed in one way"},
      {{"report_to"}, {"none"}, "metrics go to trainer_log.jsonl in output_dir"},
      {{"wandb_project", "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model", "run_name", "logging_dir"},
       {},
       "metrics go to trainer_log.jsonl in output_dir"},
      {{"use_dora", "peft_use_dora"}, {"false"}, "LoRA is plain or rank-stabilised (use_rslora)"},
      {{"loraplus_lr_ratio"}, {"0", "1", "1.0"}, "A and B learn at the same rate"},
      {{"neftune_noise_alpha"}, {"0", "0.0"}, "no noise is added to embeddings"},
      {{"label_smoothing_factor", "label_smoothing"}, {"0", "0.0"}, "the loss is plain -log P"},
      {{"lora_bias", "bias"}, {"none"}, "biases are not trained with LoRA"},
      {{"modules_to_save", "lora_modules_to_save", "additional_target"}, {}, "LoRA trains its own matrices only"},
      {{"init_lora_weights"}, {"true"}, "A starts random and B at zero"},
      {{"freeze_trainable_layers", "freeze_trainable_modules", "num_layers", "unfrozen_parameters"},
       {"-1"},
       "all layers are trained; lora_target chooses modules"},
      {{"quantization_bit", "quantization_method"}, {}, "use a quantised GGUF as model, with keep_quantised: true"},
      {{"max_samples"}, {}, "cut the file with instruct data split"},
      {{"datasets"}, {}, "give one file as dataset"},
      {{"group_by_length", "streaming", "push_to_hub", "use_unsloth", "torch_compile"},
       {"false"},
       "it is not done here"},
      {{"deepspeed", "fsdp", "fsdp_config"}, {"false"}, "one process trains"},
      {{"mask_prompt"}, {"true"}, "train_on_prompt: true trains every token"},
      {{"logging_strategy"}, {"steps"}, "see logging_steps"},
      {{"train",
        "do_train",
        "do_eval",
        "test",
        "do_predict",
        "plot_loss",
        "strict",
        "overwrite_cache",
        "preprocessing_num_workers",
        "dataset_num_proc",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "ddp_timeout",
        "ddp_find_unused_parameters",
        "local_rank",
        "trust_remote_code",
        "flash_attn",
        "flash_attention",
        "attn_implementation",
        "use_fast_tokenizer",
        "low_cpu_mem_usage",
        "remove_unused_columns",
        "disable_tqdm",
        "logging_first_step",
        "save_safetensors",
        "save_only_model",
        "pad_to_sequence_len",
        "use_cpu",
        "no_cuda",
        "use_cache",
        "dataset_prepared_path",
        "model_type",
        "tokenizer_type"},
       {"*"},
       "nothing here depends on it"},
  };
  return table;
}

bool contains(const std::vector<std::string_view>& list, std::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

}  // namespace

ForeignAnswer foreign_key(std::string_view name, std::string_view value) {
  for (const Entry& entry : entries()) {
    if (!contains(entry.names, name)) continue;
    if (contains(entry.settled, "*")) return {ForeignKey::kIgnored, std::string(entry.why)};
    if (value.empty() || contains(entry.settled, value)) return {ForeignKey::kSettled, {}};
    return {ForeignKey::kUnsupported, std::string(entry.why)};
  }
  return {};
}

}  // namespace instruct::train
