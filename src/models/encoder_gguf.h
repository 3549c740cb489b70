// Encoders in GGUF files, for embeddings: BERT, DistilBERT, RoBERTa and XLM-RoBERTa, which llama.cpp knows as one
// architecture, bert, and ModernBERT. Heads have no place there.
#pragma once

#include <memory>

#include "formats/gguf.h"
#include "models/encoder_config.h"
#include "models/weight_source.h"

namespace instruct::models {

// Whether the file says that it holds such an encoder. The others are for files that do.
bool is_encoder(const formats::GgufFile& file);
// As a BERT, which all of them are but for names, or a ModernBERT. Raises NotFound or BadData naming the key.
EncoderConfig encoder_config_from_gguf(const formats::GgufFile& file);
// By the names of that family.
std::unique_ptr<WeightSource> make_encoder_source(std::shared_ptr<const formats::GgufFile> file);
// Whether an embedding is the mean over a text's tokens, not the first one's.
bool has_mean_pooling(const formats::GgufFile& file);

}  // namespace instruct::models
