// Encoder-decoders in GGUF files: T5 and mT5, which llama.cpp knows as one architecture, t5.
#pragma once

#include <memory>
#include <string>

#include "formats/gguf.h"
#include "models/seq2seq_config.h"
#include "models/weight_source.h"

namespace instruct::models {

// Whether the file says that it holds an encoder-decoder.
bool is_seq2seq(const formats::GgufFile& file);
// Raises NotFound or BadData naming the key. Which of the two it was made from a file does not say: mT5 where head and
// embeddings are one and logits are not scaled, else T5.
Seq2SeqConfig seq2seq_config_from_gguf(const formats::GgufFile& file);
// By Hugging Face's names.
std::unique_ptr<WeightSource> make_seq2seq_source(std::shared_ptr<const formats::GgufFile> file);

// Hugging Face tensor name to GGUF name ("encoder.block.3.layer.0.SelfAttention.q.weight" to
// "enc.blk.3.attn_q.weight"). Raises Internal for a name outside the family.
std::string seq2seq_gguf_name(const std::string& name);
// llama.cpp's name of the architecture. Raises Unsupported for a family that it does not know.
std::string gguf_architecture(const Seq2SeqConfig& config);
// Writes general.architecture and the keys t5.*. Raises Unsupported for what llama.cpp would read as another model.
void set_seq2seq(formats::GgufWriter& writer, const Seq2SeqConfig& config);

}  // namespace instruct::models
