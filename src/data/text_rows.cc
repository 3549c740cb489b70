#include "data/text_rows.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "data/row_errors.h"
#include "instructions/adaptation.h"
#include "instructions/segmentation.h"
#include "metrics/rouge.h"

namespace instruct::data {
namespace {

using instructions::Instruction;
using instructions::OutputType;
using tokenizers::TextRange;
using tokenizers::Token;

constexpr std::string_view kSeparator = "[SEP]";

// The text of a call cut into one or two, with the template's own text in each.
struct Worded {
  struct Part {
    std::string text;
    std::vector<TextRange> own;    // the template's
    std::vector<TextRange> given;  // the variables'
  };
  std::vector<Part> parts{1};
};

Worded cut(const templates::Rendered& rendered) {
  Worded worded;
  const auto add = [&](std::string_view text, bool own) {
    Worded::Part& part = worded.parts.back();
    const std::size_t begin = part.text.size();
    part.text += text;
    if (!text.empty()) (own ? part.own : part.given).push_back({begin, part.text.size()});
  };
  for (const templates::TextSpan& span : rendered.spans) {
    std::string_view text = std::string_view(rendered.text).substr(span.begin, span.end - span.begin);
    if (span.source == 0 && worded.parts.size() == 1) {
      const std::size_t at = text.find(kSeparator);
      if (at != std::string_view::npos) {
        add(text.substr(0, at), true);
        worded.parts.emplace_back();
        text.remove_prefix(at + kSeparator.size());
      }
    }
    add(text, span.source == 0);
  }
  return worded;
}

// Keeps the sum of both at most `room`, taking from the longer one at its end, or from its start.
void shorten(std::vector<std::vector<Token>>& texts, std::size_t room, Overflow overflow) {
  const auto total = [&] {
    std::size_t sum = 0;
    for (const auto& text : texts) sum += text.size();
    return sum;
  };
  while (total() > room) {
    auto longest =
        std::max_element(texts.begin(), texts.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
    if (texts.size() == 1) {
      const std::size_t excess = longest->size() - room;
      overflow == Overflow::kLeft
          ? longest->erase(longest->begin(), longest->begin() + static_cast<std::ptrdiff_t>(excess))
          : longest->erase(longest->end() - static_cast<std::ptrdiff_t>(excess), longest->end());
    } else {
      overflow == Overflow::kLeft ? longest->erase(longest->begin()) : longest->erase(longest->end() - 1);
    }
  }
}

TextRow framed(const tokenizers::EncodedInput& input) {
  TextRow row;
  for (const Token& token : input.tokens) row.tokens.push_back(token.id);
  row.types = input.type_ids;
  return row;
}

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
  if (example.output.is_null()) return {};
  const std::string text = instructions::encode_output(instruction, example.output, &example.variables);
  const std::vector<std::string>& labels = instruction.output.labels;
  switch (instruction.output.type) {
    case OutputType::kLabel:
      return {static_cast<float>(std::find(labels.begin(), labels.end(), text) - labels.begin())};
    case OutputType::kLabels: {
      std::vector<float> truth(labels.size(), 0.0F);
      const Value chosen = instructions::decode_output(instruction, text);
      for (const Value& label : chosen.as_array())
        truth[static_cast<std::size_t>(std::find(labels.begin(), labels.end(), label.as_string()) - labels.begin())] =
            1;
      return truth;
    }
    default:
      return oracle_sentences(row.sentences, text, instruction.output.max_items);
  }
}

}  // namespace

TextEncoder::TextEncoder(const tokenizers::Tokenizer& tokenizer, const instructions::InstructionSet& set)
    : tokenizer_(tokenizer), set_(set) {}

TextRow TextEncoder::encode_text(std::string_view text, std::int64_t cutoff) const {
  std::vector<std::vector<Token>> tokens{tokenizer_.encode_plain(text)};
  shorten(tokens, static_cast<std::size_t>(cutoff) - tokenizer_.frame_size(1), Overflow::kRight);
  return framed(tokenizer_.frame(tokens[0]));
}

TextRow TextEncoder::encode(const Dataset& dataset, std::size_t index, const TextOptions& options,
                            TextReport& report) const {
  const Example& example = dataset.examples[index];
  if (example.format != RowFormat::kInstruction)
    raise(ErrorCategory::kBadData, "{}: an encoder reads instruction rows (verb, variables, output)",
          dataset.where(example));
  return in_row(dataset, example, [&] {
    const Instruction& instruction = set_.instruction(example.verb);
    const std::size_t wording = instructions::choose_template(instruction, options.seed, options.epoch, example.row);
    const Worded worded = cut(instructions::rendered_call(set_, instruction, example.variables, wording));
    std::vector<std::vector<Token>> texts;
    std::size_t length = tokenizer_.frame_size(worded.parts.size());
    for (const Worded::Part& part : worded.parts) {
      texts.push_back(tokenizer_.encode(part.text, part.own));
      length += texts.back().size();
    }
    if (static_cast<std::int64_t>(length) > options.cutoff) {
      report.too_long.push_back(example.row);
      if (options.overflow == Overflow::kRaise) {
        raise(ErrorCategory::kBadData,
              "the text has {} tokens, at most {} fit: raise cutoff_len, or choose overflow "
              "right, left or drop",
              length, options.cutoff);
      }
      if (options.overflow == Overflow::kDrop) {
        report.dropped.push_back(example.row);
        return TextRow{};
      }
      report.shortened.push_back(example.row);
      shorten(texts, static_cast<std::size_t>(options.cutoff) - tokenizer_.frame_size(texts.size()), options.overflow);
    }
    const tokenizers::EncodedInput input =
        texts.size() == 1 ? tokenizer_.frame(texts[0]) : tokenizer_.frame(texts[0], texts[1]);
    TextRow row = framed(input);
    row.example = static_cast<std::int64_t>(index);
    row.verb = static_cast<std::size_t>(&instruction - set_.instructions.data());
    const auto end = static_cast<std::int64_t>(row.tokens.size());
    if (instruction.output.type == OutputType::kSentences) {
      find_sentences(worded.parts[0], input, row);
      if (row.parts.empty()) raise(ErrorCategory::kBadData, "there is no sentence to choose");
    } else {
      row.parts.push_back({0, options.pooling == Pooling::kFirst ? 1 : end});
    }
    row.truth = truth_of(instruction, example, row);
    return row;
  });
}

std::vector<TextRow> TextEncoder::encode_all(const Dataset& dataset, std::span<const std::int64_t> indices,
                                             const TextOptions& options, TextReport& report) const {
  std::vector<TextRow> rows;
  RowErrors errors;
  for (const std::int64_t index : indices) {
    errors.attempt([&] {
      TextRow row = encode(dataset, static_cast<std::size_t>(index), options, report);
      report.tokens += static_cast<std::int64_t>(row.tokens.size());
      if (!row.tokens.empty()) rows.push_back(std::move(row));
    });
  }
  errors.raise_if_any(dataset, indices.size());
  if (rows.empty()) raise(ErrorCategory::kBadData, "{}: no row is left", dataset.origin);
  return rows;
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
