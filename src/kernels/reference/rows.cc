// Kernels that pick, add and score whole rows, plain.
#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/reference/loops.h"
#include "tensor/block_codec.h"

namespace instruct::kernels::reference {
namespace {

// One row of a matrix of any dtype, block-quantised too, as f32.
std::vector<float> decode_row(const Tensor& matrix, std::int64_t row) {
  std::vector<float> values(static_cast<std::size_t>(matrix.dim(1)));
  tensor::decode_rows(matrix, row, 1, values);
  return values;
}

}  // namespace

void cross_entropy(Stream& /*stream*/, Tensor& logits, std::int64_t vocabulary, std::span<const std::int32_t> targets,
                   std::span<const float> weights, std::span<float> log_probability, Tensor* dlogits) {
  for (std::int64_t m = 0; m < logits.dim(0); ++m) {
    const auto row = static_cast<std::size_t>(m);
    double maximum = -HUGE_VAL;
    for (std::int64_t i = 0; i < vocabulary; ++i) maximum = std::max(maximum, static_cast<double>(read(logits, m, i)));
    double sum = 0;
    for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<double>(read(logits, m, i)) - maximum);
    const double log_sum = maximum + std::log(sum);
    log_probability[row] = static_cast<float>(static_cast<double>(read(logits, m, targets[row])) - log_sum);
    if (dlogits == nullptr) continue;
    for (std::int64_t i = 0; i < logits.dim(1); ++i) {
      double gradient = i < vocabulary ? std::exp(static_cast<double>(read(logits, m, i)) - log_sum) : 0.0;
      if (i == targets[row]) gradient -= 1.0;
      write(*dlogits, m, i, static_cast<float>(static_cast<double>(weights[row]) * gradient));
    }
  }
}

void sigmoid_cross_entropy(Stream& /*stream*/, const Tensor& logits, const Tensor& truth,
                           std::span<const float> weights, std::span<float> log_probability, Tensor& dlogits) {
  for (std::int64_t m = 0; m < logits.dim(0); ++m) {
    const auto row = static_cast<std::size_t>(m);
    double sum = 0;
    for (std::int64_t i = 0; i < logits.dim(1); ++i) {
      const auto z = static_cast<double>(read(logits, m, i));
      const auto t = static_cast<double>(read(truth, m, i));
      sum -= std::log1p(std::exp(-std::abs(z))) + std::max(z, 0.0) - t * z;
      if (dlogits.defined())
        write(dlogits, m, i, static_cast<float>(static_cast<double>(weights[row]) * (1 / (1 + std::exp(-z)) - t)));
    }
    log_probability[row] = static_cast<float>(sum);
  }
}

void mean_rows(Stream& /*stream*/, const Tensor& x, std::span<const tensor::KeyRange> ranges, Tensor& y) {
  for (std::int64_t m = 0; m < y.dim(0); ++m) {
    const auto& [begin, end] = ranges[static_cast<std::size_t>(m)];
    for (std::int64_t i = 0; i < x.dim(1); ++i) {
      double sum = 0;
      for (std::int64_t t = begin; t < end; ++t) sum += static_cast<double>(read(x, t, i));
      write(y, m, i, static_cast<float>(sum / static_cast<double>(end - begin)));
    }
  }
}

void mean_rows_backward(Stream& /*stream*/, const Tensor& dy, std::span<const tensor::KeyRange> ranges, Tensor& dx) {
  for (std::int64_t m = 0; m < dy.dim(0); ++m) {
    const auto& [begin, end] = ranges[static_cast<std::size_t>(m)];
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = 0; i < dy.dim(1); ++i)
        write(dx, t, i, read(dx, t, i) + read(dy, m, i) / static_cast<float>(end - begin));
    }
  }
}

void softmax_tile(Stream& /*stream*/, const SoftmaxTile& tile) {
  for (std::int64_t m = 0; m < tile.scores.dim(0); ++m) {
    const auto row = static_cast<std::size_t>(m);
    const auto score = [&](std::int64_t i) { return static_cast<double>(read(tile.scores, m, i)); };
    double most = static_cast<double>(tile.most[row]);
    for (std::int64_t i = 0; i < tile.columns; ++i) most = std::max(most, score(i));
    const double shift = most == -HUGE_VAL ? 0.0 : most;
    const double factor = std::exp(static_cast<double>(tile.most[row]) - shift);
    double sum = tile.sum[row] * factor;
    for (std::int64_t i = 0; i < tile.scores.dim(1); ++i) {
      const double exponential = i < tile.columns ? std::exp(score(i) - shift) : 0.0;
      sum += exponential;
      Tensor exponentials = tile.exponentials;
      if (exponentials.defined()) write(exponentials, m, i, static_cast<float>(exponential));
    }
    tile.most[row] = static_cast<float>(most);
    tile.sum[row] = sum;
    Tensor totals = tile.totals;
    for (std::int64_t i = 0; totals.defined() && i < totals.dim(1); ++i) {
      write(totals, m, i, static_cast<float>(static_cast<double>(read(totals, m, i)) * factor));
    }
  }
}

void combine_rows(Stream& /*stream*/, const Tensor& x, std::span<const float> factors, const Tensor& rows,
                  std::span<const std::int32_t> ids, std::span<const float> weights, Tensor& y) {
  std::size_t next = 0;
  for (std::int64_t m = 0; m < x.dim(0); ++m) {
    const std::size_t first = next;
    while (next < ids.size() && ids[next] == m) ++next;
    for (std::int64_t j = 0; j < x.dim(1); ++j) {
      float value = factors[static_cast<std::size_t>(m)] * read(x, m, j);
      for (std::size_t i = first; i < next; ++i) value += weights[i] * read(rows, static_cast<std::int64_t>(i), j);
      write(y, m, j, value);
    }
  }
}

void keep_chosen(Stream& /*stream*/, std::span<const std::int32_t> chosen, std::span<const std::int64_t> ends,
                 Tensor& x) {
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    std::int32_t part = 0;
    for (std::int64_t c = 0; c < x.dim(1); ++c) {
      while (ends[static_cast<std::size_t>(part)] <= c) ++part;
      if (part != chosen[static_cast<std::size_t>(t)]) write(x, t, c, 0.0F);
    }
  }
}

void gather_rows(Stream& /*stream*/, const Tensor& table, std::span<const std::int32_t> ids, Tensor& y) {
  for (std::int64_t t = 0; t < y.dim(0); ++t) {
    const std::vector<float> row = decode_row(table, ids[static_cast<std::size_t>(t)]);
    for (std::int64_t i = 0; i < y.dim(1); ++i) write(y, t, i, row[static_cast<std::size_t>(i)]);
  }
}

void scatter_add_rows(Stream& /*stream*/, const Tensor& x, std::span<const std::int32_t> ids, Tensor& table) {
  for (std::int64_t t = 0; t < x.dim(0); ++t) {
    const std::int64_t row = ids[static_cast<std::size_t>(t)];
    for (std::int64_t i = 0; i < x.dim(1); ++i) write(table, row, i, read(table, row, i) + read(x, t, i));
  }
}

void dequantise_rows(Stream& /*stream*/, const Tensor& source, std::int64_t first_row, Tensor& y) {
  for (std::int64_t t = 0; t < y.dim(0); ++t) {
    const std::vector<float> row = decode_row(source, first_row + t);
    for (std::int64_t i = 0; i < y.dim(1); ++i) write(y, t, i, row[static_cast<std::size_t>(i)]);
  }
}

}  // namespace instruct::kernels::reference
