// Writing models: Hugging Face folders and GGUF files, with an adapter merged in when there is one.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "models/adapter_files.h"
#include "models/gguf_types.h"
#include "models/package.h"
#include "models/text_model.h"
#include "ops/engine.h"

namespace instruct::models {

// A weight by its Hugging Face name, f32.
using WeightLookup = std::function<Tensor(const std::string& name)>;

// Weights of a package as f32 with the attached adapter merged in f32 (rounded once, by whoever stores them). All
// must outlive the lookup.
WeightLookup merged_weights(const Package& package, const LoadedAdapter* adapter, ops::Engine& engine);
// The same of an encoder and its heads (write_text_model), which must have been opened in f32.
WeightLookup merged_weights(const TextModel& model, const LoadedAdapter* adapter, ops::Engine& engine);

// Writes config.json, model.safetensors (as `dtype`: f32, f16 or bf16), tokenizer files and the chat template into an
// existing folder.
void write_hugging_face_files(const std::filesystem::path& folder, const Package& package,
                              const std::string& chat_template, const WeightLookup& weights, tensor::DType dtype);

struct GgufOptions {
  const GgufType& type;
  ThreadPool& threads;  // that encode; the file is the same for any number
};
// Writes a GGUF file llama.cpp loads. Matrices are of the types that matrix_type() says, vectors f32. What had to be of
// another type than the kind of file wants, for the width of its rows, is logged.
void write_gguf(const std::filesystem::path& path, const Package& package, const std::string& chat_template,
                const WeightLookup& weights, const GgufOptions& options);

// Writes an encoder that llama.cpp embeds texts with, without heads; f32, f16 or bf16. Raises Unsupported for a family
// that it does not know or that this program does not write.
void write_gguf_encoder(const std::filesystem::path& path, const Package& package, bool mean_pooling,
                        const WeightLookup& weights, const GgufOptions& options);

// Writes the adapter alone as a GGUF LoRA file. rsLoRA and alpha patterns are folded into B.
void write_gguf_lora(const std::filesystem::path& path, const Package& package, const LoadedAdapter& adapter);

}  // namespace instruct::models
