// GGUF files: a whole model, or an adapter alone.
#include <algorithm>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "models/export.h"
#include "models/export_parts.h"
#include "models/families.h"
#include "models/rotary_files.h"
#include "models/seq2seq_gguf.h"
#include "models/sources.h"
#include "ops/weights.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using tensor::DType;

// What llama.cpp takes for granted of a family must be so. Raises Unsupported where it is not.
void refuse_what_gguf_cannot_say(const LlamaConfig& c, const Family& family) {
  for (std::size_t i = 0; i < c.windowed.size(); ++i) {
    const bool usual =
        family.full_interval > 0 && c.windowed[i] == ((i + 1) % static_cast<std::size_t>(family.full_interval) != 0);
    if (!usual)
      raise(ErrorCategory::kUnsupported,
            "a GGUF file cannot say that a sliding window holds for {} layers only: use hf",
            family.full_interval > 0 ? "these" : "some");
  }
  if (family.full_interval > 0 && c.windowed.empty() && c.layers >= family.full_interval)
    raise(ErrorCategory::kUnsupported, "a GGUF file cannot say that the sliding window holds for {} layers: use hf",
          c.sliding_window > 0 ? "all" : "no");
  if ((c.attention_soft_cap > 0) != (family.attention_soft_cap > 0) ||
      (c.logit_soft_cap > 0) != (family.logit_soft_cap > 0))
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has {} soft caps: use hf",
          family.attention_soft_cap > 0 ? "both" : "no");
  if (family.layer_norms && (c.query_scalar > 0 || c.scores_by_layer || c.activation != ops::Activation::kGeluTanh))
    raise(ErrorCategory::kUnsupported,
          "a GGUF file of this architecture has scores over the root of the head's width (scale_attn_weights, "
          "scale_attn_by_inverse_layer_idx) and gelu_new: use hf");
  if (c.query_scalar != gguf_query_scalar(c))
    raise(ErrorCategory::kUnsupported,
          "a GGUF file cannot say that query_pre_attn_scalar is {}, llama.cpp takes {}: use hf", c.query_scalar,
          gguf_query_scalar(c));
  if (c.window_rotary &&
      (c.window_rotary->theta != family.window_theta || c.window_rotary->scaling != nn::RotaryConfig::Scaling::kNone))
    raise(ErrorCategory::kUnsupported, "a GGUF file cannot say how layers with a window scale their positions: use hf");
  if (c.experts > 0 && (!c.dense.empty() || !c.renormalise_experts))
    raise(ErrorCategory::kUnsupported, "a GGUF file of this architecture has experts {}: use hf",
          c.dense.empty() ? "whose weights sum to 1 (norm_topk_prob)" : "in every layer");
  for (std::size_t i = 0; i < c.unrotated.size(); ++i) {
    if (c.unrotated[i] != ((i + 1) % static_cast<std::size_t>(family.unrotated_interval) == 0))
      raise(ErrorCategory::kUnsupported, "a GGUF file cannot say that layer {} {} rotary positions: use hf", i,
            c.unrotated[i] ? "has no" : "has");
  }
}

void set_model(formats::GgufWriter& writer, const Package& package) {
  if (package.seq2seq) return set_seq2seq(writer, *package.seq2seq);
  const LlamaConfig& c = package.config;
  const Family& family = family_of(c.architecture);
  refuse_what_gguf_cannot_say(c, family);
  if (c.sliding_window > 0 && c.sliding_window < max_position_embeddings(c) && family.full_interval == 0)
    log_warning("llama.cpp leaves out the sliding window of '{}': after {} tokens it answers differently there",
                family.model_type, c.sliding_window);
  const std::string architecture(family.gguf);
  const std::string prefix = architecture + ".";
  const auto number = [&](const std::string& key, std::int64_t value) {
    writer.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  writer.set("general.architecture", architecture);
  writer.set("general.type", std::string("model"));
  number("block_count", c.layers);
  number("context_length", max_position_embeddings(c));
  number("embedding_length", c.width);
  number("feed_forward_length", c.feed_forward_width);
  number("attention.head_count", c.heads);
  number("attention.head_count_kv", c.key_value_heads);
  number("attention.key_length", c.head_width);
  number("attention.value_length", c.head_width);
  number("vocab_size", c.vocabulary);
  if (c.experts > 0) {
    number("expert_count", c.experts);
    number("expert_used_count", c.chosen_experts);
    if (family.default_expert_width > 0) number("expert_feed_forward_length", c.expert_width);
  }
  if (c.sliding_window > 0) number("attention.sliding_window", c.sliding_window);
  writer.set(prefix + std::string(epsilon_key(family)), c.norm_epsilon);
  if (family.attention_soft_cap > 0) writer.set(prefix + "attn_logit_softcapping", c.attention_soft_cap);
  if (family.logit_soft_cap > 0) writer.set(prefix + "final_logit_softcapping", c.logit_soft_cap);
  if (!c.learned_positions) write_rotary(writer, prefix, c);
}

// Counts the matrices that are not of the type the kind of file wants.
class StandIns {
 public:
  DType type_of(const GgufType& type, const LlamaConfig& config, const std::string& name, std::int64_t width) {
    const MatrixType matrix = matrix_type(type, config, name, width);
    ++matrices_;
    if (matrix.stored != matrix.wanted) ++counts_[{matrix.wanted, matrix.stored}];
    return matrix.stored;
  }
  void log() const {
    for (const auto& [types, count] : counts_)
      log_warning("{} instead of {} in {} of {} matrices, whose rows are no multiple of {} long",
                  tensor::info(types.second).name, tensor::info(types.first).name, count, matrices_,
                  tensor::info(types.first).block_elements);
  }

 private:
  std::int64_t matrices_ = 0;
  std::map<std::pair<DType, DType>, std::int64_t> counts_;
};

std::string stored_name(const Package& package, const std::string& name) {
  return package.seq2seq ? seq2seq_gguf_name(name) : gguf_name(package.config, name);
}

// The rows of a matrix in the order of GGUF files.
Tensor stored_rows(const Package& package, const std::string& name, const Tensor& matrix,
                   tensor::Allocator& allocator) {
  std::int64_t heads = 0;
  const bool moved = !package.seq2seq && has_moved_rows(package.config, name, heads);
  return moved ? rows_to_gguf(matrix, heads, allocator) : matrix;
}

using MakeTensor = std::function<Tensor()>;

// One tensor [E, rows, columns] of matrices of that shape.
void add_stack(formats::GgufWriter& writer, const std::string& name, const tensor::Shape& shape, DType dtype,
               std::vector<MakeTensor> matrices) {
  const tensor::Shape all{static_cast<std::int64_t>(matrices.size()), shape[0], shape[1]};
  writer.add(name, all, dtype, [all, dtype, matrices = std::move(matrices)] {
    Tensor stack = Tensor::empty(all, dtype, *tensor::make_host_allocator());
    std::byte* to = stack.raw();
    for (const MakeTensor& make : matrices) {
      const Tensor matrix = make();
      to = std::copy_n(matrix.raw(), matrix.bytes(), to);
    }
    return stack;
  });
}

}  // namespace

void write_gguf(const fs::path& path, const Package& package, const std::string& chat_template,
                const WeightLookup& weights, const GgufOptions& options) {
  const auto allocator = tensor::make_host_allocator();
  const LlamaConfig& config = package.config;
  formats::GgufWriter writer;
  set_model(writer, package);
  writer.set("general.file_type", options.type.number);
  set_tokenizer(writer, package);
  if (!chat_template.empty()) writer.set("tokenizer.chat_template", chat_template);
  if (tensor::is_quantised(options.type.dtype)) writer.set("general.quantization_version", std::uint32_t{2});
  StandIns stand_ins;
  std::map<std::string, std::vector<MakeTensor>> stacks;  // the matrices of all experts, by their common name
  for (const NamedWeight& entry : package.model->weights()) {
    const tensor::Shape shape = entry.variable.value().shape();
    const std::string gguf = stored_name(package, entry.name);
    const DType stored = shape.rank() == 1 ? DType::kF32 : stand_ins.type_of(options.type, config, gguf, shape[1]);
    const auto make = [&, name = entry.name, stored] {
      Tensor weight = stored_rows(package, name, weights(name), *allocator);
      if (const float offset = gguf_offset(config, name); offset != 0)
        std::for_each_n(weight.data<float>(), weight.elements(), [offset](float& value) { value += offset; });
      return encoded_weight(name, weight, stored, *allocator, options.threads);
    };
    const std::int64_t expert = expert_of(entry.name);
    if (expert < 0) {
      writer.add(gguf, shape, stored, make);
    } else {
      stacks[gguf].push_back(make);
      if (expert + 1 == config.experts) add_stack(writer, gguf, shape, stored, stacks[gguf]);
    }
  }
  stand_ins.log();
  writer.write(path);
}

void write_gguf_lora(const fs::path& path, const Package& package, const LoadedAdapter& adapter) {
  const auto allocator = tensor::make_host_allocator();
  formats::GgufWriter writer;
  writer.set("general.type", std::string("adapter"));
  writer.set("general.architecture", package.seq2seq ? gguf_architecture(*package.seq2seq)
                                                     : std::string(family_of(package.config.architecture).gguf));
  writer.set("adapter.type", std::string("lora"));
  // Readers take an alpha of 0 for "no scaling"; here the scale of 0 goes into B.
  const double given = adapter.adapter->config().alpha;
  const auto alpha = given > 0 ? static_cast<float>(given) : 1.0F;
  writer.set("adapter.lora.alpha", alpha);
  const auto modules = adapter.adapter->modules();
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const std::string name = modules[i].name + ".weight";
    if (expert_of(name) >= 0)
      raise(ErrorCategory::kUnsupported, "{}: a GGUF adapter cannot hold branches of single experts: merge it (gguf)",
            modules[i].name);
    const auto& [a, b] = adapter.masters[i];
    writer.add(stored_name(package, name) + ".lora_a", a.shape(), DType::kF32, [a = a] { return a; });
    // Readers scale by alpha / r: whatever else the scale holds goes into B.
    const float factor = modules[i].scale / (alpha / static_cast<float>(a.dim(0)));
    writer.add(stored_name(package, name) + ".lora_b", b.shape(), DType::kF32,
               [b = b, factor, name, &package, &allocator] {
                 Tensor scaled = ops::converted_copy(b, DType::kF32, *allocator);
                 for (std::int64_t j = 0; j < scaled.elements(); ++j) scaled.data<float>()[j] *= factor;
                 return stored_rows(package, name, scaled, *allocator);
               });
  }
  writer.write(path);
}

}  // namespace instruct::models
