// Examples to encoded rows: instruction decoder, chat template, tokenizer, mask, and what happens to rows that are too
// long.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/layout.h"
#include "data/rows.h"
#include "instructions/adaptation.h"

namespace instruct::data {

enum class Overflow { kDrop, kSplit, kLeft, kRaise };
// "drop", "split", "left" or "raise"; raises InvalidArgument for another name.
Overflow overflow_from_name(std::string_view name);

struct EncodeOptions {
  std::int64_t cutoff = 2048;  // tokens
  Overflow overflow = Overflow::kRaise;
  instructions::MaskOptions mask;
  std::int64_t shots = 0;
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;  // templates are sampled anew each epoch
};

struct EncodeReport {
  std::int64_t rows = 0;
  std::int64_t trained_tokens = 0;
  std::int64_t tokens = 0;
  std::vector<std::int64_t> too_long;    // row numbers
  std::vector<std::int64_t> no_end;      // rows whose answer's end-of-turn token is not trained
  std::int64_t seam_tokens = 0;
};

class RowEncoder {
 public:
  // `set` may be null when no row is an instruction row. Both must outlive the encoder.
  RowEncoder(const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set);

  // One row as it is trained or scored. Raises BadData naming file, row and field.
  EncodedRow encode(const Dataset& dataset, std::size_t index, const EncodeOptions& options) const;
  // The question alone, for generation.
  std::vector<std::int32_t> encode_prompt(const Dataset& dataset, std::size_t index, const EncodeOptions& options) const;
  // The reference answer as text.
  std::string reference(const Dataset& dataset, std::size_t index) const;

  // All rows with the overflow policy applied. Raises BadData (raise policy) or when no row is left.
  std::vector<EncodedRow> encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                     const EncodeOptions& options, EncodeReport& report) const;

 private:
  std::vector<instructions::Message> question(const Dataset& dataset, const Example& example,
                                              const EncodeOptions& options) const;
  const instructions::Instruction& instruction_of(const Dataset& dataset, const Example& example) const;

  const instructions::DialogueEncoder& dialogue_;
  const instructions::InstructionSet* set_;
  instructions::DialogueEncoder plain_;  // for rows that use no chat template
};

}  // namespace instruct::data
