#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "ops/dispatch.h"
#include "ops/rows.h"

namespace instruct::ops {
namespace {

using kernels::Accumulate;
using kernels::Matmul;
using kernels::Transpose;

constexpr std::int64_t kLogitBytes = 40 << 20;  // at most this much for the logits of whole rows
constexpr std::int64_t kTileBytes = 8 << 20;    // for those of a tile: what the caches hold
constexpr std::int64_t kTileColumns = 1024;     // outputs of a tile; a quantised weight is converted by these

// Rows [row, end) of a weight, as they are or converted to `dtype`.
Tensor weight_rows(const Context& context, const Tensor& weight, std::int64_t row, std::int64_t end, DType dtype) {
  if (weight.dtype() == dtype) return weight.rows(row, end);
  Tensor tile = Tensor::empty({end - row, weight.dim(1)}, dtype, context.allocator());
  INSTRUCT_KERNEL(dequantise_rows)(context, weight, row, tile);
  return tile;
}

void integer_product(const Context& context, const Tensor& x, const kernels::IntegerWeight& weight,
                     kernels::ActivationBits bits, const Tensor& result) {
  const kernels::IntegerMatmul product{.weight = &weight, .result = result};
  INSTRUCT_KERNEL(integer_matmul)(context, x, bits, std::span(&product, 1));
}

void finish_logits(const Context& context, const LogitOptions& options, Tensor& logits) {
  if (options.bias.defined()) INSTRUCT_KERNEL(add_bias)(context, options.bias.value(), logits);
  if (options.soft_cap > 0) INSTRUCT_KERNEL(soft_cap)(context, options.soft_cap, logits);
}

// How many rows have logits that fit.
std::int64_t fitting_rows(std::int64_t bytes, std::int64_t columns) {
  return std::max<std::int64_t>(16, bytes / (4 * columns) / 16 * 16);
}

// One prediction of a row of x, or several equal ones.
struct Aim {
  std::int32_t row = 0;
  std::int32_t target = 0;
  float weight = 0;
  float logit = 0;
};

// Distinct (row, target) by row, and where each prediction is among them.
struct Aims {
  explicit Aims(const Predictions& predictions) : place(predictions.targets.size()) {
    std::vector<std::size_t> order(place.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto key = [&](std::size_t i) { return std::pair(predictions.row(i), predictions.targets[i]); };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
    for (const std::size_t i : order) {
      if (all.empty() || std::pair(all.back().row, all.back().target) != key(i))
        all.push_back({.row = predictions.row(i), .target = predictions.targets[i]});
      all.back().weight += predictions.weights[i];
      place[i] = all.size() - 1;
    }
  }

  std::vector<Aim> all;
  std::vector<std::size_t> place;
};

// Cross-entropy over a weight and a bias that get no gradient. The logits exist for one tile of the vocabulary at a
// time, in the caches, and each tile of the weight is read once for both products:
//   dx[m] = w[m] sum_v p[v] weight[v] - sum over targets t of w[t] weight[t],  w[m] = sum of the row's w[t].
// The sum is taken with e^(logit - largest so far) in p's place and scaled when the tiles are done. Targets are left
// out of it: their p - 1 is computed in f32, since where p is near 1 its rounding would be all of the gradient.
class Tiled {
 public:
  Tiled(const Context& context, const Tensor& x, const Tensor& weight, std::int64_t vocabulary,
        const IntegerForms* integer, const LogitOptions& options, const Tensor& dx)
      : context_(context),
        x_(x),
        weight_(weight),
        bias_(options.bias.defined() ? options.bias.value() : Tensor()),
        vocabulary_(vocabulary),
        integer_(integer),
        soft_cap_(options.soft_cap),
        columns_(integer != nullptr ? weight.dim(0) : std::min(kTileColumns, weight.dim(0))),
        dx_(dx) {}

  // Log-probabilities of the aims.
  std::vector<float> run(std::vector<Aim>& aims) {
    std::vector<float> result;
    const std::int64_t fit = fitting_rows(integer_ != nullptr ? kLogitBytes : kTileBytes, columns_);
    auto first = aims.begin();
    for (std::int64_t begin = 0; begin < x_.dim(0); begin += fit) {
      const std::int64_t end = std::min(begin + fit, x_.dim(0));
      const auto last = std::find_if(first, aims.end(), [&](const Aim& aim) { return aim.row >= end; });
      chunk(begin, end, {first, last}, result);
      first = last;
    }
    return result;
  }

 private:
  // Rows [begin, end) of x with their aims.
  void chunk(std::int64_t begin, std::int64_t end, std::span<Aim> aims, std::vector<float>& result) {
    const std::int64_t rows = end - begin;
    most_.assign(static_cast<std::size_t>(rows), -std::numeric_limits<float>::infinity());
    sum_.assign(static_cast<std::size_t>(rows), 0.0);
    scores_ = Tensor::empty({rows, columns_}, DType::kF32, context_.allocator());
    if (dx_.defined()) {
      totals_ = Tensor::empty({rows, x_.dim(1)}, DType::kF32, context_.allocator());
      // In the scores' place, unless the slope of the cap asks for these again.
      const bool in_place = x_.dtype() == DType::kF32 && soft_cap_ == 0;
      exponentials_ = in_place ? scores_ : Tensor::empty(scores_.shape(), x_.dtype(), context_.allocator());
    }
    for (std::int64_t column = 0; column < vocabulary_; column += columns_) tile(begin, column, aims);
    finish(begin, aims, result);
  }

  void tile(std::int64_t begin, std::int64_t column, std::span<Aim> aims) {
    const std::int64_t end = std::min(column + columns_, weight_.dim(0));
    const std::int64_t width = end - column;
    const Tensor x = x_.rows(begin, begin + scores_.dim(0));
    Tensor scores = scores_.columns(0, width);
    const bool first = column == 0;
    Tensor weight;
    if (integer_ != nullptr) {
      integer_product(context_, x, *integer_->forward, integer_->bits, scores);
    } else {
      weight = weight_rows(context_, weight_, column, end, x_.dtype());
      INSTRUCT_KERNEL(matmul)(context_, Matmul{.a = x, .b = weight, .c = scores, .transpose_b = Transpose::kYes});
    }
    if (bias_.defined()) INSTRUCT_KERNEL(add_bias)(context_, bias_.rows(column, end), scores);
    if (soft_cap_ > 0) INSTRUCT_KERNEL(soft_cap)(context_, soft_cap_, scores);
    for (Aim& aim : aims) {
      if (aim.target < column || aim.target >= end) continue;
      float& score = scores_.data<float>()[(aim.row - begin) * scores_.row_stride() + aim.target - column];
      aim.logit = std::exchange(score, -std::numeric_limits<float>::infinity());
    }
    kernels::SoftmaxTile softmax{
        .scores = scores, .columns = std::min(width, vocabulary_ - column), .most = most_, .sum = sum_};
    if (dx_.defined()) softmax.exponentials = exponentials_.columns(0, width);
    if (dx_.defined() && !first) softmax.totals = totals_;
    INSTRUCT_KERNEL(softmax_tile)(context_, softmax);
    if (!dx_.defined()) return;
    if (soft_cap_ > 0) INSTRUCT_KERNEL(soft_cap_backward)(context_, soft_cap_, scores, softmax.exponentials);
    if (integer_ != nullptr) {
      integer_product(context_, softmax.exponentials, *integer_->transposed, integer_->bits, totals_);
    } else {
      INSTRUCT_KERNEL(matmul)
      (context_, Matmul{.a = softmax.exponentials,
                        .b = weight,
                        .c = totals_,
                        .accumulate = first ? Accumulate::kNo : Accumulate::kYes});
    }
  }

  // Log-probabilities, and the gradient, when all tiles are done.
  void finish(std::int64_t begin, std::span<const Aim> aims, std::vector<float>& result) {
    std::vector<float> factors(most_.size(), 0.0F), weights;
    std::vector<std::int32_t> rows, targets;
    for (std::size_t i = 0; i < aims.size();) {
      std::size_t next = i;
      const auto row = static_cast<std::size_t>(aims[i].row - begin);
      double most = static_cast<double>(most_[row]);
      double weight = 0;
      for (; next < aims.size() && aims[next].row == aims[i].row; ++next) {
        most = std::max(most, static_cast<double>(aims[next].logit));
        weight += static_cast<double>(aims[next].weight);
      }
      const double others = sum_[row] > 0 ? sum_[row] * std::exp(static_cast<double>(most_[row]) - most) : sum_[row];
      double sum = others;
      for (std::size_t k = i; k < next; ++k) sum += std::exp(static_cast<double>(aims[k].logit) - most);
      const double log_sum = most + std::log(sum);
      if (sum_[row] > 0)
        factors[row] = static_cast<float>(weight * std::exp(static_cast<double>(most_[row]) - log_sum));
      for (; i < next; ++i) {
        const double log_probability = static_cast<double>(aims[i].logit) - log_sum;
        result.push_back(static_cast<float>(log_probability));
        rows.push_back(static_cast<std::int32_t>(row));
        targets.push_back(aims[i].target);
        const double share = soft_cap_ > 0 ? static_cast<double>(aims[i].logit) / static_cast<double>(soft_cap_) : 0;
        weights.push_back(static_cast<float>(
            (1 - share * share) * (weight * std::exp(log_probability) - static_cast<double>(aims[i].weight))));
      }
    }
    if (!dx_.defined()) return;
    Tensor of_targets =
        Tensor::empty({static_cast<std::int64_t>(targets.size()), x_.dim(1)}, DType::kF32, context_.allocator());
    INSTRUCT_KERNEL(gather_rows)(context_, weight_, targets, of_targets);
    Tensor dx = dx_.rows(begin, begin + totals_.dim(0));
    INSTRUCT_KERNEL(combine_rows)(context_, totals_, factors, of_targets, rows, weights, dx);
  }

  const Context& context_;
  const Tensor& x_;
  const Tensor& weight_;
  Tensor bias_;  // undefined: none
  std::int64_t vocabulary_;
  const IntegerForms* integer_;  // null: the weight itself
  float soft_cap_;
  std::int64_t columns_;
  Tensor dx_;  // undefined: no gradient is wanted
  std::vector<float> most_;
  std::vector<double> sum_;
  Tensor scores_, exponentials_, totals_;
};

// The same where weight or bias get a gradient too, which needs the probabilities: whole rows of logits, in chunks. x
// [M, D] has a row a target.
std::vector<float> with_weight_gradient(const Context& context, const Tensor& x, const Variable& weight,
                                        std::span<const std::int32_t> targets, std::span<const float> row_weights,
                                        std::int64_t vocabulary, const LogitOptions& options, Tensor& dx) {
  const float soft_cap = options.soft_cap;
  const Variable& bias = options.bias;
  const Tensor& w = weight.value();
  std::vector<float> log_probabilities(targets.size());
  const std::int64_t fit = fitting_rows(kLogitBytes, w.dim(0));
  for (std::int64_t begin = 0; begin < x.dim(0); begin += fit) {
    const std::int64_t end = std::min(begin + fit, x.dim(0));
    const auto first = static_cast<std::size_t>(begin);
    const auto count = static_cast<std::size_t>(end - begin);
    const Tensor chunk = x.rows(begin, end);
    const Tensor cast = weight_rows(context, w, 0, w.dim(0), x.dtype());
    Tensor scores = Tensor::empty({end - begin, w.dim(0)}, DType::kF32, context.allocator());
    INSTRUCT_KERNEL(matmul)(context, Matmul{.a = chunk, .b = cast, .c = scores, .transpose_b = Transpose::kYes});
    finish_logits(context, options, scores);
    const bool in_place = x.dtype() == DType::kF32 && soft_cap == 0;
    Tensor dscores = in_place ? scores : Tensor::empty(scores.shape(), x.dtype(), context.allocator());
    INSTRUCT_KERNEL(cross_entropy)
    (context, scores, vocabulary, targets.subspan(first, count), row_weights.subspan(first, count),
     std::span(log_probabilities).subspan(first, count), &dscores);
    if (soft_cap > 0) INSTRUCT_KERNEL(soft_cap_backward)(context, soft_cap, scores, dscores);
    if (dx.defined()) INSTRUCT_KERNEL(matmul)(context, Matmul{.a = dscores, .b = cast, .c = dx.rows(begin, end)});
    if (bias.requires_gradient()) {
      GradientTarget target = gradient_target(context, bias);
      if (target.fresh) target.gradient.fill_zero();
      INSTRUCT_KERNEL(add_column_sums)(context, dscores, target.gradient);
    }
    if (!weight.requires_gradient()) continue;
    GradientTarget target = gradient_target(context, weight);
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = dscores,
                     .b = chunk,
                     .c = target.gradient,
                     .transpose_a = Transpose::kYes,
                     .accumulate = target.fresh ? Accumulate::kNo : Accumulate::kYes});
  }
  return log_probabilities;
}

void check(const Predictions& predictions, std::int64_t rows, std::int64_t vocabulary) {
  INSTRUCT_CHECK(predictions.weights.size() == predictions.targets.size());
  INSTRUCT_CHECK(predictions.rows.empty() ? static_cast<std::int64_t>(predictions.targets.size()) == rows
                                          : predictions.rows.size() == predictions.targets.size());
  for (const std::int32_t row : predictions.rows) INSTRUCT_CHECK(row >= 0 && row < rows);
  for (const std::int32_t target : predictions.targets) {
    if (target < 0 || target >= vocabulary) {
      raise(ErrorCategory::kInvalidArgument, "cross-entropy: target {} is outside the vocabulary of {}", target,
            vocabulary);
    }
  }
}

}  // namespace

Tensor logits(const Context& context, const Tensor& x, const Tensor& weight, const IntegerForms& integer,
              const LogitOptions& options) {
  require_shape(x.dim(1) == weight.dim(1), "logits", x, weight);
  Tensor result = Tensor::empty({x.dim(0), weight.dim(0)}, DType::kF32, context.allocator());
  if (integer.forward != nullptr) {
    integer_product(context, x, *integer.forward, integer.bits, result);
    finish_logits(context, options, result);
    return result;
  }
  // A weight that is converted is converted tile by tile.
  const std::int64_t step = weight.dtype() == x.dtype() ? weight.dim(0) : kTileColumns;
  for (std::int64_t row = 0; row < weight.dim(0); row += step) {
    const std::int64_t end = std::min(row + step, weight.dim(0));
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = x,
                     .b = weight_rows(context, weight, row, end, x.dtype()),
                     .c = result.columns(row, end),
                     .transpose_b = Transpose::kYes});
  }
  finish_logits(context, options, result);
  return result;
}

std::int32_t most_likely(std::span<const float> logits) {
  auto found = std::find(logits.begin(), logits.end(), kernels::cpu::maximum(logits));
  if (found == logits.end()) found = std::max_element(logits.begin(), logits.end());  // NaN among them
  return static_cast<std::int32_t>(found - logits.begin());
}

double log_probability(std::span<const float> logits, std::int32_t token) {
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - kernels::cpu::log_sum_exp(logits);
}

std::vector<float> linear_cross_entropy(const Context& context, const Variable& x, const Variable& weight,
                                        const Predictions& predictions, std::int64_t vocabulary,
                                        const IntegerForms& integer, const LogitOptions& options) {
  const Tensor& w = weight.value();
  require_shape(x.value().dim(1) == w.dim(1) && vocabulary <= w.dim(0), "linear_cross_entropy", x.value(), w);
  const Variable& bias = options.bias;
  if (bias.defined()) require_shape(bias.value().dim(0) == w.dim(0), "linear_cross_entropy", bias.value(), w);
  check(predictions, x.value().dim(0), vocabulary);
  if (context.tape != nullptr && (weight.requires_gradient() || bias.requires_gradient())) {
    // A row of x for each prediction; the gradients of repeated ones add up as select_rows has it.
    const Variable rows = predictions.rows.empty() ? x : select_rows(context, x, predictions.rows);
    Tensor dx;
    if (rows.requires_gradient()) dx = Tensor::empty(rows.value().shape(), rows.value().dtype(), context.allocator());
    std::vector<float> result = with_weight_gradient(context, rows.value(), weight, predictions.targets,
                                                     predictions.weights, vocabulary, options, dx);
    if (dx.defined()) context.tape->record([rows, dx] { rows.mutable_gradient() = dx; });
    return result;
  }
  Tensor dx;
  if (context.records({&x})) dx = Tensor::empty(x.value().shape(), x.value().dtype(), context.allocator());
  Aims aims(predictions);
  const std::vector<float> of_aims =
      Tiled(context, x.value(), w, vocabulary, integer.serve(context) ? &integer : nullptr, options, dx).run(aims.all);
  std::vector<float> result;
  for (const std::size_t place : aims.place) result.push_back(of_aims[place]);
  // The gradient is ready; the step only hands it over, in its turn.
  if (dx.defined()) context.tape->record([x, dx] { x.mutable_gradient() = dx; });
  return result;
}

}  // namespace instruct::ops
