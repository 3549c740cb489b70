#include "tokenizers/aligned_text.h"

namespace instruct::tokenizers {

AlignedText::Origin AlignedText::origin_of(std::size_t at) const {
  if (moved_) return origins_[at];
  const auto place = static_cast<std::uint32_t>(offset_ + at);
  return {place, place + 1};
}

TextRange AlignedText::origin(std::size_t begin, std::size_t end) const {
  if (!moved_) return {offset_ + begin, offset_ + end};
  if (begin < end) return {origins_[begin].begin, origins_[end - 1].end};
  const std::size_t place = begin < origins_.size() ? origins_[begin].begin : offset_ + source_.size();
  return {place, place};
}

AlignedText AlignedText::part(std::size_t begin, std::size_t end) const {
  const TextRange from = origin(begin, end);
  if (!changed_) return {source_.substr(begin, end - begin), from.begin};
  AlignedText result(source_.substr(from.begin - offset_, from.end - from.begin), from.begin);
  result.changed_ = true;
  result.text_ = text_.substr(begin, end - begin);
  result.moved_ = moved_;
  if (moved_) {
    result.origins_.assign(origins_.begin() + static_cast<std::ptrdiff_t>(begin),
                           origins_.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return result;
}

void AlignedText::apply(const std::vector<Edit>& edits) {
  if (edits.empty()) return;
  Writer writer(*this);
  for (const Edit& edit : edits) writer.replace(edit.begin, edit.end, edit.text);
  writer.finish();
}

void AlignedText::Writer::keep(std::size_t end) {
  written_ += old_.substr(done_, end - done_);
  if (moved_) {
    for (; done_ < end; ++done_) origins_.push_back(text_.origin_of(done_));
  }
  done_ = end;
}

// From here on each byte needs its own note; those before are where they were.
void AlignedText::Writer::note_places() {
  moved_ = true;
  origins_.reserve(old_.size() + old_.size() / 8 + 16);
  for (std::size_t at = 0; at < written_.size(); ++at) origins_.push_back(text_.origin_of(at));
}

void AlignedText::Writer::replace(std::size_t begin, std::size_t end, std::string_view put) {
  if (!changed_) written_.reserve(old_.size() + old_.size() / 8 + 16);
  changed_ = true;
  keep(begin);
  if (!moved_ && (put.size() != 1 || end != begin + 1)) note_places();
  if (moved_) {
    const bool inserted = begin == end && end < old_.size();
    const TextRange from = text_.origin(begin, end + (inserted ? 1 : 0));
    origins_.insert(origins_.end(), put.size(),
                    {static_cast<std::uint32_t>(from.begin), static_cast<std::uint32_t>(from.end)});
  }
  written_ += put;
  done_ = end;
}

void AlignedText::Writer::finish() {
  if (!changed_) return;
  if (!moved_ && text_.moved_) {
    moved_ = true;  // one for one, so the old notes hold
    origins_ = std::move(text_.origins_);
    written_ += old_.substr(done_);
  } else {
    keep(old_.size());
  }
  text_.text_ = std::move(written_);
  text_.origins_ = std::move(origins_);
  text_.moved_ = moved_;
  text_.changed_ = true;
}

}  // namespace instruct::tokenizers
