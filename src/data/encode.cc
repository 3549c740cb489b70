#include "data/encode.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "data/overflow.h"
#include "data/row_errors.h"

namespace instruct::data {
namespace {

using instructions::EncodedDialogue;
using instructions::Message;

constexpr std::int64_t kShortestCutoff = 8;  // tokens; below it nothing useful fits

const instructions::Instruction& instruction_of(const Dataset& dataset, const Example& example,
                                                const instructions::InstructionSet* set) {
  if (set == nullptr) {
    raise(ErrorCategory::kInvalidArgument, "{} calls verb '{}', but no instruction set was given (--instructions)",
          dataset.where(example), example.verb);
  }
  return in_row(dataset, example, [&]() -> const instructions::Instruction& { return set->instruction(example.verb); });
}

std::string answer_of(const Dataset& dataset, const Example& example, const instructions::InstructionSet* set) {
  if (example.format == RowFormat::kInstruction) {
    const instructions::Instruction& instruction = instruction_of(dataset, example, set);
    return in_row(dataset, example,
                  [&] { return instructions::encode_output(instruction, example.output, &example.variables); });
  }
  return example.messages.empty() ? std::string() : example.messages.back().content;
}

EncodedRow row_of(const EncodedDialogue& encoded, std::size_t index) {
  return {.tokens = encoded.tokens,
          .trained = encoded.trained,
          .example = static_cast<std::int64_t>(index),
          .source = encoded.source};
}

}  // namespace

Overflow overflow_from_name(std::string_view name) {
  const std::vector<std::string> known{"drop", "split", "left", "raise", "right"};
  const auto found = std::find(known.begin(), known.end(), name);
  if (found == known.end()) {
    raise(ErrorCategory::kInvalidArgument, "unknown overflow policy '{}'{}", name, did_you_mean(name, known));
  }
  return static_cast<Overflow>(found - known.begin());
}

RowEncoder::RowEncoder(const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set)
    : dialogue_(dialogue), set_(set), plain_(dialogue.tokenizer(), "", "plain") {}

std::vector<Message> row_question(const Dataset& dataset, const Example& example,
                                  const instructions::InstructionSet* set, const EncodeOptions& options) {
  if (example.format == RowFormat::kInstruction) {
    const instructions::Instruction& instruction = instruction_of(dataset, example, set);
    const std::size_t wording = instructions::choose_template(instruction, options.seed, options.epoch, example.row);
    return in_row(dataset, example, [&] {
      return instructions::decode_call(*set, instruction, example.variables,
                                       {.template_index = wording, .shots = options.shots});
    });
  }
  std::vector<Message> messages = example.messages;
  if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
  return messages;
}

std::vector<Message> row_messages(const Dataset& dataset, const Example& example,
                                  const instructions::InstructionSet* set, const EncodeOptions& options) {
  if (example.format != RowFormat::kInstruction) return example.messages;
  std::vector<Message> messages = row_question(dataset, example, set, options);
  messages.push_back({"assistant", answer_of(dataset, example, set), {}});
  return messages;
}

EncodedDialogue RowEncoder::encode_dialogue(const Dataset& dataset, const Example& example,
                                            const EncodeOptions& options) const {
  instructions::MaskOptions mask = options.mask;
  // Few-shot turns are context; of a call only its own answer is trained.
  if (example.format == RowFormat::kInstruction) mask.mask_history = true;
  const std::vector<Message> turns = row_messages(dataset, example, set_, options);
  return in_row(dataset, example, [&] { return encoder_of(example).encode_training(turns, mask, example.context); });
}

EncodedRow RowEncoder::denoised(std::span<const std::int32_t> text, const Dataset& dataset, std::size_t index,
                                std::int64_t piece, const EncodeOptions& options) const {
  const Example& example = dataset.examples[index];
  constexpr int kRowBits = 32;
  constexpr int kPieceBits = 16;
  const std::uint64_t place = static_cast<std::uint64_t>(options.epoch) << (kRowBits + kPieceBits) |
                              static_cast<std::uint64_t>(example.row) << kPieceBits | static_cast<std::uint64_t>(piece);
  return in_row(dataset, example, [&] {
    EncodedRow row =
        denoised_row(text, sentinels_of(dialogue_.tokenizer()), dialogue_.answer_start(), *dialogue_.tokenizer().eos(),
                     options.denoise, RandomStream(options.seed, RandomPurpose::kMask, place));
    row.example = static_cast<std::int64_t>(index);
    return row;
  });
}

void RowEncoder::denoise_into(const Dataset& dataset, std::size_t index, const EncodeOptions& options,
                              EncodeReport& report, std::vector<EncodedRow>& rows) const {
  const Example& example = dataset.examples[index];
  const std::vector<std::int32_t> tokens = dialogue_.source_text(example.messages.front().content);
  std::span<const std::int32_t> text = tokens;
  const auto most = static_cast<std::size_t>(options.cutoff - 1);  // the end is put behind
  if (text.size() <= most) return rows.push_back(denoised(text, dataset, index, 0, options));
  report.too_long.push_back(example.row);
  if (options.overflow == Overflow::kDrop) return report.dropped.push_back(example.row);
  if (options.overflow == Overflow::kRaise) {
    raise(ErrorCategory::kBadData, "{} has {} tokens, {} is {}", dataset.where(example), text.size() + 1,
          options.cutoff_name, options.cutoff);
  }
  if (options.overflow != Overflow::kSplit) {
    report.shortened.push_back(example.row);
    text = options.overflow == Overflow::kLeft ? text.last(most) : text.first(most);
    return rows.push_back(denoised(text, dataset, index, 0, options));
  }
  report.divided.push_back(example.row);
  for (std::int64_t piece = 0; text.size() > 1; ++piece) {
    const std::size_t size = std::min(most, text.size());
    rows.push_back(denoised(text.first(size), dataset, index, piece, options));
    text = text.subspan(size);
  }
}

EncodedRow RowEncoder::encode(const Dataset& dataset, std::size_t index, const EncodeOptions& options) const {
  if (const Example& example = dataset.examples[index]; denoises(example))
    return denoised(dialogue_.source_text(example.messages.front().content), dataset, index, 0, options);
  return row_of(encode_dialogue(dataset, dataset.examples[index], options), index);
}

std::vector<std::int32_t> RowEncoder::encode_prompt(const Dataset& dataset, std::size_t index,
                                                    const EncodeOptions& options) const {
  const Example& example = dataset.examples[index];
  const std::vector<Message> messages = row_question(dataset, example, set_, options);
  return in_row(dataset, example, [&] { return encoder_of(example).encode_prompt(messages, example.context); });
}

std::string RowEncoder::reference(const Dataset& dataset, std::size_t index) const {
  return answer_of(dataset, dataset.examples[index], set_);
}

void RowEncoder::encode_into(const Dataset& dataset, std::size_t index, const EncodeOptions& options,
                             EncodeReport& report, std::vector<EncodedRow>& rows) const {
  const Example& example = dataset.examples[index];
  if (denoises(example)) return denoise_into(dataset, index, options, report, rows);
  const EncodedDialogue encoded = encode_dialogue(dataset, example, options);
  const auto add = [&](const EncodedDialogue& dialogue) {
    report.seam_tokens += static_cast<std::int64_t>(dialogue.seams.size());
    if (!dialogue.end_trained && example.format != RowFormat::kText) report.no_end.push_back(example.row);
    rows.push_back(row_of(dialogue, index));
  };
  const std::int64_t length = encoded.longest_part();
  if (length <= options.cutoff) return add(encoded);
  report.too_long.push_back(example.row);
  const Encode encode = [&](const Example& changed) { return encode_dialogue(dataset, changed, options); };
  const std::optional<std::int32_t> bos =
      dialogue_.tokenizer().bos() == encoded.tokens.front() ? dialogue_.tokenizer().bos() : std::nullopt;
  const bool text = example.format == RowFormat::kText;
  if (options.overflow == Overflow::kSplit && text) {
    for (EncodedRow& piece : split_tokens(row_of(encoded, index), options.cutoff, bos))
      rows.push_back(std::move(piece));
    report.divided.push_back(example.row);
  } else if (options.overflow == Overflow::kSplit) {
    const auto parts = options.mask.mask_history ? std::nullopt : split_dialogue(example, options.cutoff, encode);
    if (!parts) return report.dropped.push_back(example.row);
    for (const EncodedDialogue& part : *parts) add(part);
    report.divided.push_back(example.row);
  } else if (options.overflow == Overflow::kLeft && text) {
    rows.push_back(keep_right(row_of(encoded, index), options.cutoff, bos));
    report.shortened.push_back(example.row);
  } else if (options.overflow == Overflow::kLeft) {
    const auto part = fit_left(example, options.cutoff, encode, set_);
    if (!part) return report.dropped.push_back(example.row);
    add(*part);
    report.shortened.push_back(example.row);
  } else if (options.overflow == Overflow::kRight && encoded.source > 0) {
    EncodedRow row = row_of(encoded, index);
    const auto cut = static_cast<std::int64_t>(row.tokens.size()) - row.source;
    if (cut > options.cutoff) return report.dropped.push_back(example.row);  // the answer itself
    // The end of the source stays.
    row.tokens.erase(row.tokens.begin() + options.cutoff - 1, row.tokens.begin() + row.source - 1);
    row.trained.erase(row.trained.begin() + options.cutoff - 1, row.trained.begin() + row.source - 1);
    row.source = options.cutoff;
    rows.push_back(std::move(row));
    report.shortened.push_back(example.row);
  } else if (options.overflow == Overflow::kDrop) {
    report.dropped.push_back(example.row);
  } else {
    raise(ErrorCategory::kBadData, "{} has {} tokens, {} is {}{}", dataset.where(example), length, options.cutoff_name,
          options.cutoff,
          options.cutoff_name == "cutoff_len" ? ": raise it, or choose overflow drop, split or left" : "");
  }
}

std::vector<EncodedRow> RowEncoder::encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                               const EncodeOptions& options, EncodeReport& report) const {
  if (options.cutoff < kShortestCutoff) {
    raise(ErrorCategory::kInvalidArgument, "cutoff_len {}: expected at least {} tokens", options.cutoff,
          kShortestCutoff);
  }
  for (const std::int64_t index : indices) {  // one clear error instead of one a row
    const Example& example = dataset.examples[static_cast<std::size_t>(index)];
    if (example.format == RowFormat::kInstruction && set_ == nullptr) instruction_of(dataset, example, set_);
  }
  std::vector<EncodedRow> rows;
  RowErrors errors;
  for (const std::int64_t index : indices) {
    errors.attempt([&] { encode_into(dataset, static_cast<std::size_t>(index), options, report, rows); });
  }
  errors.raise_if_any(dataset, indices.size());
  if (rows.empty()) {
    raise(ErrorCategory::kBadData, "{}: no row is left ({} of {} were longer than cutoff_len {})", dataset.origin,
          report.too_long.size(), indices.size(), options.cutoff);
  }
  report.rows = static_cast<std::int64_t>(rows.size());
  for (const EncodedRow& row : rows) {
    report.tokens += static_cast<std::int64_t>(row.tokens.size());
    report.trained_tokens += row.trained_tokens();
  }
  return rows;
}

}  // namespace instruct::data
