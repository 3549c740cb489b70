#include "models/sources.h"

#include <charconv>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "models/families.h"
#include "ops/weights.h"

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
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.gate", "ffn_gate_inp"},
    {"block_sparse_moe.gate", "ffn_gate_inp"},
    {"ln_1", "attn_norm"},
    {"attn.c_attn", "attn_qkv"},
    {"attn.c_proj", "attn_output"},
    {"ln_2", "ffn_norm"},
    {"mlp.c_fc", "ffn_up"},
    {"mlp.c_proj", "ffn_down"},
};
// Where norms stand behind attention and feed-forward too.
constexpr NamePair kOutNormNames[] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};
constexpr NamePair kOuterNames[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"},        {"lm_head", "output"},
    {"transformer.wte", "token_embd"},    {"transformer.wpe", "position_embd"}, {"transformer.ln_f", "output_norm"},
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

// Tensors as the file has them, under the names that a family has for them in GGUF.
class GgufSource : public WeightSource {
 public:
  GgufSource(std::shared_ptr<const GgufFile> file, GgufNaming naming)
      : file_(std::move(file)), naming_(std::move(naming)) {}
  bool has(const std::string& name) const override { return file_->has_tensor(naming_(name)); }
  Tensor get(const std::string& name) const override { return file_->tensor(naming_(name)); }
  void read_ahead() const override { file_->read_ahead(); }
  void release() const override { file_->release(); }
  std::string origin() const override { return file_->origin(); }

 private:
  std::shared_ptr<const GgufFile> file_;
  GgufNaming naming_;
};

// Those of decoders: experts apart, norms relative to what the family's are, rows in Hugging Face's order.
class DecoderGgufSource final : public GgufSource {
 public:
  DecoderGgufSource(std::shared_ptr<const GgufFile> file, LlamaConfig config,
                    std::shared_ptr<tensor::Allocator> allocator)
      : GgufSource(std::move(file), [config](const std::string& name) { return gguf_name(config, name); }),
        config_(std::move(config)),
        allocator_(std::move(allocator)) {}
  Tensor get(const std::string& name) const override {
    Tensor stored = GgufSource::get(name);
    if (const std::int64_t expert = expert_of(name); expert >= 0) {
      if (stored.rank() != 3 || stored.dim(0) != config_.experts)
        raise(ErrorCategory::kBadData, "{}: tensor '{}' is {}, a matrix for each of {} experts is needed", origin(),
              gguf_name(config_, name), stored.shape().text(), config_.experts);
      return stored.rows(expert, expert + 1).reshape({stored.dim(1), stored.dim(2)});
    }
    if (const float offset = gguf_offset(config_, name); offset != 0) {
      std::vector<float> values = stored.to_floats();
      for (float& value : values) value -= offset;
      return Tensor::from_floats(values, stored.shape(), *allocator_);
    }
    std::int64_t heads = 0;
    if (!has_moved_rows(config_, name, heads) || stored.dim(0) % (2 * heads) != 0) return stored;
    return rows_from_gguf(stored, heads, *allocator_);
  }

 private:
  LlamaConfig config_;
  std::shared_ptr<tensor::Allocator> allocator_;
};

class FolderSource final : public WeightSource {
 public:
  explicit FolderSource(const fs::path& folder, std::string_view prefix = {}) : folder_(folder), prefix_(prefix) {
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
  bool has(const std::string& name) const override { return find(name) != files_.end(); }
  Tensor get(const std::string& name) const override {
    const auto found = find(name);
    if (found == files_.end()) raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing", origin(), name);
    return found->second->tensor(found->first);
  }
  void read_ahead() const override {
    for (const auto& file : shards_) file->read_ahead();
  }
  void release() const override {
    for (const auto& file : shards_) file->release();
  }
  std::string origin() const override { return folder_.string(); }

 private:
  using Files = std::map<std::string, std::shared_ptr<const formats::TensorFile>>;
  Files::const_iterator find(const std::string& name) const {
    const auto found = files_.find(name);
    const bool bare = found == files_.end() && !prefix_.empty() && name.starts_with(prefix_);
    return bare ? files_.find(name.substr(prefix_.size())) : found;
  }
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
  std::string prefix_;
  Files files_;  // by tensor
  std::vector<std::shared_ptr<const formats::TensorFile>> shards_;
};

// A decoder's weights where its family's folders have them otherwise.
class DecoderFolder final : public WeightSource {
 public:
  DecoderFolder(const fs::path& folder, LlamaConfig config)
      : files_(folder), config_(std::move(config)), allocator_(tensor::make_host_allocator()) {}
  bool has(const std::string& name) const override { return files_.has(stored_name(name)); }
  Tensor get(const std::string& name) const override {
    Tensor stored = files_.get(stored_name(name));
    return has_inputs_first(config_, name, stored.shape()) ? ops::transposed_copy(stored, *allocator_) : stored;
  }
  void read_ahead() const override { files_.read_ahead(); }
  void release() const override { files_.release(); }
  std::string origin() const override { return files_.origin(); }

 private:
  // Folders of models without a head have no prefix: "h.0.ln_1.weight".
  std::string stored_name(const std::string& name) const {
    if (files_.has(name)) return name;
    const std::string bare = name.substr(name.find('.') + 1);
    return files_.has(bare) ? bare : name;
  }
  FolderSource files_;
  LlamaConfig config_;
  std::shared_ptr<tensor::Allocator> allocator_;
};

}  // namespace

bool has_inputs_first(const LlamaConfig& config, const std::string& name, const tensor::Shape& shape) {
  const Family& family = family_of(config.architecture);
  return family.inputs_first && shape.rank() == 2 && name.starts_with(family.names.block);
}

std::int64_t expert_of(const std::string& name) {
  constexpr std::string_view kExperts = ".experts.";
  const std::size_t at = name.find(kExperts);
  std::int64_t expert = -1;
  if (at != std::string::npos) std::from_chars(name.data() + at + kExperts.size(), name.data() + name.size(), expert);
  return expert;
}

namespace {

// What holds a matrix of all experts, "mlp.experts.3.up_proj"; empty for another name.
std::string_view stacked_name(const Family& family, const std::string& inner) {
  constexpr std::string_view kStacked[] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"};
  for (std::size_t i = 0; i < family.expert_names.size(); ++i) {
    if (inner.substr(inner.rfind('.') + 1) == family.expert_names[i]) return kStacked[i];
  }
  return {};
}

}  // namespace

std::string gguf_name(const LlamaConfig& config, const std::string& name) {
  const std::size_t last = name.rfind('.');
  for (const NamePair& pair : kOuterNames) {
    if (last != std::string::npos && name.substr(0, last) == pair.hugging_face)
      return std::string(pair.gguf) + name.substr(last);
  }
  const std::string_view prefix = family_of(config.architecture).names.block;
  if (name.starts_with(prefix)) {
    const std::size_t dot = name.find('.', prefix.size());
    if (dot != std::string::npos && last > dot) {
      const std::string inner = name.substr(dot + 1, last - dot - 1);
      std::string_view found;
      for (const NamePair& pair : kBlockNames) {
        if (inner == pair.hugging_face) found = pair.gguf;
      }
      for (const NamePair& pair : kOutNormNames) {
        if (config.out_norms && inner == pair.hugging_face) found = pair.gguf;
      }
      if (expert_of(name) >= 0) found = stacked_name(family_of(config.architecture), inner);
      if (!found.empty())
        return fmt::format("blk.{}.{}{}", name.substr(prefix.size(), dot - prefix.size()), found, name.substr(last));
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

std::unique_ptr<WeightSource> make_gguf_source(std::shared_ptr<const GgufFile> file, const LlamaConfig& config,
                                               std::shared_ptr<tensor::Allocator> allocator) {
  return std::make_unique<DecoderGgufSource>(std::move(file), config, std::move(allocator));
}

std::unique_ptr<WeightSource> make_gguf_source(std::shared_ptr<const GgufFile> file, GgufNaming naming) {
  return std::make_unique<GgufSource>(std::move(file), std::move(naming));
}

std::unique_ptr<WeightSource> make_folder_source(const fs::path& folder, std::string_view prefix) {
  return std::make_unique<FolderSource>(folder, prefix);
}

std::unique_ptr<WeightSource> make_folder_source(const fs::path& folder, const LlamaConfig& config) {
  if (!family_of(config.architecture).inputs_first) return make_folder_source(folder);
  return std::make_unique<DecoderFolder>(folder, config);
}

}  // namespace instruct::models
