// What the writers of models share. Not for callers of export.h.
#pragma once

#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/export.h"

namespace instruct::models {

// A weight as stored. What the type cannot hold is refused: an infinite weight would answer nonsense without a word.
Tensor encoded_weight(const std::string& name, const Tensor& f32, tensor::DType dtype, tensor::Allocator& allocator,
                      ThreadPool& threads);

// Says in a config.json what type the weights beside it have.
void set_stored_type(Value& config, tensor::DType dtype);

// Writes the keys tokenizer.ggml.*: those of a GGUF source as they were, else in llama.cpp's words. Raises Unsupported
// for a tokenizer that llama.cpp has no words for.
void set_tokenizer(formats::GgufWriter& writer, const Package& package);

}  // namespace instruct::models
