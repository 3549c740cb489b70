#include "models/sources.h"

#include <cmath>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "models/families.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using formats::GgufFile;
using tensor::Tensor;

struct NamePair {
  std::string_view hugging_face;
  std::string_view gguf;
};
// Names inside a block, then those outside.
constexpr NamePair kBlockNames[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
};
// Where norms stand behind attention and feed-forward too.
constexpr NamePair kOutNormNames[] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};
constexpr NamePair kOuterNames[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

Tensor move_rows(const Tensor& source, std::int64_t heads, tensor::Allocator& allocator, bool from_gguf) {
  Tensor result = Tensor::empty(source.shape(), source.dtype(), allocator);
  const std::int64_t rows = source.dim(0);
  const std::int64_t half = rows / heads / 2;
  const auto row_bytes = static_cast<std::size_t>(source.bytes() / rows);
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < half; ++i) {
      for (std::int64_t part = 0; part < 2; ++part) {
        const std::int64_t ours = head * 2 * half + part * half + i;  // halves
        const std::int64_t theirs = head * 2 * half + 2 * i + part;   // neighbours
        std::memcpy(result.raw() + static_cast<std::size_t>(from_gguf ? ours : theirs) * row_bytes,
                    source.raw() + static_cast<std::size_t>(from_gguf ? theirs : ours) * row_bytes, row_bytes);
      }
    }
  }
  return result;
}

class GgufSource final : public WeightSource {
 public:
  GgufSource(std::shared_ptr<const GgufFile> file, LlamaConfig config, std::shared_ptr<tensor::Allocator> allocator)
      : file_(std::move(file)), config_(std::move(config)), allocator_(std::move(allocator)) {}
  bool has(const std::string& name) const override { return file_->has_tensor(gguf_name(config_, name)); }
  Tensor get(const std::string& name) const override {
    Tensor stored = file_->tensor(gguf_name(config_, name));
    if (const float offset = gguf_offset(config_, name); offset != 0) {
      std::vector<float> values = stored.to_floats();
      for (float& value : values) value -= offset;
      return Tensor::from_floats(values, stored.shape(), *allocator_);
    }
    std::int64_t heads = 0;
    if (!has_moved_rows(config_, name, heads) || stored.dim(0) % (2 * heads) != 0) return stored;
    return rows_from_gguf(stored, heads, *allocator_);
  }
  void read_ahead() const override { file_->read_ahead(); }
  void release() const override { file_->release(); }
  std::string origin() const override { return file_->origin(); }

 private:
  std::shared_ptr<const GgufFile> file_;
  LlamaConfig config_;
  std::shared_ptr<tensor::Allocator> allocator_;
};

class FolderSource final : public WeightSource {
 public:
  explicit FolderSource(const fs::path& folder) : folder_(folder) {
    for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
      const fs::path index = folder / (std::string(name) + ".index.json");
      if (fs::exists(index)) {
        with_origin(index.string(), [&] { add_shards(parse_json(read_file(index, 1 << 30), index.string())); });
        return;
      }
      if (fs::exists(folder / name)) {
        add(opened(folder / name));
        return;
      }
    }
    raise(ErrorCategory::kNotFound, "{}: model.safetensors is missing, and so is pytorch_model.bin", folder.string());
  }
  bool has(const std::string& name) const override { return files_.contains(name); }
  Tensor get(const std::string& name) const override {
    const auto found = files_.find(name);
    if (found == files_.end()) raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing", origin(), name);
    return found->second->tensor(name);
  }
  void read_ahead() const override {
    for (const auto& file : shards_) file->read_ahead();
  }
  void release() const override {
    for (const auto& file : shards_) file->release();
  }
  std::string origin() const override { return folder_.string(); }

 private:
  static std::shared_ptr<const formats::TensorFile> opened(const fs::path& path) {
    if (path.extension() == ".bin") return formats::PytorchFile::open(path);
    return formats::SafetensorsFile::open(path);
  }
  void add_shards(const Value& index) {
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [name, shard] : index.at("weight_map").as_object()) shards[shard.as_string()].push_back(name);
    std::string missing;
    for (const auto& [shard, names] : shards) {
      if (!shard.empty() && fs::path(shard).filename() == fs::path(shard) && fs::exists(folder_ / shard)) continue;
      missing += (missing.empty() ? "'" : ", '") + shard + "'";
    }
    if (!missing.empty())
      raise(ErrorCategory::kNotFound, "of {} shards {} missing: was the download complete?", shards.size(),
            missing + (missing.find(", ") == std::string::npos ? " is" : " are"));
    for (const auto& [shard, names] : shards) {
      const auto file = opened(folder_ / shard);
      for (const std::string& name : names) {
        if (!file->has(name))
          raise(ErrorCategory::kNotFound, "tensor '{}' is not in shard '{}', where the index says it is", name, shard);
      }
      add(file);
    }
  }
  void add(const std::shared_ptr<const formats::TensorFile>& file) {
    for (const std::string& name : file->names()) files_[name] = file;
    shards_.push_back(file);
  }
  fs::path folder_;
  std::map<std::string, std::shared_ptr<const formats::TensorFile>> files_;  // by tensor
  std::vector<std::shared_ptr<const formats::TensorFile>> shards_;
};

nn::RotaryConfig::Scaling scaling_from_name(const std::string& name, const std::string& origin) {
  using Scaling = nn::RotaryConfig::Scaling;
  if (name.empty() || name == "none" || name == "default") return Scaling::kNone;
  if (name == "linear") return Scaling::kLinear;
  if (name == "dynamic") return Scaling::kDynamic;
  if (name == "yarn") return Scaling::kYarn;
  if (name == "llama3") return Scaling::kLlama3;
  raise(ErrorCategory::kUnsupported, "{}: rope scaling '{}': this program knows linear, dynamic, yarn and llama3",
        origin, name);
}

// A member that is neither absent nor null.
const Value* given(const Value& json, const char* key) {
  const Value* value = json.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}
std::int64_t integer_or(const Value& json, const char* key, std::int64_t otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_integer();
}
double number_or(const Value& json, const char* key, double otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_double();
}
bool boolean_or(const Value& json, const char* key, bool otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_bool();
}

// What would be computed wrongly without a word.
void refuse_variants(const Value& json, const Family& family) {
  const auto refuse = [](const std::string& what) { raise(ErrorCategory::kUnsupported, "{}", what); };
  for (const char* key : {"hidden_act", "hidden_activation"}) {
    const Value* activation = given(json, key);
    if (activation != nullptr && activation->as_string() != family.activation)
      refuse(fmt::format("{} '{}': this program knows {} for {}", key, activation->as_string(), family.activation,
                         family.model_type));
  }
  if (boolean_or(json, "use_bidirectional_attention", false))
    refuse("use_bidirectional_attention: this program computes causal attention");
  if (boolean_or(json, "mlp_bias", false)) refuse("mlp_bias: feed-forward layers with a bias are not supported");
  if (given(json, "quantization_config") != nullptr)
    refuse("quantization_config: this program reads f32, f16 and bf16 folders, and quantised models as GGUF");
  if (number_or(json, "partial_rotary_factor", 1.0) != 1.0)
    refuse("partial_rotary_factor: heads that are rotated in part are not supported");
}

std::vector<bool> every(std::int64_t interval, std::int64_t layers) {
  std::vector<bool> chosen;
  for (std::int64_t layer = 1; layer <= std::clamp<std::int64_t>(layers, 0, 1024); ++layer)
    chosen.push_back(layer % interval == 0);
  return chosen;
}

// Which layers no_rope_layers (a 1 for each layer with rotary positions, a 0 for each without) or an interval means.
std::vector<bool> unrotated_layers(const Value& json, std::int64_t layers, const Family& family) {
  if (const Value* listed = given(json, "no_rope_layers")) {
    std::vector<bool> chosen;
    for (const Value& rotated : listed->as_array()) chosen.push_back(rotated.as_integer() == 0);
    return chosen;
  }
  const std::int64_t interval = integer_or(json, "no_rope_layer_interval", family.unrotated_interval);
  if (interval < 1) raise(ErrorCategory::kBadData, "no_rope_layer_interval is {}, at least 1 is needed", interval);
  return every(interval, layers);
}

// No list where the window holds for all layers, no window where it holds for none.
void settle_windows(LlamaConfig& config) {
  const auto count = std::count(config.windowed.begin(), config.windowed.end(), true);
  const bool none = !config.windowed.empty() && count == 0;
  if (none) config.sliding_window = 0;
  if (none || count == static_cast<std::ptrdiff_t>(config.windowed.size())) config.windowed.clear();
}

// Newer folders list layer_types; older ones leave it to the family.
void choose_windowed_layers(const Value& json, const Family& family, LlamaConfig& config) {
  if (config.sliding_window == 0) {
    if (family.full_interval > 0) raise(ErrorCategory::kBadData, "sliding_window is missing or 0");
    return;
  }
  if (const Value* types = given(json, "layer_types")) {
    for (const Value& type : types->as_array()) {
      const std::string& name = type.as_string();
      if (name != "sliding_attention" && name != "full_attention")
        raise(ErrorCategory::kUnsupported, "layer_types: '{}': this program knows sliding_attention and full_attention",
              name);
      config.windowed.push_back(name == "sliding_attention");
    }
  } else if (family.window_of_unrotated) {
    config.windowed = config.unrotated;
  } else if (family.full_interval > 0) {
    const std::int64_t interval = integer_or(json, "sliding_window_pattern", family.full_interval);
    if (interval < 1) raise(ErrorCategory::kBadData, "sliding_window_pattern is {}, at least 1 is needed", interval);
    config.windowed = every(interval, config.layers);
    config.windowed.flip();
  } else if (family.unwindowed_layers > 0) {
    const std::int64_t first = integer_or(json, "max_window_layers", family.unwindowed_layers);
    for (std::int64_t layer = 0; layer < std::clamp<std::int64_t>(config.layers, 0, 1024); ++layer)
      config.windowed.push_back(layer >= first);
  }
  settle_windows(config);
}

// What no field says. Needs the sizes.
void set_family(const Family& family, LlamaConfig& config) {
  config.architecture = family.model_type;
  config.head_norms = family.head_norms;
  config.out_norms = family.out_norms;
  config.norm_offset = family.norm_offset;
  if (family.activation != "silu") config.activation = ops::Activation::kGeluTanh;
  if (family.scaled_embeddings)
    config.embedding_scale =
        static_cast<float>(std::sqrt(static_cast<double>(std::max<std::int64_t>(0, config.width))));
}

LlamaConfig sizes_from_json(const Value& json, const Family& family) {
  LlamaConfig config;
  config.layers = json.at("num_hidden_layers").as_integer();
  config.width = json.at("hidden_size").as_integer();
  config.feed_forward_width = json.at("intermediate_size").as_integer();
  config.heads = json.at("num_attention_heads").as_integer();
  config.key_value_heads = integer_or(json, "num_key_value_heads", config.heads);
  const std::int64_t even = config.heads > 0 ? config.width / config.heads : 0;
  config.head_width = integer_or(json, "head_dim", family.default_head_width > 0 ? family.default_head_width : even);
  config.vocabulary = json.at("vocab_size").as_integer();
  config.context_length = integer_or(json, "max_position_embeddings", 2048);
  config.norm_epsilon = static_cast<float>(number_or(json, "rms_norm_eps", 1e-6));
  config.tied_embeddings = boolean_or(json, "tie_word_embeddings", family.tied_by_default);
  config.padding = integer_or(json, "pad_token_id", -1);
  config.attention_bias = family.projections_biased || boolean_or(json, "attention_bias", false);
  config.output_bias = config.attention_bias && !family.projections_biased;
  set_family(family, config);
  config.query_scalar = integer_or(json, "query_pre_attn_scalar", family.default_query_scalar);
  const auto soft_cap = [&](const char* key, float otherwise) {  // null says that there is none
    return json.find(key) == nullptr ? otherwise : static_cast<float>(number_or(json, key, 0));
  };
  config.attention_soft_cap = soft_cap("attn_logit_softcapping", family.attention_soft_cap);
  config.logit_soft_cap = soft_cap("final_logit_softcapping", family.logit_soft_cap);
  // Mistral names a window to use it; Qwen names one always and says beside it whether, and from which layer on.
  if (family.window_always || boolean_or(json, "use_sliding_window", false))
    config.sliding_window = integer_or(json, "sliding_window", 0);
  if (family.unrotated_interval > 0) config.unrotated = unrotated_layers(json, config.layers, family);
  choose_windowed_layers(json, family, config);
  return config;
}

// From the parameters of a kind of layers, or null.
nn::RotaryConfig rotary_of(const Value* scaling, double theta, const std::string& origin, const LlamaConfig& config) {
  using Scaling = nn::RotaryConfig::Scaling;
  nn::RotaryConfig rotary;
  rotary.width = config.head_width;
  rotary.theta = theta;
  rotary.original_context = static_cast<double>(config.context_length);
  if (scaling == nullptr) return rotary;
  rotary.theta = number_or(*scaling, "rope_theta", rotary.theta);
  const Value* type = given(*scaling, "rope_type");
  if (type == nullptr) type = given(*scaling, "type");
  if (type == nullptr && given(*scaling, "factor") != nullptr)
    raise(ErrorCategory::kBadData, "rope_scaling has a factor but no rope_type");
  rotary.scaling = scaling_from_name(type != nullptr ? type->as_string() : "", origin);
  if (number_or(*scaling, "partial_rotary_factor", 1.0) != 1.0 || !boolean_or(*scaling, "truncate", true))
    raise(ErrorCategory::kUnsupported, "rope_scaling: partial_rotary_factor and truncate are not supported");
  if (rotary.scaling == Scaling::kNone) return rotary;
  // Dynamic scaling starts past the context the model was trained with, and nothing longer is accepted here.
  if (rotary.scaling != Scaling::kDynamic)
    rotary.original_context = number_or(*scaling, "original_max_position_embeddings", rotary.original_context);
  const bool from_lengths = rotary.scaling == Scaling::kYarn && given(*scaling, "factor") == nullptr;
  rotary.factor = from_lengths ? static_cast<double>(config.context_length) / rotary.original_context
                               : scaling->at("factor").as_double();
  rotary.low_frequency_factor = number_or(*scaling, "low_freq_factor", 1.0);
  rotary.high_frequency_factor = number_or(*scaling, "high_freq_factor", 4.0);
  rotary.beta_fast = number_or(*scaling, "beta_fast", 32.0);
  rotary.beta_slow = number_or(*scaling, "beta_slow", 1.0);
  rotary.attention_factor = number_or(*scaling, "attention_factor", 0.0);
  if (given(*scaling, "mscale") != nullptr || given(*scaling, "mscale_all_dim") != nullptr)
    raise(ErrorCategory::kUnsupported, "rope_scaling: mscale and mscale_all_dim are not supported");
  return rotary;
}

// Newer folders keep everything about rotary positions in rope_parameters, where kinds of layers differ one by one;
// older ones in rope_theta, rope_scaling and rope_local_base_freq.
void read_rotary(const Value& json, const Family& family, const std::string& origin, LlamaConfig& config) {
  const Value* parameters = given(json, "rope_parameters");
  if (parameters == nullptr) parameters = given(json, "rope_scaling");
  const Value* full = parameters;
  const Value* windowed = nullptr;
  if (parameters != nullptr && family.window_theta > 0 && parameters->find("full_attention") != nullptr) {
    full = given(*parameters, "full_attention");
    windowed = given(*parameters, "sliding_attention");
  }
  config.rotary = rotary_of(full, number_or(json, "rope_theta", family.default_theta), origin, config);
  if (family.window_theta > 0) {
    const double theta = number_or(json, "rope_local_base_freq", family.window_theta);
    config.window_rotary = rotary_of(windowed, theta, origin, config);
  }
}

}  // namespace

std::string gguf_name(const LlamaConfig& config, const std::string& name) {
  for (const NamePair& pair : kOuterNames) {
    if (name == pair.hugging_face) return std::string(pair.gguf);
  }
  constexpr std::string_view kPrefix = "model.layers.";
  if (name.starts_with(kPrefix)) {
    const std::size_t dot = name.find('.', kPrefix.size());
    const std::size_t last = name.rfind('.');
    if (dot != std::string::npos && last > dot) {
      const std::string inner = name.substr(dot + 1, last - dot - 1);
      std::string_view found;
      for (const NamePair& pair : kBlockNames) {
        if (inner == pair.hugging_face) found = pair.gguf;
      }
      for (const NamePair& pair : kOutNormNames) {
        if (config.out_norms && inner == pair.hugging_face) found = pair.gguf;
      }
      if (!found.empty())
        return fmt::format("blk.{}.{}{}", name.substr(kPrefix.size(), dot - kPrefix.size()), found, name.substr(last));
    }
  }
  raise(ErrorCategory::kInternal, "no GGUF name for tensor '{}'", name);
}

// llama.cpp knows the Gemmas of 27B, alone in their use of another number, by how many layers they have.
std::int64_t gguf_query_scalar(const LlamaConfig& config) {
  const Family& family = family_of(config.architecture);
  if (family.default_query_scalar == 0) return 0;
  return config.layers == family.even_scalar_layers ? config.width / config.heads : config.head_width;
}

float gguf_offset(const LlamaConfig& config, const std::string& name) {
  return name.ends_with("norm.weight") ? config.norm_offset : 0;
}

Tensor rows_from_gguf(const Tensor& stored, std::int64_t heads, tensor::Allocator& allocator) {
  return move_rows(stored, heads, allocator, true);
}
Tensor rows_to_gguf(const Tensor& tensor, std::int64_t heads, tensor::Allocator& allocator) {
  return move_rows(tensor, heads, allocator, false);
}

bool has_moved_rows(const LlamaConfig& config, const std::string& name, std::int64_t& heads) {
  if (!family_of(config.architecture).gguf_moves_rows) return false;
  if (name.find("self_attn.q_proj") != std::string::npos) {
    heads = config.heads;
    return true;
  }
  if (name.find("self_attn.k_proj") != std::string::npos) {
    heads = config.key_value_heads;
    return true;
  }
  return false;
}

namespace {

// Which layers the window holds for: as the file says, or as llama.cpp takes it.
void choose_windowed_layers(const GgufFile& file, const std::string& prefix, const Family& family,
                            LlamaConfig& config) {
  if (config.sliding_window == 0)
    raise(ErrorCategory::kBadData, "{}: {}attention.sliding_window is missing or 0", file.origin(), prefix);
  const std::int64_t interval = file.integer_or(prefix + "attention.sliding_window_pattern", family.full_interval);
  if (interval < 1)
    raise(ErrorCategory::kBadData, "{}: {}attention.sliding_window_pattern is {}, at least 1 is needed", file.origin(),
          prefix, interval);
  config.windowed = every(interval, config.layers);
  config.windowed.flip();
  settle_windows(config);
}

}  // namespace

LlamaConfig config_from_gguf(const GgufFile& file) {
  LlamaConfig config;
  const Family& family = family_of_gguf(file.text("general.architecture"), file.origin());
  const std::string prefix = std::string(family.gguf) + ".";
  config.layers = file.integer(prefix + "block_count");
  config.width = file.integer(prefix + "embedding_length");
  config.feed_forward_width = file.integer(prefix + "feed_forward_length");
  config.heads = file.integer(prefix + "attention.head_count");
  config.key_value_heads = file.integer_or(prefix + "attention.head_count_kv", config.heads);
  config.head_width =
      file.integer_or(prefix + "attention.key_length", config.heads > 0 ? config.width / config.heads : 0);
  config.context_length = file.integer(prefix + "context_length");
  config.sliding_window = file.integer_or(prefix + "attention.sliding_window", 0);
  config.norm_epsilon = static_cast<float>(file.number(prefix + "attention.layer_norm_rms_epsilon"));
  config.tied_embeddings = !file.has_tensor("output.weight");
  config.attention_bias = file.has_tensor("blk.0.attn_q.bias");
  config.output_bias = file.has_tensor("blk.0.attn_output.bias");
  set_family(family, config);
  if (config.heads > 0) config.query_scalar = gguf_query_scalar(config);
  const auto soft_cap = [&](const char* key, float otherwise) {
    return static_cast<float>(file.number_or(prefix + key, static_cast<double>(otherwise)));
  };
  config.attention_soft_cap = soft_cap("attn_logit_softcapping", family.attention_soft_cap);
  config.logit_soft_cap = soft_cap("final_logit_softcapping", family.logit_soft_cap);
  if (family.full_interval > 0) choose_windowed_layers(file, prefix, family, config);
  if (family.unrotated_interval > 0) config.unrotated = every(family.unrotated_interval, config.layers);
  config.vocabulary = file.has_tensor("token_embd.weight") ? file.tensor("token_embd.weight").dim(0) : 0;
  config.padding = file.integer_or("tokenizer.ggml.padding_token_id", -1);
  config.rotary.theta = file.number_or(prefix + "rope.freq_base", family.default_theta);
  config.rotary.width = file.integer_or(prefix + "rope.dimension_count", config.head_width);
  config.rotary.scaling = scaling_from_name(file.text_or(prefix + "rope.scaling.type", "none"), file.origin());
  config.rotary.factor = file.number_or(prefix + "rope.scaling.factor", 1.0);
  config.rotary.original_context =
      file.number_or(prefix + "rope.scaling.original_context_length", static_cast<double>(config.context_length));
  if (family.window_theta > 0) {
    config.window_rotary = {.theta = file.number_or(prefix + "rope.freq_base_swa", family.window_theta),
                            .width = config.rotary.width,
                            .original_context = static_cast<double>(config.context_length)};
  }
  if (file.has_tensor("rope_freqs.weight"))
    config.rotary.frequency_factors = file.tensor("rope_freqs.weight").to_floats();
  if (file.integer_or(prefix + "expert_count", 0) > 0)
    raise(ErrorCategory::kUnsupported, "{}: a mixture of experts is not supported", file.origin());
  if (const std::int64_t width = file.integer_or(prefix + "attention.value_length", config.head_width);
      width != config.head_width) {
    raise(ErrorCategory::kUnsupported, "{}: values of width {} beside keys of width {}", file.origin(), width,
          config.head_width);
  }
  if (config.rotary.width != config.head_width) {
    raise(ErrorCategory::kUnsupported, "{}: rotary width {} differs from the head width {}", file.origin(),
          config.rotary.width, config.head_width);
  }
  return config;
}

LlamaConfig config_from_json(const Value& json, const std::string& origin) {
  return with_origin(origin, [&] {
    const Family& family = family_of(json.at("model_type").as_string(), origin);
    refuse_variants(json, family);
    LlamaConfig config = sizes_from_json(json, family);
    read_rotary(json, family, origin, config);
    return config;
  });
}

std::unique_ptr<WeightSource> make_gguf_source(std::shared_ptr<const GgufFile> file, const LlamaConfig& config,
                                               std::shared_ptr<tensor::Allocator> allocator) {
  return std::make_unique<GgufSource>(std::move(file), config, std::move(allocator));
}

std::unique_ptr<WeightSource> make_folder_source(const fs::path& folder) {
  return std::make_unique<FolderSource>(folder);
}

}  // namespace instruct::models
