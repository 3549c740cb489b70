#include "data/text_rows.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "data/row_errors.h"
#include "data/source_rows.h"
#include "data/wording.h"
#include "instructions/adaptation.h"
#include "instructions/segmentation.h"
#include "metrics/rouge.h"

namespace instruct::data {
namespace {

using instructions::Instruction;
using instructions::OutputType;
using tokenizers::TextRange;
using tokenizers::Token;

// The sentences of the first text that came from variables, and their tokens. One that was cut off has none.
void find_sentences(const Worded::Part& part, const tokenizers::EncodedInput& input, TextRow& row) {
  for (const TextRange& given : part.given) {
    const std::string_view text = std::string_view(part.text).substr(given.begin, given.end - given.begin);
    for (const auto& sentence : instructions::segment(text, instructions::TextUnit::kSentence)) {
      const std::size_t begin = given.begin + sentence.begin;
      const std::size_t end = given.begin + sentence.end;
      tensor::KeyRange range;
      for (std::size_t i = 0; i < input.tokens.size(); ++i) {
        if (input.texts[i] != 0 || input.tokens[i].begin < begin || input.tokens[i].begin >= end) continue;
        if (range.begin == range.end) range = {static_cast<std::int64_t>(i), static_cast<std::int64_t>(i)};
        range.end = static_cast<std::int64_t>(i) + 1;
      }
      if (range.begin == range.end) continue;
      row.parts.push_back(range);
      row.sentences.emplace_back(part.text.substr(begin, end - begin));
    }
  }
}

std::vector<float> truth_of(const Instruction& instruction, const Example& example, const TextRow& row) {
  const std::string text = instructions::encode_output(instruction, example.output, &example.variables);
  const std::vector<std::string>& labels = instruction.output.labels;
  const auto number_of = [&](const std::string& label) {
    return static_cast<std::size_t>(std::find(labels.begin(), labels.end(), label) - labels.begin());
  };
  switch (instruction.output.type) {
    case OutputType::kLabel:
      return {static_cast<float>(number_of(text))};
    case OutputType::kLabels: {
      std::vector<float> truth(labels.size(), 0.0F);
      const Value chosen = instructions::decode_output(instruction, text);
      for (const Value& label : chosen.as_array()) truth[number_of(label.as_string())] = 1;
      return truth;
    }
    default:
      return oracle_sentences(row.sentences, text, instruction.output.max_items);
  }
}

std::string repeated(const std::string& text, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) result += text;
  return result;
}

// What the model's own tokens around a text leave of so many.
std::size_t room_of(std::int64_t cutoff, std::size_t frame_size) {
  if (cutoff <= static_cast<std::int64_t>(frame_size))
    raise(ErrorCategory::kInvalidArgument, "{} tokens leave no room for a text: the model puts {} around it", cutoff,
          frame_size);
  return static_cast<std::size_t>(cutoff) - frame_size;
}

// The masks of a cloze.
void find_gap(TextRow& row, std::int32_t mask) {
  for (std::size_t i = 0; i < row.tokens.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    if (row.tokens[i] == mask) row.parts.push_back({at, at + 1});
  }
  if (row.parts.size() != row.verbalisers->masks)
    raise(ErrorCategory::kBadData, "the wording has {} gaps [MASK], one is needed",
          row.parts.size() / row.verbalisers->masks);
}

}  // namespace

TextRow framed(const tokenizers::EncodedInput& input) {
  TextRow row;
  for (const Token& token : input.tokens) row.tokens.push_back(token.id);
  row.types = input.type_ids;
  return row;
}

TextEncoder::TextEncoder(const tokenizers::Tokenizer& tokenizer, const instructions::InstructionSet& set)
    : tokenizer_(tokenizer), set_(set) {}

TextRow TextEncoder::encode_text(std::string_view text, std::int64_t cutoff) const {
  std::vector<Token> tokens = tokenizer_.encode_plain(text);
  const std::size_t room = room_of(cutoff, tokenizer_.frame_size(1));
  if (tokens.size() > room) tokens.resize(room);
  return framed(tokenizer_.frame(tokens));
}

std::vector<TextRow> TextEncoder::encode(const Example& example, const TextOptions& options, TextReport& report) const {
  if (example.format != RowFormat::kInstruction)
    raise(ErrorCategory::kBadData, "an encoder reads instruction rows (verb, variables, output)");
  const Instruction& instruction = set_.instruction(example.verb);
  const std::size_t wording = instructions::choose_template(instruction, options.seed, options.epoch, example.row);
  const std::shared_ptr<const Verbalisers> verbalisers = verbalisers_for(instruction, wording);
  const std::optional<std::int32_t> mask = tokenizer_.mask();
  std::string gap(instructions::kMaskMark);
  if (mask) gap = repeated(tokenizer_.token_bytes(*mask), verbalisers == nullptr ? 1 : verbalisers->masks);
  const Worded worded = cut(instructions::rendered_call(set_, instruction, example.variables, wording), gap);
  Texts texts;
  for (const Worded::Part& part : worded.parts) texts.push_back(tokenizer_.encode(part.text, part.own));
  const std::size_t frame_size = tokenizer_.frame_size(texts.size());
  const auto cutoff = static_cast<std::size_t>(options.cutoff);
  const bool too_long = frame_size + total(texts) > cutoff;
  Texts kept = texts;
  if (too_long) {
    report.too_long.push_back(example.row);
    const bool windows = (options.windows || options.overflow == Overflow::kSplit) && is_part_of_source(instruction);
    if (!windows && (options.overflow == Overflow::kRaise || options.overflow == Overflow::kSplit)) {
      raise(ErrorCategory::kBadData,
            "the text has {} tokens, at most {} fit: raise cutoff_len, or choose overflow right, left, drop{}",
            frame_size + total(texts), cutoff, is_part_of_source(instruction) ? " or split" : "");
    }
    if (windows) return SourceRows(tokenizer_, instruction, example, worded, texts).windows(cutoff);
    if (options.overflow == Overflow::kDrop) {
      report.dropped.push_back(example.row);
      return {};
    }
    report.shortened.push_back(example.row);
    shorten(kept, worded, cutoff > frame_size ? cutoff - frame_size : 0, options.overflow);
  }
  if (is_part_of_source(instruction)) {
    std::vector<TextRow> rows = SourceRows(tokenizer_, instruction, example, worded, texts).whole(kept);
    if (rows.empty()) report.dropped.push_back(example.row);
    return rows;
  }
  const tokenizers::EncodedInput input = frame(tokenizer_, kept);
  TextRow row = framed(input);
  if (verbalisers != nullptr) {
    row.verbalisers = verbalisers;
    find_gap(row, mask.value());
  } else if (instruction.output.type == OutputType::kSentences) {
    find_sentences(worded.parts[0], input, row);
    if (row.parts.empty()) raise(ErrorCategory::kBadData, "there is no sentence to choose");
  } else {
    row.parts.push_back({0, options.pooling == Pooling::kFirst ? 1 : static_cast<std::int64_t>(row.tokens.size())});
  }
  if (!example.output.is_null()) row.truth = truth_of(instruction, example, row);
  return {std::move(row)};
}

std::shared_ptr<const Verbalisers> TextEncoder::verbalisers_for(const Instruction& instruction,
                                                                std::size_t wording) const {
  if (!instruction.is_cloze()) return nullptr;
  if (!tokenizer_.mask())
    raise(ErrorCategory::kUnsupported, "verb '{}' has a gap [MASK], and the model has no token for one",
          instruction.verb);
  const std::string& source = instruction.templates[wording].source();
  std::shared_ptr<const Verbalisers>& known = verbalisers_[&instruction.templates[wording]];
  if (known == nullptr) known = std::make_shared<const Verbalisers>(verbalisers_of(tokenizer_, instruction, source));
  return known;
}

std::vector<TextRow> TextEncoder::encode_plain(const Example& example, const TextOptions& options,
                                               TextReport& report) const {
  if (example.format != RowFormat::kText)
    raise(ErrorCategory::kBadData,
          "a masked language model learns from rows with a text; for verbs give an instruction set");
  const std::string& text = example.messages.front().content;
  std::vector<Token> tokens = tokenizer_.encode_plain(text);
  if (tokens.empty()) raise(ErrorCategory::kBadData, "the text is empty");
  const std::size_t frame_size = tokenizer_.frame_size(1);
  const std::size_t room = room_of(options.cutoff, frame_size);
  const bool too_long = tokens.size() > room;
  if (too_long) report.too_long.push_back(example.row);
  if (too_long && options.overflow == Overflow::kRaise)
    raise(ErrorCategory::kBadData,
          "the text has {} tokens, at most {} fit: raise cutoff_len, or choose overflow split, right, left or drop",
          tokens.size() + frame_size, options.cutoff);
  if (too_long && options.overflow == Overflow::kDrop) {
    report.dropped.push_back(example.row);
    return {};
  }
  if (too_long && options.overflow != Overflow::kSplit) {
    report.shortened.push_back(example.row);
    const auto excess = static_cast<std::ptrdiff_t>(tokens.size() - room);
    options.overflow == Overflow::kLeft ? tokens.erase(tokens.begin(), tokens.begin() + excess)
                                        : tokens.erase(tokens.end() - excess, tokens.end());
  }
  const SourcePlace all{0, {0, text.size()}, 0};
  std::vector<TextRow> rows;
  for (std::size_t begin = 0; begin < tokens.size(); begin += room) {
    const auto piece = std::span(tokens).subspan(begin, std::min(room, tokens.size() - begin));
    const tokenizers::EncodedInput input = tokenizer_.frame(piece);
    TextRow row = framed(input);
    const auto first = std::find(input.texts.begin(), input.texts.end(), 0) - input.texts.begin();
    const std::vector<SourceToken> words = source_words(source_tokens(piece, text, all), text);
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::size_t end = i + 1 < words.size() ? words[i + 1].token : piece.size();
      row.parts.push_back({first + static_cast<std::int64_t>(words[i].token), first + static_cast<std::int64_t>(end)});
    }
    if (!row.parts.empty()) rows.push_back(std::move(row));
  }
  if (rows.empty()) raise(ErrorCategory::kBadData, "the text is empty");
  return rows;
}

template <typename Encode>
std::vector<TextRow> TextEncoder::all_of(const Dataset& dataset, std::span<const std::int64_t> indices,
                                         TextReport& report, const Encode& encode) const {
  std::vector<TextRow> rows;
  RowErrors errors;
  for (const std::int64_t index : indices) {
    errors.attempt([&] {
      const Example& example = dataset.examples[static_cast<std::size_t>(index)];
      std::vector<TextRow> own = in_row(dataset, example, [&] { return encode(example); });
      for (TextRow& row : own) {
        row.example = index;
        if (example.format == RowFormat::kInstruction)
          row.verb = static_cast<std::size_t>(&set_.instruction(example.verb) - set_.instructions.data());
        report.tokens += static_cast<std::int64_t>(row.tokens.size());
        rows.push_back(std::move(row));
      }
    });
  }
  errors.raise_if_any(dataset, indices.size());
  if (rows.empty()) raise(ErrorCategory::kBadData, "{}: no row is left", dataset.origin);
  return rows;
}

std::vector<TextRow> TextEncoder::encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                             const TextOptions& options, TextReport& report) const {
  return all_of(dataset, indices, report, [&](const Example& example) { return encode(example, options, report); });
}

std::vector<TextRow> TextEncoder::encode_texts(const Dataset& dataset, std::span<const std::int64_t> indices,
                                               const TextOptions& options, TextReport& report) const {
  return all_of(dataset, indices, report,
                [&](const Example& example) { return encode_plain(example, options, report); });
}

std::vector<std::span<const TextRow>> by_example(std::span<const TextRow> rows) {
  std::vector<std::span<const TextRow>> groups;
  for (std::size_t begin = 0; begin < rows.size();) {
    std::size_t end = begin + 1;
    while (end < rows.size() && rows[end].example == rows[begin].example) ++end;
    groups.push_back(rows.subspan(begin, end - begin));
    begin = end;
  }
  return groups;
}

std::vector<float> oracle_sentences(std::span<const std::string> sentences, std::string_view reference,
                                    std::int64_t most) {
  const auto score_of = [&](const std::vector<float>& chosen) {
    std::string summary;
    for (std::size_t i = 0; i < sentences.size(); ++i) {
      if (chosen[i] > 0) summary += (summary.empty() ? "" : " ") + sentences[i];
    }
    const metrics::RougeOptions options{.cjk = true};
    return metrics::rouge_n(summary, reference, 1, options).f1 + metrics::rouge_n(summary, reference, 2, options).f1;
  };
  std::vector<float> chosen(sentences.size(), 0.0F);
  double best = 0;
  for (std::int64_t count = 0; count < std::min<std::int64_t>(most, static_cast<std::int64_t>(sentences.size()));
       ++count) {
    std::optional<std::size_t> next;
    for (std::size_t i = 0; i < sentences.size(); ++i) {
      if (chosen[i] > 0) continue;
      chosen[i] = 1;
      if (const double score = score_of(chosen); score > best) {
        best = score;
        next = i;
      }
      chosen[i] = 0;
    }
    if (!next) break;
    chosen[*next] = 1;
  }
  return chosen;
}

std::vector<std::int32_t> single_tokens(const TextBatch& batch) {
  std::vector<std::int32_t> tokens;
  for (const tensor::KeyRange& part : batch.parts) {
    if (part.end - part.begin != 1) return {};
    tokens.push_back(static_cast<std::int32_t>(part.begin));
  }
  return tokens;
}

TextBatch make_text_batch(std::span<const TextRow* const> rows, std::int64_t first_position) {
  TextBatch batch;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TextRow& row = *rows[i];
    const auto begin = static_cast<std::int64_t>(batch.tokens.size());
    batch.tokens.insert(batch.tokens.end(), row.tokens.begin(), row.tokens.end());
    batch.types.insert(batch.types.end(), row.types.begin(), row.types.end());
    batch.segments.push_back({begin, static_cast<std::int64_t>(batch.tokens.size()), -1});
    for (const tensor::KeyRange& part : row.parts) {
      batch.parts.push_back({begin + part.begin, begin + part.end});
      batch.part_rows.push_back(i);
    }
  }
  batch.plan = tensor::plan_of_whole_rows(batch.segments);
  batch.positions = tensor::positions_of(batch.segments);
  for (std::int32_t& position : batch.positions) position += static_cast<std::int32_t>(first_position);
  return batch;
}

}  // namespace instruct::data
