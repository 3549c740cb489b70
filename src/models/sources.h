// Weights in GGUF files and Hugging Face folders, and how those of decoders lie in them.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "base/value.h"
#include "formats/gguf.h"
#include "formats/pytorch.h"
#include "formats/safetensors.h"
#include "models/families.h"
#include "models/llama.h"

namespace instruct::models {

// Hugging Face tensor name to GGUF name ("model.layers.3.mlp.up_proj.weight" to "blk.3.ffn_up.weight"). Raises Internal
// for a name outside the family.
std::string gguf_name(const LlamaConfig& config, const std::string& name);
// The number of the expert that a weight is of; -1 for other weights. GGUF keeps those of all experts of a layer as one
// tensor [E, rows, columns].
std::int64_t expert_of(const std::string& name);
// What llama.cpp divides scores by the root of, for a family that has such a number; 0 for others.
std::int64_t gguf_query_scalar(const LlamaConfig& config);
// A weight of a norm as GGUF keeps it less the one in Hugging Face's files; 0 for other weights.
float gguf_offset(const LlamaConfig& config, const std::string& name);

// GGUF converters store the rows of a Llama query or key projection so that rotated pairs are neighbours. These put a
// matrix (or bias) [heads * K, ...] into Hugging Face order and back; any dtype, rows are moved whole.
tensor::Tensor rows_from_gguf(const tensor::Tensor& stored, std::int64_t heads, tensor::Allocator& allocator);
tensor::Tensor rows_to_gguf(const tensor::Tensor& tensor, std::int64_t heads, tensor::Allocator& allocator);
// Whether this tensor of this architecture has its rows moved; sets the number of heads.
bool has_moved_rows(const LlamaConfig& config, const std::string& name, std::int64_t& heads);

// Where a GGUF file says what norms add to the variance, behind the architecture's name.
std::string_view epsilon_key(const Family& family);
// Whether Hugging Face's files hold this weight the other way round, [inputs, outputs].
bool has_inputs_first(const LlamaConfig& config, const std::string& name, const tensor::Shape& shape);

// Configuration from GGUF metadata or config.json. Raises Unsupported for another architecture, naming it and those
// known; BadData or NotFound for a bad field.
LlamaConfig config_from_gguf(const formats::GgufFile& file);
LlamaConfig config_from_json(const Value& json, const std::string& origin);

std::unique_ptr<WeightSource> make_gguf_source(std::shared_ptr<const formats::GgufFile> file, const LlamaConfig& config,
                                               std::shared_ptr<tensor::Allocator> allocator);
// Of other families: tensors as the file has them. `naming` makes a GGUF name of one of Hugging Face.
using GgufNaming = std::function<std::string(const std::string& name)>;
std::unique_ptr<WeightSource> make_gguf_source(std::shared_ptr<const formats::GgufFile> file, GgufNaming naming);
// Single or sharded safetensors in a folder, or pytorch_model.bin where there are none.
// `prefix`: what files of a model without a head leave out in front of names ("model.").
std::unique_ptr<WeightSource> make_folder_source(const std::filesystem::path& folder, std::string_view prefix = {});
// The same, by the names and in the layout that this program has for a decoder.
std::unique_ptr<WeightSource> make_folder_source(const std::filesystem::path& folder, const LlamaConfig& config);

}  // namespace instruct::models
