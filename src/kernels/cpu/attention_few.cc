#include "kernels/cpu/attention_few.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_relative.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/rounding.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;
using tensor::KeyRange;

constexpr std::int64_t kStretch = 256;  // keys: enough tasks for a few threads, each long against its overhead
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

std::byte* address(const Tensor& matrix, std::int64_t row, std::int64_t column) {
  return const_cast<std::byte*>(matrix.raw()) +
         (row * matrix.row_stride() + column) * tensor::info(matrix.dtype()).block_bytes;
}

// The stored rows of keys [first, last) of a query, neighbours as one range.
std::vector<KeyRange> key_rows(const tensor::QuerySegment& segment, std::int64_t token, std::int64_t first,
                               std::int64_t last) {
  std::vector<KeyRange> rows;
  std::int64_t before = 0;  // keys in the ranges so far
  const auto visit = [&](const KeyRange& range) {
    const std::int64_t begin = range.begin + std::max(first, before) - before;
    const std::int64_t end = range.begin + std::min(last, before + range.end - range.begin) - before;
    before += range.end - range.begin;
    if (begin >= end) return;
    if (!rows.empty() && rows.back().end == begin) {
      rows.back().end = end;
    } else {
      rows.push_back({begin, end});
    }
  };
  for (const KeyRange& range : segment.visible) visit(range);
  visit({segment.self_begin, segment.self_begin + segment.own_keys_of(token - segment.begin + 1)});
  return rows;
}

}  // namespace

FewQueries::FewQueries(Stream& stream, const AttentionArgs& args, Tensor& output, Tensor& log_sum)
    : stream_(stream),
      args_(args),
      output_(output),
      log_sum_(log_sum),
      heads_(args.query.dim(1) / args.head_width),
      group_(heads_ / args.key_heads()) {}

void FewQueries::add(const tensor::QuerySegment& segment) {
  std::int64_t visible = 0;
  for (const KeyRange& range : segment.visible) visible += range.end - range.begin;
  for (std::int64_t token = segment.begin; token < segment.end; ++token) {
    const auto [first, last] = seen_columns(segment, visible, token - segment.begin, args_.window);
    const std::int64_t count = ceil_div(last - first, kStretch);
    Query query{
        .token = token, .stretches = count, .first = first, .position = visible + token - segment.begin, .parts = {}};
    if (count > 1) query.parts.resize(static_cast<std::size_t>(count * heads_ * (1 + args_.head_width)));
    last_.resize(static_cast<std::size_t>(count), kNone);
    for (std::int64_t number = 0; number < count; ++number) {
      const std::int64_t from = first + number * kStretch;
      std::vector<KeyRange> keys = key_rows(segment, token, from, std::min(last, from + kStretch));
      std::size_t& stretch = last_[static_cast<std::size_t>(number)];
      if (stretch == kNone || stretches_[stretch].keys != keys) {
        stretch = stretches_.size();
        stretches_.push_back({.first_query = queries_.size(), .queries = 0, .number = number, .keys = std::move(keys)});
      }
      ++stretches_[stretch].queries;
    }
    queries_.push_back(std::move(query));
  }
}

void FewQueries::store(std::int64_t token, std::int64_t head, float log_sum, const float* values) {
  log_sum_.data<float>()[token * heads_ + head] = log_sum;
  store_row(values, args_.head_width, output_.dtype(), address(output_, token, head * args_.head_width));
}

void FewQueries::run(std::int64_t task) {
  const std::int64_t key_heads = heads_ / group_;
  const Stretch& stretch = stretches_[static_cast<std::size_t>(task / key_heads)];
  const std::int64_t first_head = task % key_heads * group_;
  const std::int64_t rows = stretch.queries * group_;
  const std::int64_t width = args_.head_width;
  const auto scratch = stream_.allocator.allocate(rows * (1 + 2 * width + 2 * kStretch) * 4);
  auto* queries = reinterpret_cast<float*>(scratch->data);
  float* values = queries + rows * width;
  float* scores = values + rows * width;
  float* weights = scores + rows * kStretch;
  float* log_sums = weights + rows * kStretch;
  const auto query_of = [&](std::int64_t q) -> Query& {
    return queries_[stretch.first_query + static_cast<std::size_t>(q)];
  };
  for (std::int64_t q = 0; q < stretch.queries; ++q) {
    load_row(address(args_.query, query_of(q).token, first_head * width), group_ * width, args_.query.dtype(),
             queries + q * group_ * width);
  }
  const std::int64_t key_column = task % key_heads * head_columns(args_.key.dtype(), width);
  std::int64_t count = 0;
  for (const KeyRange& keys : stretch.keys) {
    score_keys(queries, rows, address(args_.key, keys.begin, key_column), args_.key.row_stride(), keys.end - keys.begin,
               width, args_.scale, args_.key.dtype(), scores + count, kStretch);
    count += keys.end - keys.begin;
  }
  const RowSpan span{.begin = 0, .end = count, .width = count};
  for (std::int64_t r = 0; r < rows; ++r) {
    cap_row(scores + r * kStretch, span, args_.soft_cap);
    if (args_.relative.defined()) {
      const Query& query = query_of(r / group_);
      add_relative(args_.relative, first_head + r % group_, query.position - query.first - stretch.number * kStretch,
                   span, scores + r * kStretch);
    }
    log_sums[r] = softmax_row(scores + r * kStretch, span, DType::kF32, weights + r * kStretch);
  }
  std::fill_n(values, rows * width, 0.0F);
  count = 0;
  for (const KeyRange& keys : stretch.keys) {
    add_weighted_values(weights + count, kStretch, rows, address(args_.value, keys.begin, key_column),
                        args_.value.row_stride(), keys.end - keys.begin, width, args_.value.dtype(), values);
    count += keys.end - keys.begin;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    Query& query = query_of(r / group_);
    const std::int64_t head = first_head + r % group_;
    if (query.parts.empty()) {
      store(query.token, head, log_sums[r], values + r * width);
      continue;
    }
    float* part = query.parts.data() + (stretch.number * heads_ + head) * (1 + width);
    part[0] = log_sums[r];
    std::copy_n(values + r * width, width, part + 1);
  }
}

void FewQueries::finish() {
  const std::int64_t size = 1 + args_.head_width;
  std::vector<float> values(static_cast<std::size_t>(args_.head_width));
  for (const Query& query : queries_) {
    if (query.parts.empty()) continue;
    const std::int64_t count = query.stretches;
    for (std::int64_t head = 0; head < heads_; ++head) {
      const auto part = [&](std::int64_t stretch) { return query.parts.data() + (stretch * heads_ + head) * size; };
      float most = *part(0);
      for (std::int64_t c = 1; c < count; ++c) most = std::max(most, *part(c));
      float sum = 0;
      for (std::int64_t c = 0; c < count; ++c) sum += std::exp(*part(c) - most);
      const float log_sum = most + std::log(sum);
      std::fill(values.begin(), values.end(), 0.0F);
      for (std::int64_t c = 0; c < count; ++c) {
        const float weight = std::exp(*part(c) - log_sum);
        add_weighted_values(&weight, 1, 1, part(c) + 1, size, 1, args_.head_width, DType::kF32, values.data());
      }
      store(query.token, head, log_sum, values.data());
    }
  }
}

}  // namespace instruct::kernels::cpu
