// Rows of spans and of extraction, whole or as windows over the text that their parts are of. Internal to this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/text_rows.h"
#include "data/wording.h"

namespace instruct::data {

// Whether the verb's outputs are parts of a text.
bool is_part_of_source(const instructions::Instruction& instruction);

class SourceRows {
 public:
  // All must outlive the object. Raises BadData for an output whose parts are not in the text, or do not begin and end
  // with tokens (a span) or words (extraction), and where the template does not hold the text word for word.
  SourceRows(const tokenizers::Tokenizer& tokenizer, const instructions::Instruction& instruction,
             const Example& example, const Worded& worded, const Texts& texts);

  // Of these tokens of the texts. A span that is not among them has no row; neither has a text without a word.
  std::vector<TextRow> whole(const Texts& texts) const;
  // Of at most `cutoff` tokens each.
  std::vector<TextRow> windows(std::size_t cutoff) const;

 private:
  bool is_span() const { return instruction_.output.type == instructions::OutputType::kSpan; }
  std::size_t byte_of(std::size_t token) const;
  TextRow row_of(const Texts& texts, const ByteRange& own) const;
  void add_span(TextRow& row, const std::vector<SourceToken>& found, const std::vector<std::size_t>& numbers) const;
  void add_tags(TextRow& row, const std::vector<SourceToken>& found, const std::vector<std::size_t>& numbers,
                const ByteRange& own) const;
  float tag_number(std::size_t tag) const;

  const tokenizers::Tokenizer& tokenizer_;
  const instructions::Instruction& instruction_;
  const Worded& worded_;
  const Texts& texts_;
  std::shared_ptr<const std::string> source_;
  SourcePlace place_;
  std::vector<SourceToken> tokens_, words_;
  bool has_truth_ = false;
  ByteRange answer_;
  std::vector<std::size_t> tags_;
};

}  // namespace instruct::data
