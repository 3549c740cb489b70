// Attention over key ranges, plain: the softmax of each query and head is written out over the list of its keys.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {
namespace {

// What the softmax is taken of, and its slope.
struct Score {
  double value = 0;
  double slope = 1;
};
Score capped(double score, double cap) {
  if (cap == 0) return {score, 1};
  const double share = std::tanh(score / cap);
  return {cap * share, 1 - share * share};
}

// A key that a query sees, and how many positions behind it that is; before it where negative.
struct SeenKey {
  std::int64_t row = 0;
  std::int64_t distance = 0;
};

// Column of AttentionArgs::relative for a distance.
std::int64_t relative_column(const Tensor& relative, std::int64_t distance) {
  const std::int64_t most = relative.dim(1) / 2;
  return most + std::clamp(distance, -most, most);
}

// What is added to a score.
double bias_of(const AttentionArgs& args, std::int64_t head, const SeenKey& key) {
  if (!args.relative.defined()) return 0;
  return static_cast<double>(read(args.relative, head, relative_column(args.relative, key.distance)));
}

// Keys that query `t` of a segment sees, in order of position; the sliding window keeps those less than `window` away.
std::vector<SeenKey> visible_keys(const tensor::QuerySegment& segment, std::int64_t t, std::int64_t window) {
  std::vector<std::int64_t> keys;
  for (const tensor::KeyRange& range : segment.visible) {
    for (std::int64_t key = range.begin; key < range.end; ++key) keys.push_back(key);
  }
  const auto position = static_cast<std::int64_t>(keys.size()) + t - segment.begin;  // of the query itself
  std::int64_t own = 0;
  if (segment.own == tensor::OwnKeys::kCausal) own = t - segment.begin + 1;
  if (segment.own == tensor::OwnKeys::kWhole) own = segment.end - segment.begin;
  for (std::int64_t i = 0; i < own; ++i) keys.push_back(segment.self_begin + i);
  std::vector<SeenKey> seen;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(keys.size()); ++i) {
    if (window == 0 || std::abs(i - position) < window)
      seen.push_back({.row = keys[static_cast<std::size_t>(i)], .distance = i - position});
  }
  return seen;
}

// Dot product of `width` elements at column offsets of two rows.
double dot(const Tensor& a, std::int64_t row_a, std::int64_t column_a, const Tensor& b, std::int64_t row_b,
           std::int64_t column_b, std::int64_t width) {
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    sum += static_cast<double>(read(a, row_a, column_a + i)) * static_cast<double>(read(b, row_b, column_b + i));
  }
  return sum;
}

// Element i of the head that starts at `column` of a row of keys or values.
double head_element(const Tensor& rows, std::int64_t row, std::int64_t column, std::int64_t i, std::int64_t width) {
  if (rows.dtype() != DType::kI8) return static_cast<double>(read(rows, row, column + i));
  const std::int8_t* head = rows.data<std::int8_t>() + row * rows.row_stride() + column;
  float scale = 0;
  std::memcpy(&scale, head + width, sizeof(scale));
  return static_cast<double>(scale) * head[i];
}

// Calls body(t, query column, key column, head, keys) for every query and head.
template <typename Body>
void for_each_query(const AttentionArgs& args, Body&& body) {
  const std::int64_t width = args.head_width;
  const std::int64_t heads = args.query.dim(1) / width;
  const std::int64_t group = heads / args.key_heads();  // H/G query heads read one key head
  const std::int64_t columns = head_columns(args.key.dtype(), width);
  for (const tensor::QuerySegment& segment : args.plan->queries) {
    for (std::int64_t t = segment.begin; t < segment.end; ++t) {
      const std::vector<SeenKey> keys = visible_keys(segment, t, args.window);
      for (std::int64_t head = 0; head < heads; ++head) body(t, head * width, head / group * columns, head, keys);
    }
  }
}

}  // namespace

void store_heads(Stream& /*stream*/, const Tensor& x, std::span<const std::int32_t> slots, std::int64_t head_width,
                 Tensor& rows) {
  const std::int64_t columns = head_columns(rows.dtype(), head_width);
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    const std::int64_t slot = slots[static_cast<std::size_t>(t)];
    for (std::int64_t first = 0; first < x.dim(1); first += head_width) {
      const std::int64_t column = first / head_width * columns;
      if (rows.dtype() != DType::kI8) {
        for (std::int64_t i = 0; i < head_width; ++i) write(rows, slot, column + i, read(x, t, first + i));
        continue;
      }
      std::int8_t* head = rows.data<std::int8_t>() + slot * rows.row_stride() + column;
      float most = 0;
      bool finite = true;
      for (std::int64_t i = 0; i < head_width; ++i) {
        most = std::max(most, std::abs(read(x, t, first + i)));
        finite = finite && std::isfinite(read(x, t, first + i));
      }
      const float scale = finite ? most / 127 : NAN;
      for (std::int64_t i = 0; i < head_width; ++i) {
        const float q = finite && most > 0 ? std::nearbyint(read(x, t, first + i) * (127 / most)) : 0.0F;
        head[i] = static_cast<std::int8_t>(std::clamp(q, -127.0F, 127.0F));
      }
      std::memcpy(head + head_width, &scale, sizeof(scale));
    }
  }
}

void attention(Stream& /*stream*/, const AttentionArgs& args, Tensor& output, Tensor& log_sum) {
  const std::int64_t width = args.head_width;
  for_each_query(args, [&](std::int64_t t, std::int64_t column, std::int64_t key_column, std::int64_t head,
                           const std::vector<SeenKey>& keys) {
    std::vector<double> scores;
    for (const SeenKey& key : keys) {
      double sum = 0;
      for (std::int64_t i = 0; i < width; ++i) {
        sum += static_cast<double>(read(args.query, t, column + i)) *
               head_element(args.key, key.row, key_column, i, width);
      }
      scores.push_back(capped(static_cast<double>(args.scale) * sum, static_cast<double>(args.soft_cap)).value +
                       bias_of(args, head, key));
    }
    const double maximum = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    std::vector<double> mixed(static_cast<std::size_t>(width), 0.0);
    for (std::size_t k = 0; k < keys.size(); ++k) {
      const double p = std::exp(scores[k] - maximum);
      sum += p;
      for (std::int64_t i = 0; i < width; ++i) {
        mixed[static_cast<std::size_t>(i)] += p * head_element(args.value, keys[k].row, key_column, i, width);
      }
    }
    for (std::int64_t i = 0; i < width; ++i) {
      write(output, t, column + i, static_cast<float>(mixed[static_cast<std::size_t>(i)] / sum));
    }
    write(log_sum, t, head, static_cast<float>(maximum + std::log(sum)));
  });
}

// With s = scale q.k, p = exp(s - log_sum), o = sum_k p_k v_k:
//   dv_k += p_k do,  ds_k = p_k (do.v_k - do.o),  dq += scale ds_k k,  dk += scale ds_k q,
// ds_k times the slope of the cap where there is one; the gradient of a bias is the sum of ds_k over where it was
// added. p is recomputed from log_sum and do.o from the kept output, so no attention matrix is stored.
void attention_backward(Stream& /*stream*/, const AttentionArgs& args, const Tensor& output, const Tensor& log_sum,
                        const Tensor& doutput, Tensor& dquery, Tensor& dkey, Tensor& dvalue, Tensor* drelative) {
  const std::int64_t width = args.head_width;
  const std::int64_t key_width = args.key.dim(1);
  const auto scale = static_cast<double>(args.scale);
  std::vector<double> key_gradient(static_cast<std::size_t>(args.key.elements()), 0.0);
  std::vector<double> value_gradient(key_gradient);
  std::vector<double> bias_gradient(drelative != nullptr ? static_cast<std::size_t>(drelative->elements()) : 0, 0.0);
  for_each_query(args, [&](std::int64_t t, std::int64_t column, std::int64_t key_column, std::int64_t head,
                           const std::vector<SeenKey>& keys) {
    const double delta = dot(doutput, t, column, output, t, column, width);
    std::vector<double> query_gradient(static_cast<std::size_t>(width), 0.0);
    for (const auto& [key, distance] : keys) {
      const Score score = capped(scale * dot(args.query, t, column, args.key, key, key_column, width),
                                 static_cast<double>(args.soft_cap));
      const double bias = bias_of(args, head, {key, distance});
      const double p = std::exp(score.value + bias - static_cast<double>(read(log_sum, t, head)));
      const double dscore = p * (dot(doutput, t, column, args.value, key, key_column, width) - delta);
      const double ds = scale * score.slope * dscore;
      if (drelative != nullptr) {
        const std::int64_t at = head * drelative->dim(1) + relative_column(*drelative, distance);
        bias_gradient[static_cast<std::size_t>(at)] += dscore;
      }
      for (std::int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<std::size_t>(key * key_width + key_column + i);
        value_gradient[at] += p * static_cast<double>(read(doutput, t, column + i));
        key_gradient[at] += ds * static_cast<double>(read(args.query, t, column + i));
        query_gradient[static_cast<std::size_t>(i)] += ds * static_cast<double>(read(args.key, key, key_column + i));
      }
    }
    for (std::int64_t i = 0; i < width; ++i) {
      write(dquery, t, column + i, static_cast<float>(query_gradient[static_cast<std::size_t>(i)]));
    }
  });
  for_each_element(dkey, [&](std::int64_t s, std::int64_t i) {
    const auto at = static_cast<std::size_t>(s * key_width + i);
    write(dkey, s, i, static_cast<float>(key_gradient[at]));
    write(dvalue, s, i, static_cast<float>(value_gradient[at]));
  });
  for (std::size_t i = 0; i < bias_gradient.size(); ++i)
    drelative->data<float>()[i] = static_cast<float>(bias_gradient[i]);
}

}  // namespace instruct::kernels::reference
