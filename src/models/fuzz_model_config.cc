// A config.json of every family with any of its fields replaced: refused with an error of the reader's own, or sizes
// that a model can be made of.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "models/encoder_config.h"
#include "models/seq2seq_config.h"
#include "models/sources.h"

namespace {

using instruct::ErrorCategory;
using instruct::Value;
namespace models = instruct::models;

constexpr std::array kFamilies = {"llama",   "mistral",     "qwen2",      "qwen3",       "qwen3_moe", "mixtral",
                                  "phi3",    "smollm3",     "gemma2",     "gemma3_text", "gpt2",      "bert",
                                  "roberta", "xlm-roberta", "distilbert", "modernbert",  "big_bird",  "t5",
                                  "mt5",     "bart",        "marian"};
constexpr std::array kSizes = {"hidden_size",
                               "num_hidden_layers",
                               "num_attention_heads",
                               "num_key_value_heads",
                               "intermediate_size",
                               "vocab_size",
                               "max_position_embeddings",
                               "head_dim",
                               "n_embd",
                               "n_layer",
                               "n_head",
                               "n_positions",
                               "n_inner",
                               "dim",
                               "n_layers",
                               "n_heads",
                               "hidden_dim",
                               "type_vocab_size",
                               "pad_token_id",
                               "d_model",
                               "d_kv",
                               "d_ff",
                               "num_layers",
                               "num_decoder_layers",
                               "num_heads",
                               "encoder_layers",
                               "decoder_layers",
                               "encoder_attention_heads",
                               "decoder_attention_heads",
                               "encoder_ffn_dim",
                               "decoder_ffn_dim",
                               "relative_attention_num_buckets",
                               "relative_attention_max_distance",
                               "decoder_start_token_id",
                               "num_local_experts",
                               "num_experts",
                               "num_experts_per_tok",
                               "moe_intermediate_size",
                               "sliding_window",
                               "local_attention",
                               "global_attn_every_n_layers",
                               "block_size",
                               "num_random_blocks",
                               "query_pre_attn_scalar",
                               "max_window_layers",
                               "original_max_position_embeddings"};
constexpr std::array kOthers = {"rms_norm_eps",
                                "layer_norm_eps",
                                "layer_norm_epsilon",
                                "norm_eps",
                                "rope_theta",
                                "rope_scaling",
                                "rope_parameters",
                                "rope_local_base_freq",
                                "partial_rotary_factor",
                                "hidden_act",
                                "hidden_activation",
                                "activation_function",
                                "feed_forward_proj",
                                "layer_types",
                                "no_rope_layers",
                                "attention_type",
                                "tie_word_embeddings",
                                "use_sliding_window",
                                "attention_bias",
                                "mlp_bias",
                                "norm_topk_prob",
                                "attn_logit_softcapping",
                                "final_logit_softcapping",
                                "mlp_only_layers",
                                "decoder_sparse_step",
                                "scale_embedding",
                                "forced_bos_token_id",
                                "bad_words_ids",
                                "scale_attn_by_inverse_layer_idx",
                                "architectures",
                                "initializer_range",
                                "dropout_rate"};

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::size_t next(std::size_t below) {
    if (size_ == 0) return 0;
    --size_;
    return *data_++ % below;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

Value any_value(Bytes& bytes, int depth = 0) {
  constexpr std::array<std::int64_t, 12> kIntegers = {
      -1, 0, 1, 2, 3, 7, 8, 64, 4096, std::int64_t{1} << 31, std::int64_t{1} << 61, INT64_MAX};
  constexpr std::array kNumbers = {0.0, 1e-5, 0.5, -1.0, 1e4, 1e300};
  constexpr std::array kTexts = {"",           "gelu",    "gelu_new",     "silu",           "relu",
                                 "gated-gelu", "default", "linear",       "dynamic",        "yarn",
                                 "longrope",   "llama3",  "block_sparse", "full_attention", "sliding_attention"};
  constexpr std::array kInner = {"rope_type",
                                 "type",
                                 "factor",
                                 "rope_theta",
                                 "short_factor",
                                 "long_factor",
                                 "low_freq_factor",
                                 "high_freq_factor",
                                 "original_max_position_embeddings",
                                 "beta_fast",
                                 "beta_slow",
                                 "full_attention",
                                 "sliding_attention",
                                 "attention_factor"};
  switch (bytes.next(depth < 3 ? 7 : 5)) {
    case 0:
      return Value(kIntegers[bytes.next(kIntegers.size())]);
    case 1:
      return Value(kNumbers[bytes.next(kNumbers.size())]);
    case 2:
      return Value(std::string(kTexts[bytes.next(kTexts.size())]));
    case 3:
      return Value(bytes.next(2) == 0);
    case 4:
      return {};
    case 5: {
      Value items = Value::array();
      for (std::size_t i = bytes.next(6); i > 0; --i) items.push(any_value(bytes, depth + 1));
      return items;
    }
    default: {
      Value members = Value::object();
      for (std::size_t i = bytes.next(6); i > 0; --i)
        members.set(kInner[bytes.next(kInner.size())], any_value(bytes, depth + 1));
      return members;
    }
  }
}

Value config_of(Bytes& bytes, std::string_view family) {
  Value config = Value::object({{"model_type", std::string(family)}});
  for (const std::string_view key : kSizes) {
    const bool wide = key.find("size") != key.npos || key.find("dim") != key.npos || key.find("position") != key.npos ||
                      key == "d_model" || key == "n_embd" || key == "dim";
    config.set(key, Value(std::int64_t{wide ? 32 : 4}));
  }
  for (std::size_t i = bytes.next(8); i > 0 && !bytes.empty(); --i) {
    const std::size_t key = bytes.next(kSizes.size() + kOthers.size());
    config.set(key < kSizes.size() ? kSizes[key] : kOthers[key - kSizes.size()], any_value(bytes));
  }
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  const std::string_view family = kFamilies[bytes.next(kFamilies.size())];
  const Value config = config_of(bytes, family);
  try {
    if (models::find_encoder_family(family) != nullptr) {
      models::encoder_config_from_json(config, "fuzz").check("fuzz");
    } else if (models::find_seq2seq_family(family) != nullptr) {
      models::seq2seq_config_from_json(config, "fuzz").check("fuzz");
    } else {
      models::config_from_json(config, "fuzz").check("fuzz");
    }
  } catch (const instruct::Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported ||
                   error.category() == ErrorCategory::kNotFound);
  }
  return 0;
}
