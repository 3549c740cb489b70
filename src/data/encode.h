// Examples to encoded rows: instruction decoder, chat template, tokenizer, mask, and what happens to rows that are too
// long.
//
// Cutting a row never cuts the template's own text, an answer or its end-of-turn token. `left` takes whole exchanges
// off a dialogue's start, then characters off the start of the longest input of the question; `split` makes several
// dialogues of one, each of whole exchanges under the same system message. Rows without a template (plain text) are cut
// by tokens. What fits neither way is left out, counted and named.
//
// For encoder-decoders the cutoff bounds source and answer each, and `right` takes tokens off the source's end. Of
// texts they learn spans that are left out (denoise.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/denoise.h"
#include "data/layout.h"
#include "data/rows.h"
#include "instructions/adaptation.h"

namespace instruct::data {

// kRight is for encoders (text_rows.h) and encoder-decoders: decoders answer behind a question's end.
enum class Overflow { kDrop, kSplit, kLeft, kRaise, kRight };
// "drop", "split", "left", "raise" or "right"; raises InvalidArgument for another name.
Overflow overflow_from_name(std::string_view name);

struct EncodeOptions {
  std::int64_t cutoff = 2048;                   // tokens
  std::string_view cutoff_name = "cutoff_len";  // what sets it, for messages
  Overflow overflow = Overflow::kRaise;
  instructions::MaskOptions mask;
  std::int64_t shots = 0;
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;  // templates are sampled anew each epoch, and so are spans that are left out of texts
  DenoiseOptions denoise;  // of texts, for encoder-decoders
};

// Row numbers are those of the files.
struct EncodeReport {
  std::int64_t rows = 0;  // encoded; a split row counts as often as it has parts
  std::int64_t trained_tokens = 0;
  std::int64_t tokens = 0;
  std::vector<std::int64_t> too_long;   // rows longer than the cutoff, whatever became of them:
  std::vector<std::int64_t> dropped;    //   left out
  std::vector<std::int64_t> shortened;  //   cut on their left
  std::vector<std::int64_t> divided;    //   made into several
  std::vector<std::int64_t> no_end;     // rows whose answer's end-of-turn token is not trained
  std::int64_t seam_tokens = 0;         // trained tokens that also hold characters from outside the answer
};

// The row as a dialogue, its answer last. `set` may be null when it is no instruction row. Raises BadData naming file,
// row and field.
std::vector<instructions::Message> row_messages(const Dataset& dataset, const Example& example,
                                                const instructions::InstructionSet* set, const EncodeOptions& options);

// The same without the answer: what is asked.
std::vector<instructions::Message> row_question(const Dataset& dataset, const Example& example,
                                                const instructions::InstructionSet* set, const EncodeOptions& options);

class RowEncoder {
 public:
  // `set` may be null when no row is an instruction row. Both must outlive the encoder.
  RowEncoder(const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set);

  // One row as it is trained or scored, whatever its length. Raises BadData naming file, row and field.
  EncodedRow encode(const Dataset& dataset, std::size_t index, const EncodeOptions& options) const;
  // The same with its text, for display and checks.
  instructions::EncodedDialogue encode_dialogue(const Dataset& dataset, const Example& example,
                                                const EncodeOptions& options) const;
  // The question alone, for generation.
  std::vector<std::int32_t> encode_prompt(const Dataset& dataset, std::size_t index,
                                          const EncodeOptions& options) const;
  // The reference answer as text.
  std::string reference(const Dataset& dataset, std::size_t index) const;
  // All rows with the overflow policy applied. Raises one BadData error that counts the rows that cannot be encoded and
  // names the first few, BadData for a row that is too long (raise policy), and BadData when no row is left.
  std::vector<EncodedRow> encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                     const EncodeOptions& options, EncodeReport& report) const;

  // Null without an instruction set.
  const instructions::InstructionSet* set() const { return set_; }
  const instructions::DialogueEncoder& dialogue() const { return dialogue_; }

 private:
  const instructions::DialogueEncoder& encoder_of(const Example& example) const {
    return example.plain && !dialogue_.is_text_to_text() ? plain_ : dialogue_;
  }
  bool denoises(const Example& example) const {
    return example.format == RowFormat::kText && dialogue_.is_text_to_text();
  }
  EncodedRow denoised(std::span<const std::int32_t> text, const Dataset& dataset, std::size_t index, std::int64_t piece,
                      const EncodeOptions& options) const;
  void denoise_into(const Dataset& dataset, std::size_t index, const EncodeOptions& options, EncodeReport& report,
                    std::vector<EncodedRow>& rows) const;
  void encode_into(const Dataset& dataset, std::size_t index, const EncodeOptions& options, EncodeReport& report,
                   std::vector<EncodedRow>& rows) const;

  const instructions::DialogueEncoder& dialogue_;
  const instructions::InstructionSet* set_;
  instructions::DialogueEncoder plain_;  // for rows that use no chat template
};

}  // namespace instruct::data
