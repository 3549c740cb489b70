// Kernels that pick, add and score whole rows, with Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"
#include "tensor/block_codec.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

float maximum_of(const float* x, std::int64_t size) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto most0 = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto most1 = most0;
  std::int64_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    most0 = hn::Max(most0, hn::LoadU(d, x + i));
    most1 = hn::Max(most1, hn::LoadU(d, x + i + lanes));
  }
  float most = hn::GetLane(hn::MaxOfLanes(d, hn::Max(most0, most1)));
  for (; i < size; ++i) most = std::max(most, x[i]);
  return most;
}

// Sum of e^(x - shift). f32 over short stretches, double over the whole: the relative error stays near that of one exp.
double sum_of_exp(const float* x, float shift, std::int64_t size) {
  const hn::ScalableTag<float> any;
  const std::int64_t stretch = 16 * static_cast<std::int64_t>(hn::Lanes(any));
  double sum = 0;
  for (std::int64_t at = 0; at < size; at += stretch) {
    const float* from = x + at;
    sum +=
        static_cast<double>(sum_lanes(std::min(stretch, size - at), [&](auto d, std::int64_t i, auto partial) HWY_ATTR {
          return hn::Add(partial, exp(d, hn::Sub(load(d, from + i), hn::Set(d, shift))));
        }));
  }
  return sum;
}

double log_sum_exp_of(const float* x, std::int64_t size) {
  const float most = maximum_of(x, size);
  return static_cast<double>(most) + std::log(sum_of_exp(x, most, size));
}

// gradient = scale e^(x - shift) over the vocabulary, minus weight at the target, zero in the columns beyond.
template <class Y>
void write_gradient(const float* x, float shift, float scale, std::int64_t vocabulary, std::int64_t width,
                    std::int64_t target, float weight, Y* gradient) {
  const float at_target = scale * std::exp(x[target] - shift) - weight;
  for_lanes(vocabulary, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto p = exp(d, hn::Sub(load(d, x + i), hn::Set(d, shift)));
    store(d, hn::Mul(p, hn::Set(d, scale)), gradient + i);
  });
  const hn::CappedTag<float, 1> one;
  for (std::int64_t i = vocabulary; i < width; ++i) store(one, hn::Zero(one), gradient + i);
  store(one, hn::Set(one, at_target), gradient + target);
}

void cross_entropy_all(Stream& stream, Tensor& logits, std::int64_t vocabulary, std::span<const std::int32_t> targets,
                       std::span<const float> weights, std::span<float> log_probability, Tensor* dlogits) {
  const float* data = logits.data<float>();
  stream.threads.run(logits.dim(0), [&](std::int64_t m) HWY_ATTR {
    const auto row = static_cast<std::size_t>(m);
    const float* x = data + m * logits.row_stride();
    const std::int64_t target = targets[row];
    const float most = maximum_of(x, vocabulary);
    const double sum = sum_of_exp(x, most, vocabulary);
    const double shifted = static_cast<double>(x[target]) - static_cast<double>(most);
    log_probability[row] = static_cast<float>(shifted - std::log(sum));
    if (dlogits == nullptr) return;
    const auto scale = static_cast<float>(static_cast<double>(weights[row]) / sum);
    visit_dtype(dlogits->dtype(), [&](auto type) HWY_ATTR {
      auto* gradient = dlogits->data<decltype(type)>() + m * dlogits->row_stride();
      write_gradient(x, most, scale, vocabulary, logits.dim(1), target, weights[row], gradient);
    });
  });
}

// log(1 + e^-|z|) + max(z, 0) - t z by columns, summed in double; |z| is where the first cannot overflow.
void sigmoid_cross_entropy_all(Stream& stream, const Tensor& logits, const Tensor& truth,
                               std::span<const float> weights, std::span<float> log_probability, Tensor& dlogits) {
  for_row_ranges(stream, logits.dim(0), logits.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t m = begin; m < end; ++m) {
      const float* z = logits.data<float>() + m * logits.row_stride();
      const float* t = truth.data<float>() + m * truth.row_stride();
      const float weight = weights[static_cast<std::size_t>(m)];
      double sum = 0;
      for (std::int64_t i = 0; i < logits.dim(1); ++i) {
        const auto score = static_cast<double>(z[i]);
        sum -= std::log1p(std::exp(-std::abs(score))) + std::max(score, 0.0) - static_cast<double>(t[i]) * score;
      }
      log_probability[static_cast<std::size_t>(m)] = static_cast<float>(sum);
      if (!dlogits.defined()) continue;
      float* gradient = dlogits.data<float>() + m * dlogits.row_stride();
      for_lanes(logits.dim(1), [&](auto d, std::int64_t i) HWY_ATTR {
        const auto off = hn::Sub(sigmoid(d, load(d, z + i)), load(d, t + i));
        store(d, hn::Mul(hn::Set(d, weight), off), gradient + i);
      });
    }
  });
}

void mean_rows_all(Stream& stream, const Tensor& x, std::span<const tensor::KeyRange> ranges, Tensor& y) {
  const std::int64_t width = x.dim(1);
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    stream.threads.run_ranges(y.dim(0), 4, [&](std::int64_t first, std::int64_t last) HWY_ATTR {
      for (std::int64_t m = first; m < last; ++m) {
        const auto [begin, end] = ranges[static_cast<std::size_t>(m)];
        const X* from = x.data<X>() + begin * x.row_stride();
        const float share = 1.0F / static_cast<float>(end - begin);
        for_lanes(width, [&, count = end - begin](auto d, std::int64_t i) HWY_ATTR {
          auto sum = hn::Zero(d);
          for (std::int64_t t = 0; t < count; ++t) sum = hn::Add(sum, load(d, from + t * x.row_stride() + i));
          store(d, hn::Mul(sum, hn::Set(d, share)), y.data<X>() + m * y.row_stride() + i);
        });
      }
    });
  });
}

void mean_rows_backward_all(Stream& stream, const Tensor& dy, std::span<const tensor::KeyRange> ranges, Tensor& dx) {
  const std::int64_t width = dy.dim(1);
  visit_dtype(dy.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    stream.threads.run_ranges(dy.dim(0), 4, [&](std::int64_t first, std::int64_t last) HWY_ATTR {
      for (std::int64_t m = first; m < last; ++m) {
        const auto [begin, end] = ranges[static_cast<std::size_t>(m)];
        const X* gradient = dy.data<X>() + m * dy.row_stride();
        const float share = 1.0F / static_cast<float>(end - begin);
        for (std::int64_t t = begin; t < end; ++t) {
          X* row = dx.data<X>() + t * dx.row_stride();
          for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR {
            store(d, hn::MulAdd(load(d, gradient + i), hn::Set(d, share), load(d, row + i)), row + i);
          });
        }
      }
    });
  });
}

// e^(x - shift) of one row into y, zeros behind `size`; returns their sum, summed as sum_of_exp does. y may be x.
template <class Y>
double write_exponentials(const float* x, float shift, std::int64_t size, std::int64_t width, Y* y) {
  const hn::ScalableTag<float> any;
  const std::int64_t stretch = 16 * static_cast<std::int64_t>(hn::Lanes(any));
  double sum = 0;
  for (std::int64_t at = 0; at < size; at += stretch) {
    const float* from = x + at;
    Y* to = y + at;
    sum +=
        static_cast<double>(sum_lanes(std::min(stretch, size - at), [&](auto d, std::int64_t i, auto partial) HWY_ATTR {
          const auto e = exp(d, hn::Sub(load(d, from + i), hn::Set(d, shift)));
          store(d, e, to + i);
          return hn::Add(partial, e);
        }));
  }
  const hn::CappedTag<float, 1> one;
  for (std::int64_t i = size; i < width; ++i) store(one, hn::Zero(one), y + i);
  return sum;
}

void softmax_tile_row(const SoftmaxTile& tile, std::int64_t m) {
  const auto row = static_cast<std::size_t>(m);
  const float* x = tile.scores.data<float>() + m * tile.scores.row_stride();
  const float before = tile.most[row];
  const float most = std::max(before, maximum_of(x, tile.columns));
  const float shift = most == -std::numeric_limits<float>::infinity() ? 0.0F : most;
  double sum = 0;
  if (tile.exponentials.defined()) {
    visit_dtype(tile.exponentials.dtype(), [&](auto type) HWY_ATTR {
      Tensor exponentials = tile.exponentials;
      auto* y = exponentials.data<decltype(type)>() + m * exponentials.row_stride();
      sum = write_exponentials(x, shift, tile.columns, tile.scores.dim(1), y);
    });
  } else {
    sum = sum_of_exp(x, shift, tile.columns);
  }
  const float factor = std::exp(before - shift);
  tile.sum[row] = tile.sum[row] * static_cast<double>(factor) + sum;
  tile.most[row] = most;
  if (!tile.totals.defined() || most == before) return;
  Tensor totals = tile.totals;
  float* total = totals.data<float>() + m * totals.row_stride();
  for_lanes(totals.dim(1), [&](auto d, std::int64_t i)
                               HWY_ATTR { store(d, hn::Mul(load(d, total + i), hn::Set(d, factor)), total + i); });
}

void softmax_tile_all(Stream& stream, const SoftmaxTile& tile) {
  for_row_ranges(stream, tile.scores.dim(0), tile.scores.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t m = begin; m < end; ++m) softmax_tile_row(tile, m);
  });
}

void combine_all(Stream& stream, const Tensor& x, std::span<const float> factors, const Tensor& rows,
                 std::span<const std::int32_t> ids, std::span<const float> weights, Tensor& y) {
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    auto* out = y.data<decltype(type)>();
    for_row_ranges(stream, x.dim(0), x.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      auto first = std::lower_bound(ids.begin(), ids.end(), begin);
      for (std::int64_t m = begin; m < end; ++m) {
        const auto last = std::upper_bound(first, ids.end(), m);
        const float* from = x.data<float>() + m * x.row_stride();
        for_lanes(x.dim(1), [&](auto d, std::int64_t j) HWY_ATTR {
          auto value = hn::Mul(hn::Set(d, factors[static_cast<std::size_t>(m)]), load(d, from + j));
          for (auto id = first; id != last; ++id) {
            const auto i = id - ids.begin();
            value = hn::MulAdd(hn::Set(d, weights[static_cast<std::size_t>(i)]),
                               load(d, rows.data<float>() + i * rows.row_stride() + j), value);
          }
          store(d, value, out + m * y.row_stride() + j);
        });
        first = last;
      }
    });
  });
}

template <class X, class Y>
void convert_row(const X* x, std::int64_t width, Y* y) {
  for_lanes(width, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, x + i), y + i); });
}

// Writes row `row` of a matrix of any dtype to y; `decoded` is scratch for types that are decoded first.
template <class Y>
void copy_row(const Tensor& matrix, std::int64_t row, std::vector<float>& decoded, Y* y) {
  const std::int64_t width = matrix.dim(1);
  if (matrix.dtype() == DType::kF32) {
    convert_row(matrix.data<float>() + row * matrix.row_stride(), width, y);
  } else if (matrix.dtype() == DType::kBF16) {
    convert_row(matrix.data<BFloat16>() + row * matrix.row_stride(), width, y);
  } else {
    decoded.resize(static_cast<std::size_t>(width));
    tensor::decode_rows(matrix, row, 1, decoded);
    convert_row(decoded.data(), width, y);
  }
}

// y[t] = matrix[row_of(t)].
template <class RowOf>
void copy_rows(Stream& stream, const Tensor& matrix, Tensor& y, RowOf&& row_of) {
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    auto* out = y.data<decltype(type)>();
    for_row_ranges(stream, y.dim(0), y.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      std::vector<float> decoded;
      for (std::int64_t t = begin; t < end; ++t) copy_row(matrix, row_of(t), decoded, out + t * y.row_stride());
    });
  });
}

void gather_all(Stream& stream, const Tensor& table, std::span<const std::int32_t> ids, Tensor& y) {
  copy_rows(stream, table, y, [&](std::int64_t t) -> std::int64_t { return ids[static_cast<std::size_t>(t)]; });
}

void dequantise_all(Stream& stream, const Tensor& source, std::int64_t first_row, Tensor& y) {
  copy_rows(stream, source, y, [&](std::int64_t t) { return first_row + t; });
}

// Tasks own columns, so repeated ids add up in order of t whatever the number of threads.
void scatter_all(Stream& stream, const Tensor& x, std::span<const std::int32_t> ids, Tensor& table) {
  constexpr std::int64_t kColumns = 128;
  visit_dtype(x.dtype(), [&](auto x_type) HWY_ATTR {
    visit_dtype(table.dtype(), [&](auto table_type) HWY_ATTR {
      const auto* in = x.data<decltype(x_type)>();
      auto* out = table.data<decltype(table_type)>();
      stream.threads.run_ranges(x.dim(1), kColumns, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
        for (std::int64_t t = 0; t < x.dim(0); ++t) {
          const auto* from = in + t * x.row_stride() + begin;
          auto* to = out + ids[static_cast<std::size_t>(t)] * table.row_stride() + begin;
          for_lanes(end - begin, [&](auto d, std::int64_t i)
                                     HWY_ATTR { store(d, hn::Add(load(d, to + i), load(d, from + i)), to + i); });
        }
      });
    });
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(maximum_of);
HWY_EXPORT(log_sum_exp_of);
HWY_EXPORT(cross_entropy_all);
HWY_EXPORT(sigmoid_cross_entropy_all);
HWY_EXPORT(mean_rows_all);
HWY_EXPORT(mean_rows_backward_all);
HWY_EXPORT(softmax_tile_all);
HWY_EXPORT(combine_all);
HWY_EXPORT(gather_all);
HWY_EXPORT(scatter_all);
HWY_EXPORT(dequantise_all);

float maximum(std::span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(maximum_of)(values.data(), static_cast<std::int64_t>(values.size()));
}

double log_sum_exp(std::span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(log_sum_exp_of)(values.data(), static_cast<std::int64_t>(values.size()));
}

void cross_entropy(Stream& stream, Tensor& logits, std::int64_t vocabulary, std::span<const std::int32_t> targets,
                   std::span<const float> weights, std::span<float> log_probability, Tensor* dlogits) {
  HWY_DYNAMIC_DISPATCH(cross_entropy_all)(stream, logits, vocabulary, targets, weights, log_probability, dlogits);
}

void sigmoid_cross_entropy(Stream& stream, const Tensor& logits, const Tensor& truth, std::span<const float> weights,
                           std::span<float> log_probability, Tensor& dlogits) {
  HWY_DYNAMIC_DISPATCH(sigmoid_cross_entropy_all)(stream, logits, truth, weights, log_probability, dlogits);
}

void mean_rows(Stream& stream, const Tensor& x, std::span<const tensor::KeyRange> ranges, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(mean_rows_all)(stream, x, ranges, y);
}

void mean_rows_backward(Stream& stream, const Tensor& dy, std::span<const tensor::KeyRange> ranges, Tensor& dx) {
  HWY_DYNAMIC_DISPATCH(mean_rows_backward_all)(stream, dy, ranges, dx);
}

void softmax_tile(Stream& stream, const SoftmaxTile& tile) {
  HWY_DYNAMIC_DISPATCH(softmax_tile_all)(stream, tile);
}

void combine_rows(Stream& stream, const Tensor& x, std::span<const float> factors, const Tensor& rows,
                  std::span<const std::int32_t> ids, std::span<const float> weights, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(combine_all)(stream, x, factors, rows, ids, weights, y);
}

void keep_chosen(Stream& stream, std::span<const std::int32_t> chosen, std::span<const std::int64_t> ends, Tensor& x) {
  const std::int64_t element = tensor::bytes_of(x.dtype(), 1);
  const auto clear = [&](std::int64_t row, std::int64_t first, std::int64_t last) {
    std::memset(x.raw() + (row * x.row_stride() + first) * element, 0,
                static_cast<std::size_t>((last - first) * element));
  };
  stream.threads.run_ranges(x.dim(0), 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int32_t part = chosen[static_cast<std::size_t>(t)];
      const bool any = part >= 0 && part < static_cast<std::int32_t>(ends.size());
      const std::int64_t first = any && part > 0 ? ends[static_cast<std::size_t>(part) - 1] : 0;
      clear(t, 0, first);
      clear(t, any ? ends[static_cast<std::size_t>(part)] : 0, x.dim(1));
    }
  });
}

void gather_rows(Stream& stream, const Tensor& table, std::span<const std::int32_t> ids, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(gather_all)(stream, table, ids, y);
}

void scatter_add_rows(Stream& stream, const Tensor& x, std::span<const std::int32_t> ids, Tensor& table) {
  HWY_DYNAMIC_DISPATCH(scatter_all)(stream, x, ids, table);
}

void dequantise_rows(Stream& stream, const Tensor& source, std::int64_t first_row, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(dequantise_all)(stream, source, first_row, y);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
