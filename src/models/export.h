// Writing models: Hugging Face folders and GGUF files, with an adapter merged in when there is one.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "models/adapter_files.h"
#include "models/gguf_types.h"
#include "models/package.h"

namespace instruct::models {

// A weight by its Hugging Face name, f32.
using WeightLookup = std::function<Tensor(const std::string& name)>;

// Weights of a package as f32 with the attached adapter merged in f32 (rounded once, by whoever stores them). Both must
// outlive the lookup.
WeightLookup merged_weights(const Package& package, const LoadedAdapter* adapter, tensor::Allocator& allocator);

// Writes config.json, model.safetensors (as `dtype`: f32, f16 or bf16), tokenizer files and the chat template into an
// existing folder.
void write_hugging_face_files(const std::filesystem::path& folder, const Package& package,
                              const std::string& chat_template, const WeightLookup& weights, tensor::DType dtype);

// Writes a GGUF file llama.cpp loads. Matrices are of the type's dtype; vectors stay f32, and with fewer than 8 bits
// the embedding is stored as q8_0 (llama.cpp keeps it finer too).
void write_gguf(const std::filesystem::path& path, const Package& package, const std::string& chat_template,
                const WeightLookup& weights, const GgufType& type);

// Writes the adapter alone as a GGUF LoRA file. rsLoRA and alpha patterns are folded into B.
void write_gguf_lora(const std::filesystem::path& path, const Package& package, const LoadedAdapter& adapter);

}  // namespace instruct::models
