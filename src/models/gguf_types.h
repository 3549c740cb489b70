// The kinds of GGUF files that export writes, in one table: what general.file_type says, and which type each matrix
// has.
//
// As llama.cpp's quantiser chooses without an importance matrix (llama_tensor_get_type in src/llama-quant.cpp, 2026):
// files of the same kind made there and here have the same types.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "models/llama.h"
#include "tensor/dtype.h"

namespace instruct::models {

// Which layers have a matrix of a finer type.
enum class FinerLayers : std::uint8_t {
  kNone,
  kAll,
  kFirstTwo,
  kFirstFour,
  kFirstSixteenth,
  kFirstEighth,
  kMoreBits,      // the first and the last eighth, and every third between them
  kGroupsOfFour,  // all, where at least four query heads share a key and value head
};

// The type of one kind of matrix.
struct LayerType {
  tensor::DType dtype;
  tensor::DType finer;
  FinerLayers layers = FinerLayers::kNone;
};

struct GgufType {
  std::string_view name;     // as llama-quantize has it, in lower case
  std::uint32_t number;      // general.file_type
  tensor::DType dtype;       // of matrices that no other field is about
  LayerType value;           // attn_v
  LayerType down;            // ffn_down
  tensor::DType projection;  // attn_output
  tensor::DType head;        // output, and a tied token_embd
};

std::span<const GgufType> gguf_types();
// Their names: "f32, f16, ... or q2_k".
std::string gguf_type_names();
// By name; case does not matter, and "q4_k" is "q4_k_m", as there. Raises InvalidArgument, listing the names, for
// another.
const GgufType& gguf_type(std::string_view name);

struct MatrixType {
  tensor::DType wanted;
  tensor::DType stored;  // another where a row is no multiple of the wanted type's block
};
// The type of a matrix by its GGUF name ("blk.3.ffn_down.weight"); `width` is the length of its rows.
MatrixType matrix_type(const GgufType& type, const LlamaConfig& config, std::string_view name, std::int64_t width);

}  // namespace instruct::models
