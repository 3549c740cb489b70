// Rows as encoders take them: a text, or a pair of texts, what is scored of it, and what is true of that.
//
// The template of a verb words the text; "[SEP]" in the template (not in what users wrote) makes it a pair, and
// "[MASK]" the model's mask token, whatever the model calls these. The tokenizer's frame puts its special tokens
// around. A verb of labels whose templates have "[MASK]" is a cloze: its labels are words for that gap (cloze.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/cloze.h"
#include "data/encode.h"
#include "data/rows.h"
#include "data/span_rows.h"
#include "instructions/instruction_set.h"
#include "tensor/segments.h"
#include "tokenizers/tokenizer.h"

namespace instruct::data {

struct TextRow {
  std::int64_t example = 0;  // index in the data set
  std::size_t verb = 0;      // index in the instruction set
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> types;
  // What scores are given to, as tokens of the row: the first token (a text's label), each sentence, each token (a
  // span), the first token of each word (extraction), each mask.
  std::vector<tensor::KeyRange> parts;
  std::vector<std::string> sentences;  // their texts, for sentences
  // Spans and extraction: the text that parts are of, and the bytes of it that each token or word is; empty ones for
  // tokens that are not of it.
  std::shared_ptr<const std::string> source = {};
  std::vector<ByteRange> places = {};
  std::shared_ptr<const Verbalisers> verbalisers = {};  // of a cloze
  // What is true; empty where the row has no output. Label: its number in the set. Labels: a 0 or 1 for each of the
  // set. Sentences: a 0 or 1 for each part. Span: the parts it starts and ends with, the first one for a window that it
  // is not in. Extraction: the number of each part's tag. Masked texts: the token of each part.
  std::vector<float> truth;
};

// What the loss is a mean over: a text with one of several labels is one unit, with any number of labels it is as many
// as there are labels (as in transformers), with sentences, words or masked tokens one each, with a span its two ends.
inline std::int64_t units_of(const TextRow& row) {
  return static_cast<std::int64_t>(row.truth.size());
}

// What is pooled of a text for its label: the output of its first token, or the mean over all of its tokens.
enum class Pooling { kFirst, kMean };

struct TextOptions {
  std::int64_t cutoff = 512;  // tokens
  Overflow overflow = Overflow::kRaise;
  bool windows = false;  // of spans and extraction, whatever `overflow` says
  Pooling pooling = Pooling::kFirst;
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
};

struct TextReport {
  std::vector<std::int64_t> too_long;   // rows longer than the cutoff, whatever became of them
  std::vector<std::int64_t> dropped;    // left out
  std::vector<std::int64_t> shortened;  // cut at their start or end
  std::int64_t tokens = 0;
};

class TextEncoder {
 public:
  // Both must outlive the encoder. Its verbs have outputs that an encoder can give; for extraction output.labels are
  // the tags, or empty for those of instructions::extraction_tags().
  TextEncoder(const tokenizers::Tokenizer& tokenizer, const instructions::InstructionSet& set);

  // One text on its own, with the model's special tokens, cut at its end to `cutoff` tokens; for embeddings.
  TextRow encode_text(std::string_view text, std::int64_t cutoff) const;
  // Rows of these examples. Raises one BadData error that counts the rows that cannot be encoded and names the first
  // few, BadData for a row that is too long (raise policy), and when no row is left. With overflow split or `windows`,
  // a row of a span or of extraction becomes several, one behind the other: windows over the text that parts are of.
  std::vector<TextRow> encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                  const TextOptions& options, TextReport& report) const;

  // Texts of these examples, which have no verb, ready to be masked: their parts are their words. With overflow split
  // the pieces of long ones. Raises likewise.
  std::vector<TextRow> encode_texts(const Dataset& dataset, std::span<const std::int64_t> indices,
                                    const TextOptions& options, TextReport& report) const;

 private:
  std::vector<TextRow> encode(const Example& example, const TextOptions& options, TextReport& report) const;
  std::vector<TextRow> encode_plain(const Example& example, const TextOptions& options, TextReport& report) const;
  // Of a cloze, kept by wording; null for other verbs.
  std::shared_ptr<const Verbalisers> verbalisers_for(const instructions::Instruction& instruction,
                                                     std::size_t wording) const;
  template <typename Encode>
  std::vector<TextRow> all_of(const Dataset& dataset, std::span<const std::int64_t> indices, TextReport& report,
                              const Encode& encode) const;

  const tokenizers::Tokenizer& tokenizer_;
  const instructions::InstructionSet& set_;
  mutable std::map<const templates::Template*, std::shared_ptr<const Verbalisers>> verbalisers_;
};

// The tokens of an input, with nothing scored of it yet.
TextRow framed(const tokenizers::EncodedInput& input);

// The rows of each example: those side by side.
std::vector<std::span<const TextRow>> by_example(std::span<const TextRow> rows);

// Which sentences to choose so that the summary is most like the reference: the one that raises ROUGE-1 and ROUGE-2
// (F1) most, again and again, up to `most`, as long as one does (Nallapati et al., "SummaRuNNer", 2017). 0 or 1 by
// sentence.
std::vector<float> oracle_sentences(std::span<const std::string> sentences, std::string_view reference,
                                    std::int64_t most);

// Rows side by side in one flat list.
struct TextBatch {
  std::vector<std::int32_t> tokens, positions, types;
  std::vector<tensor::Segment> segments;
  tensor::AttentionPlan plan;
  std::vector<tensor::KeyRange> parts;  // of all rows, in order, as tokens of the batch
  std::vector<std::size_t> part_rows;   // which row each belongs to
};
// `first_position`: of each row's first token (models::EncoderConfig).
TextBatch make_text_batch(std::span<const TextRow* const> rows, std::int64_t first_position);
// The parts, where every one is a single token; else nothing.
std::vector<std::int32_t> single_tokens(const TextBatch& batch);

}  // namespace instruct::data
