#include "data/denoise.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace instruct::data {
namespace {

// `total` as a sum of `parts` positive numbers, each way to do so as likely.
std::vector<std::int64_t> partition(std::int64_t total, std::int64_t parts, RandomStream& random) {
  std::vector<std::int64_t> ends;  // parts - 1 distinct places to cut, of total - 1 (Vitter's selection sampling)
  std::int64_t wanted = parts - 1;
  for (std::int64_t place = 1; place < total && wanted > 0; ++place) {
    if (static_cast<std::int64_t>(random.next_below(static_cast<std::uint64_t>(total - place))) >= wanted) continue;
    ends.push_back(place);
    --wanted;
  }
  ends.push_back(total);
  std::vector<std::int64_t> sizes(ends.size());
  std::adjacent_difference(ends.begin(), ends.end(), sizes.begin());
  return sizes;
}

}  // namespace

std::vector<std::int32_t> sentinels_of(const tokenizers::Tokenizer& tokenizer) {
  std::vector<std::int32_t> sentinels;
  while (const auto id = tokenizer.find("<extra_id_" + std::to_string(sentinels.size()) + ">"))
    sentinels.push_back(*id);
  if (sentinels.empty()) {
    raise(
        ErrorCategory::kUnsupported,
        "plain text is learned by leaving spans out, for which <extra_id_0> and so on stand: this tokenizer has none. "
        "Rows with a question and an answer need no such token");
  }
  return sentinels;
}

EncodedRow denoised_row(std::span<const std::int32_t> text, std::span<const std::int32_t> sentinels, std::int32_t start,
                        std::int32_t end, const DenoiseOptions& options, RandomStream random) {
  const auto length = static_cast<std::int64_t>(text.size());
  if (length < 2)
    raise(ErrorCategory::kInvalidArgument, "a text of {} tokens: spans are left out of two at least", length);
  const auto rounded = [](double value) { return static_cast<std::int64_t>(std::llround(value)); };
  const std::int64_t left_out =
      std::clamp<std::int64_t>(rounded(static_cast<double>(length) * options.rate), 1, length - 1);
  const std::int64_t spans =
      std::clamp<std::int64_t>(rounded(static_cast<double>(left_out) / options.mean_length), 1,
                               std::min({left_out, length - left_out, static_cast<std::int64_t>(sentinels.size())}));
  const std::vector<std::int64_t> out = partition(left_out, spans, random);
  const std::vector<std::int64_t> stay = partition(length - left_out, spans, random);
  EncodedRow row;
  std::vector<std::int32_t> answer{start};
  auto at = text.begin();
  for (std::size_t i = 0; i < out.size(); ++i) {
    row.tokens.insert(row.tokens.end(), at, at + stay[i]);
    at += stay[i];
    row.tokens.push_back(sentinels[i]);
    answer.push_back(sentinels[i]);
    answer.insert(answer.end(), at, at + out[i]);
    at += out[i];
  }
  row.tokens.push_back(end);
  answer.push_back(end);
  row.source = static_cast<std::int64_t>(row.tokens.size());
  row.tokens.insert(row.tokens.end(), answer.begin(), answer.end());
  row.trained.assign(row.tokens.size(), 1);
  std::fill_n(row.trained.begin(), row.source + 1, std::uint8_t{0});
  return row;
}

}  // namespace instruct::data
