// Rotary positions as files say them: config.json in its old and new spelling, and GGUF's keys and tensors.
#pragma once

#include <string>
#include <vector>

#include "base/value.h"
#include "formats/gguf.h"
#include "models/families.h"
#include "models/llama.h"

namespace instruct::models {

// Sets the rotary fields of a configuration whose sizes are read. Raises Unsupported for a scaling this program does
// not know, NotFound and BadData for what is missing or contradictory.
void read_rotary(const Value& json, const Family& family, const std::string& origin, LlamaConfig& config);
void read_rotary(const formats::GgufFile& file, const std::string& prefix, const Family& family, LlamaConfig& config);

// The scaling in a config.json's words (rope_scaling), null for none. Raises Unsupported for frequency factors that are
// no scaling transformers knows.
Value rope_scaling_json(const nn::RotaryConfig& rotary);
// max_position_embeddings: for dynamic scaling less than the positions that the model takes.
std::int64_t max_position_embeddings(const LlamaConfig& config);

// The keys after `prefix` ("llama."), and tensors of factors; the configuration must outlive the writer. Raises
// Unsupported for what llama.cpp has no key for.
void write_rotary(formats::GgufWriter& writer, const std::string& prefix, const LlamaConfig& config);

// What divides each frequency in GGUF: the file's own factors, or those that llama3 scaling amounts to.
std::vector<float> frequency_factors(const nn::RotaryConfig& rotary);

}  // namespace instruct::models
