#include "data/source_rows.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "instructions/adaptation.h"

namespace instruct::data {
namespace {

using instructions::Instruction;
using instructions::OutputType;
using tokenizers::TextRange;
using tokenizers::Token;

// Where the template put the value that parts are taken from: what variables gave there is the value, or some of it.
SourcePlace find_source(const Worded& worded, const std::string& value, const std::string& name) {
  std::optional<SourcePlace> found;
  for (std::size_t i = 0; i < worded.parts.size(); ++i) {
    for (const TextRange& given : worded.parts[i].given) {
      const std::string text = worded.parts[i].text.substr(given.begin, given.end - given.begin);
      if (text == value) return {i, given, 0};
      if (const std::size_t at = value.find(text); at != std::string::npos && text.size() > value.size() / 2)
        found = {i, given, at};
    }
  }
  if (!found)
    raise(ErrorCategory::kBadData, "the template does not hold '{}' word for word: its parts cannot be found", name);
  return *found;
}

}  // namespace

bool is_part_of_source(const Instruction& instruction) {
  return instruction.output.type == OutputType::kSpan || !instructions::extracted_fields(instruction).empty();
}

SourceRows::SourceRows(const tokenizers::Tokenizer& tokenizer, const Instruction& instruction, const Example& example,
                       const Worded& worded, const Texts& texts)
    : tokenizer_(tokenizer), instruction_(instruction), worded_(worded), texts_(texts) {
  const std::string& name = instruction.output.from;
  source_ = std::make_shared<const std::string>(example.variables.at(name).as_string());
  place_ = find_source(worded, *source_, name);
  tokens_ = source_tokens(texts[place_.text], worded.parts[place_.text].text, place_);
  if (tokens_.empty()) raise(ErrorCategory::kBadData, "'{}' has no words", name);
  words_ = source_words(tokens_, *source_);
  if (example.output.is_null()) return;
  instructions::encode_output(instruction, example.output, &example.variables);
  const auto mentions = instructions::mentions_of(instruction, example.output, *source_);
  if (is_span()) {
    answer_ = span_place(mentions.front(), tokens_);
  } else {
    tags_ = tags_of_words(mentions, words_);
  }
  has_truth_ = true;
}

std::vector<TextRow> SourceRows::whole(const Texts& texts) const {
  TextRow row = row_of(texts, {0, source_->size()});
  const bool lost = is_span() && has_truth_ && row.truth[1] == 0;
  return lost || row.parts.empty() ? std::vector<TextRow>() : std::vector{std::move(row)};
}

std::vector<TextRow> SourceRows::windows(std::size_t cutoff) const {
  const std::vector<Token>& text = texts_[place_.text];
  const std::size_t first = tokens_.front().token;
  const std::size_t count = tokens_.back().token + 1 - first;
  const std::size_t fixed = tokenizer_.frame_size(texts_.size()) + total(texts_) - count;
  std::vector<TextRow> rows;
  for (const Window& window : windows_of(count, cutoff > fixed ? cutoff - fixed : 0)) {
    Texts texts = texts_;
    const auto at = [&](std::size_t token) { return text.begin() + static_cast<std::ptrdiff_t>(first + token); };
    std::vector<Token>& own = texts[place_.text];
    own.assign(text.begin(), at(0));
    own.insert(own.end(), at(window.begin), at(window.end));
    own.insert(own.end(), at(count), text.end());
    const auto byte = [&](std::size_t token) { return token == count ? source_->size() : byte_of(first + token); };
    TextRow row = row_of(texts, {window.own_begin == 0 ? 0 : byte(window.own_begin), byte(window.own_end)});
    if (!row.parts.empty()) rows.push_back(std::move(row));
  }
  return rows;
}

// The byte of the source where a token of its text begins.
std::size_t SourceRows::byte_of(std::size_t token) const {
  return texts_[place_.text][token].begin - place_.range.begin + place_.offset;
}

// `own`: the words whose tags are asked for.
TextRow SourceRows::row_of(const Texts& texts, const ByteRange& own) const {
  const tokenizers::EncodedInput input = frame(tokenizer_, texts);
  TextRow row = framed(input);
  row.source = source_;
  std::vector<Token> tokens;
  std::vector<std::size_t> numbers;  // in the row
  for (std::size_t i = 0; i < input.tokens.size(); ++i) {
    if (input.texts[i] != static_cast<std::int32_t>(place_.text)) continue;
    tokens.push_back(input.tokens[i]);
    numbers.push_back(i);
  }
  const std::vector<SourceToken> found = source_tokens(tokens, worded_.parts[place_.text].text, place_);
  if (is_span()) {
    add_span(row, found, numbers);
  } else {
    add_tags(row, found, numbers, own);
  }
  return row;
}

void SourceRows::add_span(TextRow& row, const std::vector<SourceToken>& found,
                          const std::vector<std::size_t>& numbers) const {
  row.places.resize(row.tokens.size());
  for (std::size_t i = 0; i < row.tokens.size(); ++i)
    row.parts.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1});
  for (const SourceToken& token : found) row.places[numbers[token.token]] = token.bytes;
  if (!has_truth_) return;
  row.truth = {0, 0};
  const auto starts = std::find_if(found.begin(), found.end(),
                                   [&](const SourceToken& token) { return token.bytes.begin == answer_.begin; });
  const auto ends = std::find_if(found.rbegin(), found.rend(),
                                 [&](const SourceToken& token) { return token.bytes.end == answer_.end; });
  if (starts != found.end() && ends != found.rend())
    row.truth = {static_cast<float>(numbers[starts->token]), static_cast<float>(numbers[ends->token])};
}

void SourceRows::add_tags(TextRow& row, const std::vector<SourceToken>& found, const std::vector<std::size_t>& numbers,
                          const ByteRange& own) const {
  for (const SourceToken& word : source_words(found, *source_)) {
    if (word.bytes.begin < own.begin || word.bytes.begin >= own.end) continue;
    const auto known = std::lower_bound(words_.begin(), words_.end(), word.bytes.begin,
                                        [](const SourceToken& w, std::size_t begin) { return w.bytes.begin < begin; });
    if (known == words_.end() || known->bytes.begin != word.bytes.begin) continue;  // the end of one that was cut
    const auto at = static_cast<std::int64_t>(numbers[word.token]);
    row.parts.push_back({at, at + 1});
    row.places.push_back(known->bytes);
    if (has_truth_) row.truth.push_back(tag_number(tags_[static_cast<std::size_t>(known - words_.begin())]));
  }
}

// A tag's number among those of the model.
float SourceRows::tag_number(std::size_t tag) const {
  const std::vector<std::string>& tags = instruction_.output.labels;
  if (tags.empty()) return static_cast<float>(tag);
  std::string name = instructions::extraction_tags(instruction_)[tag];
  // Models that were made with B only between neighbours (IOB1) may lack it.
  if (std::find(tags.begin(), tags.end(), name) == tags.end()) name.front() = 'I';
  return static_cast<float>(std::find(tags.begin(), tags.end(), name) - tags.begin());
}

}  // namespace instruct::data
