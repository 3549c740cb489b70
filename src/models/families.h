// The families of decoders: what their files call them, and how they differ where no field of a configuration says so.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace instruct::models {

// What files of Hugging Face call the weights: modules, those of a block behind its number.
struct DecoderNames {
  std::string_view embedding = "model.embed_tokens";
  std::string_view positions = "";  // empty: none are learned
  std::string_view block = "model.layers.";
  std::string_view attention_norm = "input_layernorm";
  std::string_view query = "self_attn.q_proj", key = "self_attn.k_proj", value = "self_attn.v_proj";
  std::string_view fused_attention = "self_attn.qkv_proj";
  std::string_view output = "self_attn.o_proj";
  std::string_view feed_forward_norm = "post_attention_layernorm";
  std::string_view gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  std::string_view fused_gating = "mlp.gate_up_proj";
  std::string_view norm = "model.norm";
};

struct Family {
  std::string_view model_type;    // of config.json
  std::string_view architecture;  // of transformers: the class that config.json names
  std::string_view gguf;          // general.architecture
  // GGUF keeps the two numbers that are rotated together side by side in q and k; Hugging Face half a head apart.
  bool gguf_moves_rows = false;
  bool projections_biased = false;  // q, k and v always, o never
  bool fused_projections = false;   // q, k and v are one matrix, gate and up another
  bool layer_norms = false;         // norms take the mean away, and they and all projections of blocks have biases
  bool learned_positions = false;   // in the place of rotary ones
  bool gated = true;                // the feed-forward
  // Hugging Face's files hold the projections of blocks as [inputs, outputs], and weights perhaps without the first
  // part of their names.
  bool inputs_first = false;
  bool head_norms = false;       // q and k are normalised by head
  bool tied_by_default = false;  // what a config.json without tie_word_embeddings means
  // A sliding window that is named is used; else where use_sliding_window says so.
  bool window_always = false;
  bool window_of_unrotated = false;       // it holds in layers without rotary positions alone
  std::int64_t unwindowed_layers = 0;     // at the start, where max_window_layers says nothing
  std::int64_t unrotated_interval = 0;    // every so many layers one without, unless no_rope_layers says which
  std::int64_t full_interval = 0;         // every so many layers one without the window, unless layer_types says which
  std::int64_t default_head_width = 0;    // 0: hidden_size / num_attention_heads
  std::int64_t default_query_scalar = 0;  // query_pre_attn_scalar; 0: the head's width
  // How many layers the one has that llama.cpp takes hidden_size / num_attention_heads for instead; 0: none.
  std::int64_t even_scalar_layers = 0;
  bool out_norms = false;          // what attention and feed-forward add is normalised
  bool scaled_embeddings = false;  // by the root of hidden_size
  // Of the weights of norms, to which Hugging Face's files are relative; GGUF keeps the sum.
  float norm_offset = 0;
  std::string_view activation = "silu";
  DecoderNames names = {};
  // A mixture of experts: what its module is called, and gate, up and down of an expert. Empty: there is none.
  std::string_view experts_module;
  std::array<std::string_view, 3> expert_names = {};
  std::int64_t default_experts = 0;
  std::int64_t default_chosen = 0;        // num_experts_per_tok
  std::int64_t default_expert_width = 0;  // moe_intermediate_size; 0: experts are intermediate_size wide
  bool renormalises = false;              // the weights of chosen experts, where norm_topk_prob says nothing
  float attention_soft_cap = 0;  // attn_logit_softcapping and final_logit_softcapping, where a file has no such key
  float logit_soft_cap = 0;
  double default_theta = 10000.0;     // rope_theta
  std::int64_t original_context = 0;  // original_max_position_embeddings; 0: max_position_embeddings
  bool partial_rotary = false;        // heads may be rotated in part (partial_rotary_factor)
  bool yarn_is_longrope = false;      // files that say yarn mean longrope
  double window_theta = 0;            // that of the layers with a window (rope_local_base_freq); 0: the same
};

// By model_type. Raises Unsupported, naming `origin` (the file that says so) and the nearest name, for another.
const Family& family_of(std::string_view model_type, const std::string& origin = "");
// By GGUF's architecture and whether the model has experts; the model_type of a family that shares both is the first's.
enum class FeedForward : std::uint8_t { kOne, kExperts };
const Family& family_of_gguf(std::string_view architecture, const std::string& origin,
                             FeedForward feed_forward = FeedForward::kOne);

}  // namespace instruct::models
