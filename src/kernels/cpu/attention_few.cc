#include "kernels/cpu/attention_few.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/rounding.h"

namespace instruct::kernels::cpu {
namespace {

using tensor::DType;
using tensor::KeyRange;

constexpr std::int64_t kStretch = 256;  // keys: enough tasks for a few threads, each long against its overhead

std::byte* address(const Tensor& matrix, std::int64_t row, std::int64_t column) {
  return const_cast<std::byte*>(matrix.raw()) +
         (row * matrix.row_stride() + column) * tensor::info(matrix.dtype()).block_bytes;
}

// Calls body(row, count, column) for the stored rows of keys [first, last) of a query, column counted from first.
template <typename Body>
void for_keys(const tensor::QuerySegment& segment, std::int64_t token, std::int64_t first, std::int64_t last,
              const Body& body) {
  std::int64_t before = 0;  // keys in the ranges so far
  const auto visit = [&](const KeyRange& range) {
    const std::int64_t begin = std::max(first, before);
    const std::int64_t end = std::min(last, before + range.end - range.begin);
    if (begin < end) body(range.begin + begin - before, end - begin, begin - first);
    before += range.end - range.begin;
  };
  for (const KeyRange& range : segment.visible) visit(range);
  visit({segment.self_begin, segment.self_begin + (token - segment.begin) + 1});
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
    Query query{.segment = &segment, .token = token, .last = visible + (token - segment.begin) + 1};
    if (args_.window > 0) query.first = std::max<std::int64_t>(0, query.last - args_.window);
    const std::int64_t count = stretches(query);
    if (count > 1) query.parts.resize(static_cast<std::size_t>(count * heads_ * (1 + args_.head_width)));
    for (std::int64_t stretch = 0; stretch < count; ++stretch) {
      for (std::int64_t head = 0; head < heads_ / group_; ++head) tasks_.push_back({queries_.size(), stretch, head});
    }
    queries_.push_back(std::move(query));
  }
}

std::int64_t FewQueries::stretches(const Query& query) const {
  return ceil_div(query.last - query.first, kStretch);
}

void FewQueries::store(std::int64_t token, std::int64_t head, float log_sum, const float* values) {
  log_sum_.data<float>()[token * heads_ + head] = log_sum;
  store_row(values, args_.head_width, output_.dtype(), address(output_, token, head * args_.head_width));
}

void FewQueries::run(std::int64_t task) {
  const Task& what = tasks_[static_cast<std::size_t>(task)];
  Query& query = queries_[what.query];
  const std::int64_t width = args_.head_width;
  const DType dtype = args_.query.dtype();
  const std::int64_t first = query.first + what.stretch * kStretch;
  const std::int64_t last = std::min(query.last, first + kStretch);
  const auto scratch = stream_.allocator.allocate(group_ * (1 + 2 * width + 2 * kStretch) * 4);
  auto* queries = reinterpret_cast<float*>(scratch->data);
  float* values = queries + group_ * width;
  float* scores = values + group_ * width;
  float* weights = scores + group_ * kStretch;
  float* log_sums = weights + group_ * kStretch;
  const std::int64_t first_head = what.key_head * group_;
  const std::int64_t key_column = what.key_head * head_columns(args_.key.dtype(), width);
  load_row(address(args_.query, query.token, first_head * width), group_ * width, dtype, queries);
  for_keys(*query.segment, query.token, first, last, [&](std::int64_t row, std::int64_t count, std::int64_t column) {
    score_keys(queries, group_, address(args_.key, row, key_column), args_.key.row_stride(), count, width, args_.scale,
               args_.key.dtype(), scores + column, kStretch);
  });
  const RowSpan span{.begin = 0, .end = last - first, .width = last - first};
  for (std::int64_t g = 0; g < group_; ++g)
    log_sums[g] = softmax_row(scores + g * kStretch, span, DType::kF32, weights + g * kStretch);
  std::fill_n(values, group_ * width, 0.0F);
  for_keys(*query.segment, query.token, first, last, [&](std::int64_t row, std::int64_t count, std::int64_t column) {
    add_weighted_values(weights + column, kStretch, group_, address(args_.value, row, key_column),
                        args_.value.row_stride(), count, width, args_.value.dtype(), values);
  });
  for (std::int64_t g = 0; g < group_; ++g) {
    if (query.parts.empty()) {
      store(query.token, first_head + g, log_sums[g], values + g * width);
      continue;
    }
    float* part = query.parts.data() + (what.stretch * heads_ + first_head + g) * (1 + width);
    part[0] = log_sums[g];
    std::copy_n(values + g * width, width, part + 1);
  }
}

void FewQueries::finish() {
  const std::int64_t size = 1 + args_.head_width;
  std::vector<float> values(static_cast<std::size_t>(args_.head_width));
  for (const Query& query : queries_) {
    if (query.parts.empty()) continue;
    const std::int64_t count = stretches(query);
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
