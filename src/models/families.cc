#include "models/families.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace instruct::models {
namespace {

// With what all Gemmas share.
constexpr Family gemma(Family family) {
  family.tied_by_default = true;
  family.window_always = true;
  family.default_head_width = 256;
  family.default_query_scalar = 256;
  family.out_norms = true;
  family.scaled_embeddings = true;
  family.norm_offset = 1;
  family.activation = "gelu_pytorch_tanh";
  return family;
}

constexpr Family kFamilies[] = {
    {.model_type = "llama", .architecture = "LlamaForCausalLM", .gguf = "llama", .gguf_moves_rows = true},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .gguf = "llama",
     .gguf_moves_rows = true,
     .window_always = true},
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .gguf = "qwen2",
     .projections_biased = true,
     .unwindowed_layers = 28},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .gguf = "qwen3",
     .head_norms = true,
     .unwindowed_layers = 28,
     .default_head_width = 128},
    {.model_type = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .gguf = "qwen3moe",
     .head_norms = true,
     .experts_module = "mlp",
     .expert_names = {"gate_proj", "up_proj", "down_proj"},
     .default_experts = 128,
     .default_chosen = 8,
     .default_expert_width = 768},
    {.model_type = "mixtral",
     .architecture = "MixtralForCausalLM",
     .gguf = "llama",
     .gguf_moves_rows = true,
     .window_always = true,
     .experts_module = "block_sparse_moe",
     .expert_names = {"w1", "w3", "w2"},
     .default_experts = 8,
     .default_chosen = 2,
     .renormalises = true,
     .default_theta = 1e6},
    {.model_type = "phi3",
     .architecture = "Phi3ForCausalLM",
     .gguf = "phi3",
     .fused_projections = true,
     .window_always = true,
     .original_context = 4096,
     .partial_rotary = true,
     .yarn_is_longrope = true},
    {.model_type = "smollm3",
     .architecture = "SmolLM3ForCausalLM",
     .gguf = "smollm3",
     .gguf_moves_rows = true,
     .tied_by_default = true,
     .window_of_unrotated = true,
     .unrotated_interval = 4},
    gemma({.model_type = "gemma2",
           .architecture = "Gemma2ForCausalLM",
           .gguf = "gemma2",
           .full_interval = 2,
           .even_scalar_layers = 46,
           .attention_soft_cap = 50,
           .logit_soft_cap = 30}),
    gemma({.model_type = "gemma3_text",
           .architecture = "Gemma3ForCausalLM",
           .gguf = "gemma3",
           .head_norms = true,
           .full_interval = 6,
           .even_scalar_layers = 62,
           .default_theta = 1e6,
           .window_theta = 1e4}),
    {.model_type = "gpt2",
     .architecture = "GPT2LMHeadModel",
     .gguf = "gpt2",
     .fused_projections = true,
     .layer_norms = true,
     .learned_positions = true,
     .gated = false,
     .inputs_first = true,
     .tied_by_default = true,
     .activation = "gelu_new",
     .names = {.embedding = "transformer.wte",
               .positions = "transformer.wpe",
               .block = "transformer.h.",
               .attention_norm = "ln_1",
               .fused_attention = "attn.c_attn",
               .output = "attn.c_proj",
               .feed_forward_norm = "ln_2",
               .up = "mlp.c_fc",
               .down = "mlp.c_proj",
               .norm = "transformer.ln_f"}},
};

const Family& find(std::string_view name, std::string_view Family::*key, const std::string& origin) {
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                   [&](const Family& family) { return family.*key == name; });
  if (found != std::end(kFamilies)) return *found;
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    const std::string candidate(family.*key);
    if (std::find(known.begin(), known.end(), candidate) == known.end()) known.push_back(candidate);
  }
  raise(ErrorCategory::kUnsupported, "{}: unknown architecture '{}'{}", origin, name,
        did_you_mean(std::string(name), known));
}

}  // namespace

const Family& family_of(std::string_view model_type, const std::string& origin) {
  return find(model_type, &Family::model_type, origin);
}

const Family& family_of_gguf(std::string_view architecture, const std::string& origin, FeedForward feed_forward) {
  const Family& first = find(architecture, &Family::gguf, origin);
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies), [&](const Family& family) {
    return family.gguf == architecture && family.experts_module.empty() == (feed_forward == FeedForward::kOne);
  });
  if (found != std::end(kFamilies)) return *found;
  raise(ErrorCategory::kUnsupported, "{}: architecture '{}' {} a mixture of experts, and this file {} experts", origin,
        architecture, first.experts_module.empty() ? "is known without" : "is",
        feed_forward == FeedForward::kOne ? "has no" : "has");
}

}  // namespace instruct::models
