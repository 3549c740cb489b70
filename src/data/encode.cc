#include "data/encode.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace instruct::data {
namespace {

using instructions::EncodedDialogue;
using instructions::Message;

// Runs `body`; errors get the file and row in front.
template <typename Body>
decltype(auto) in_row(const Dataset& dataset, const Example& example, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw Error(error.category(), fmt::format("{}: row {}: {}", dataset.origin, example.row, error.what()));
  }
}

// Pieces of at most `cutoff` tokens; each keeps its own targets.
void split_row(const EncodedRow& row, std::int64_t cutoff, std::vector<EncodedRow>& out) {
  const auto size = static_cast<std::int64_t>(row.tokens.size());
  for (std::int64_t begin = 0; begin < size; begin += cutoff) {
    const std::int64_t end = std::min(size, begin + cutoff);
    EncodedRow piece{.example = row.example};
    piece.tokens.assign(row.tokens.begin() + begin, row.tokens.begin() + end);
    piece.trained.assign(row.trained.begin() + begin, row.trained.begin() + end);
    piece.trained.front() = 0;
    if (piece.trained_tokens() > 0) out.push_back(std::move(piece));
  }
}

}  // namespace

Overflow overflow_from_name(std::string_view name) {
  const std::vector<std::string> known{"drop", "split", "left", "raise"};
  const auto found = std::find(known.begin(), known.end(), name);
  if (found == known.end()) {
    raise(ErrorCategory::kInvalidArgument, "unknown overflow policy '{}'{}", name, did_you_mean(name, known));
  }
  return static_cast<Overflow>(found - known.begin());
}

RowEncoder::RowEncoder(const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set)
    : dialogue_(dialogue), set_(set), plain_(dialogue.tokenizer(), "", "plain") {}

const instructions::Instruction& RowEncoder::instruction_of(const Dataset& dataset, const Example& example) const {
  if (set_ == nullptr) {
    raise(ErrorCategory::kInvalidArgument, "{}: row {} calls verb '{}', but no instruction set was given (--instructions)",
          dataset.origin, example.row, example.verb);
  }
  return in_row(dataset, example, [&]() -> const instructions::Instruction& { return set_->instruction(example.verb); });
}

std::vector<Message> RowEncoder::question(const Dataset& dataset, const Example& example,
                                          const EncodeOptions& options) const {
  if (example.format == RowFormat::kInstruction) {
    const instructions::Instruction& instruction = instruction_of(dataset, example);
    return in_row(dataset, example, [&] {
      return instructions::decode_call(*set_, instruction, example.variables,
                                       {.template_index = instructions::choose_template(instruction, options.seed, options.epoch, example.row),
                                        .shots = options.shots});
    });
  }
  std::vector<Message> messages = example.messages;
  if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
  return messages;
}

EncodedRow RowEncoder::encode(const Dataset& dataset, std::size_t index, const EncodeOptions& options) const {
  const Example& example = dataset.examples[index];
  std::vector<Message> messages = example.messages;
  if (example.format == RowFormat::kInstruction) {
    messages = question(dataset, example, options);
    const instructions::Instruction& instruction = instruction_of(dataset, example);
    messages.push_back({"assistant", in_row(dataset, example, [&] { return instructions::encode_output(instruction, example.output); }), {}});
  }
  instructions::MaskOptions mask = options.mask;
  // Few-shot turns are context; of a call only its own answer is trained.
  if (example.format == RowFormat::kInstruction) mask.mask_history = true;
  const EncodedDialogue encoded = in_row(dataset, example, [&] {
    return (example.plain ? plain_ : dialogue_).encode_training(messages, mask);
  });
  return {.tokens = encoded.tokens, .trained = encoded.trained, .example = static_cast<std::int64_t>(index)};
}

std::vector<std::int32_t> RowEncoder::encode_prompt(const Dataset& dataset, std::size_t index,
                                                    const EncodeOptions& options) const {
  const Example& example = dataset.examples[index];
  const std::vector<Message> messages = question(dataset, example, options);
  return in_row(dataset, example, [&] { return (example.plain ? plain_ : dialogue_).encode_prompt(messages); });
}

std::string RowEncoder::reference(const Dataset& dataset, std::size_t index) const {
  const Example& example = dataset.examples[index];
  if (example.format == RowFormat::kInstruction) {
    const instructions::Instruction& instruction = instruction_of(dataset, example);
    return in_row(dataset, example, [&] { return instructions::encode_output(instruction, example.output); });
  }
  return example.messages.empty() ? std::string() : example.messages.back().content;
}

std::vector<EncodedRow> RowEncoder::encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                               const EncodeOptions& options, EncodeReport& report) const {
  std::vector<EncodedRow> rows;
  const std::vector<std::int32_t>& ends = dialogue_.tokenizer().end_of_generation();
  for (const std::int64_t index : indices) {
    EncodedRow row = encode(dataset, static_cast<std::size_t>(index), options);
    const std::int64_t number = dataset.examples[static_cast<std::size_t>(index)].row;
    bool end_trained = false;
    for (std::size_t t = 0; t < row.tokens.size(); ++t) {
      end_trained = end_trained || (row.trained[t] != 0 && std::find(ends.begin(), ends.end(), row.tokens[t]) != ends.end());
    }
    if (!end_trained && dataset.format != RowFormat::kText) report.no_end.push_back(number);
    const auto length = static_cast<std::int64_t>(row.tokens.size());
    if (length > options.cutoff) {
      report.too_long.push_back(number);
      switch (options.overflow) {
        case Overflow::kRaise:
          raise(ErrorCategory::kBadData,
                "{}: row {} has {} tokens, cutoff_len is {}: raise it, or choose overflow drop, split or left",
                dataset.origin, number, length, options.cutoff);
        case Overflow::kDrop:
          continue;
        case Overflow::kSplit:
          split_row(row, options.cutoff, rows);
          continue;
        case Overflow::kLeft: {
          // The end of the row, with its answer and end-of-turn token, stays.
          const auto cut = static_cast<std::ptrdiff_t>(length - options.cutoff);
          row.tokens.erase(row.tokens.begin(), row.tokens.begin() + cut);
          row.trained.erase(row.trained.begin(), row.trained.begin() + cut);
          row.trained.front() = 0;
          if (row.trained_tokens() == 0) continue;
          break;
        }
      }
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) {
    raise(ErrorCategory::kBadData, "{}: no row is left to train on ({} of {} were longer than cutoff_len {})", dataset.origin,
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
