#include "models/gguf_types.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/text.h"
#include "models/families.h"

namespace instruct::models {
namespace {

using tensor::DType;
using enum FinerLayers;

// All matrices of one type, but the head.
constexpr GgufType plain(std::string_view name, std::uint32_t number, DType dtype, DType head) {
  return {.name = name,
          .number = number,
          .dtype = dtype,
          .value = {dtype, dtype},
          .down = {dtype, dtype},
          .projection = dtype,
          .head = head};
}

constexpr GgufType mixed(GgufType type, LayerType value, LayerType down) {
  type.value = value;
  type.down = down;
  return type;
}

constexpr GgufType mixed(GgufType type, LayerType value, LayerType down, DType projection) {
  type = mixed(type, value, down);
  type.projection = projection;
  return type;
}

constexpr DType kQ2 = DType::kQ2_K, kQ3 = DType::kQ3_K, kQ4 = DType::kQ4_K, kQ5 = DType::kQ5_K, kQ6 = DType::kQ6_K;

constexpr GgufType kTypes[] = {
    plain("f32", 0, DType::kF32, DType::kF32),
    plain("f16", 1, DType::kF16, DType::kF16),
    plain("bf16", 32, DType::kBF16, DType::kBF16),
    plain("q8_0", 7, DType::kQ8_0, DType::kQ8_0),
    plain("q6_k", 18, kQ6, kQ6),
    mixed(plain("q5_k_m", 17, kQ5, kQ6), {kQ5, kQ6, kMoreBits}, {kQ5, kQ6, kMoreBits}),
    plain("q5_k_s", 16, kQ5, kQ6),
    plain("q5_1", 9, DType::kQ5_1, kQ6),
    plain("q5_0", 8, DType::kQ5_0, kQ6),
    mixed(plain("q4_k_m", 15, kQ4, kQ6), {kQ4, kQ6, kMoreBits}, {kQ4, kQ6, kMoreBits}),
    mixed(plain("q4_k_s", 14, kQ4, kQ6), {kQ4, kQ5, kFirstFour}, {kQ4, kQ5, kFirstEighth}),
    plain("q4_1", 3, DType::kQ4_1, kQ6),
    plain("q4_0", 2, DType::kQ4_0, kQ6),
    mixed(plain("q3_k_l", 13, kQ3, kQ6), {kQ5, kQ5}, {kQ5, kQ5}, kQ5),
    mixed(plain("q3_k_m", 12, kQ3, kQ6), {kQ4, kQ5, kFirstTwo}, {kQ4, kQ5, kFirstSixteenth}, kQ4),
    plain("q3_k_s", 11, kQ3, kQ6),
    mixed(plain("q2_k", 10, kQ2, kQ6), {kQ3, kQ4, kGroupsOfFour}, {kQ3, kQ3}, kQ3),
};

bool is_finer(FinerLayers layers, std::int64_t layer, const LlamaConfig& config) {
  const std::int64_t eighth = config.layers / 8;
  switch (layers) {
    case kNone:
      return false;
    case kAll:
      return true;
    case kFirstTwo:
      return layer < 2;
    case kFirstFour:
      return layer < 4;
    case kFirstSixteenth:
      return layer < config.layers / 16;
    case kFirstEighth:
      return layer < eighth;
    case kMoreBits:
      return layer < eighth || layer >= 7 * config.layers / 8 || (layer - eighth) % 3 == 2;
    case kGroupsOfFour:
      return config.heads / config.key_value_heads >= 4;
  }
  return false;
}

// Where there are eight experts, attention is small beside them.
constexpr std::int64_t kFew = 8;

// In models of 80 layers whose heads share keys and values (Llama 2 70B, Qwen2 72B) attn_v is small beside attn_q.
DType value_type(const GgufType& type, const LlamaConfig& config, std::int64_t layer) {
  if (config.experts == kFew) return DType::kQ8_0;
  const DType dtype = is_finer(type.value.layers, layer, config) ? type.value.finer : type.value.dtype;
  const std::string_view family = family_of(config.architecture).gguf;
  const bool large =
      config.layers == 80 && (family == "qwen2" || (family == "llama" && config.heads != config.key_value_heads));
  return large && (dtype == kQ3 || dtype == kQ4) ? kQ5 : dtype;
}

DType projection_type(const GgufType& type, const LlamaConfig& config) {
  const bool coarse = type.dtype == kQ2 || type.dtype == kQ3 || type.dtype == kQ4;
  if (config.experts != kFew) return type.projection;
  return coarse && type.name != "q3_k_l" ? kQ5 : type.dtype;  // as there
}

DType head_type(const GgufType& type, std::int64_t width) {
  return width % tensor::info(type.dtype).block_elements == 0 ? type.head : DType::kQ8_0;
}

DType wanted_type(const GgufType& type, const LlamaConfig& config, std::string_view name, std::int64_t width) {
  if (name == "output.weight" || (name == "token_embd.weight" && config.tied_embeddings))
    return tensor::is_quantised(type.dtype) ? head_type(type, width) : type.head;
  if (name == "position_embd.weight" || name.ends_with(".attn_rel_b.weight")) return DType::kF32;
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return type.dtype;
  std::int64_t layer = 0;
  const char* end = std::from_chars(name.data() + kBlock.size(), name.data() + name.size(), layer).ptr;
  const std::string_view matrix = name.substr(static_cast<std::size_t>(end - name.data()));
  if (matrix == ".ffn_gate_inp.weight") return DType::kF32;  // the router: small, and every choice hangs on it
  if (!tensor::is_quantised(type.dtype)) return type.dtype;
  if (matrix == ".attn_v.weight" || matrix == ".attn_qkv.weight") return value_type(type, config, layer);
  if (matrix == ".attn_k.weight" && config.experts == kFew) return DType::kQ8_0;
  if (matrix == ".attn_output.weight") return projection_type(type, config);
  if (matrix == ".ffn_down.weight" || matrix == ".ffn_down_exps.weight")
    return is_finer(type.down.layers, layer, config) ? type.down.finer : type.down.dtype;
  return type.dtype;
}

// What stands in for a K-quant: blocks of 32, and not coarser.
DType stand_in(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K:
    case DType::kQ3_K:
      return DType::kQ4_0;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    default:
      return DType::kF16;
  }
}

}  // namespace

std::span<const GgufType> gguf_types() {
  return kTypes;
}

std::string gguf_type_names() {
  std::string names;
  for (const GgufType& type : kTypes) {
    if (!names.empty()) names += &type == std::end(kTypes) - 1 ? " or " : ", ";
    names += type.name;
  }
  return names;
}

const GgufType& gguf_type(std::string_view name) {
  std::string lower = to_lower_ascii(name);
  if (lower == "q3_k" || lower == "q4_k" || lower == "q5_k") lower += "_m";
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgufType& type) { return type.name == lower; });
  if (found != std::end(kTypes)) return *found;
  raise(ErrorCategory::kInvalidArgument, "--quantize {}: --format gguf takes {}", name, gguf_type_names());
}

MatrixType matrix_type(const GgufType& type, const LlamaConfig& config, std::string_view name, std::int64_t width) {
  const DType wanted = wanted_type(type, config, name, width);
  DType stored = wanted;
  while (width % tensor::info(stored).block_elements != 0) stored = stand_in(stored);
  return {wanted, stored};
}

}  // namespace instruct::models
