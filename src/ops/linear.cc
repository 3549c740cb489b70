#include "ops/linear.h"

#include <optional>

#include "ops/dispatch.h"

namespace instruct::ops {
namespace {

using kernels::Accumulate;
using kernels::Matmul;
using kernels::Transpose;

// Rows of a quantised weight converted at a time: 1024 rows of 4096 columns are 8 MB in bf16, within the last cache.
constexpr std::int64_t kTileRows = 1024;

// A second product of low rank to add, or none.
struct Low {
  Tensor left;   // [T, R]
  Tensor right;  // [R, N], or [N, R] when transposed
};

// y = x W^T + z B^T, converting a quantised W by tiles of rows. low.right is B [N, R].
void multiply_transposed(const Context& context, const Tensor& x, const Tensor& weight, const Low& low, Tensor& y) {
  if (weight.dtype() == x.dtype()) {
    INSTRUCT_KERNEL(matmul)
    (context,
     Matmul{.a = x, .b = weight, .c = y, .low_a = low.left, .low_b = low.right, .transpose_b = Transpose::kYes});
    return;
  }
  for (std::int64_t row = 0; row < weight.dim(0); row += kTileRows) {
    const std::int64_t end = std::min(row + kTileRows, weight.dim(0));
    Tensor tile = Tensor::empty({end - row, weight.dim(1)}, x.dtype(), context.allocator());
    INSTRUCT_KERNEL(dequantise_rows)(context, weight, row, tile);
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = x,
                     .b = tile,
                     .c = y.columns(row, end),
                     .low_a = low.left,
                     .low_b = low.right.defined() ? low.right.rows(row, end) : Tensor(),
                     .transpose_b = Transpose::kYes});
  }
}

// dx (+)= dy W + dz A. low.right is A [R, K].
void multiply(const Context& context, const Tensor& dy, const Tensor& weight, const Low& low, Accumulate accumulate,
              Tensor& dx) {
  if (weight.dtype() == dy.dtype()) {
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = dy, .b = weight, .c = dx, .low_a = low.left, .low_b = low.right, .accumulate = accumulate});
    return;
  }
  for (std::int64_t row = 0; row < weight.dim(0); row += kTileRows) {
    const std::int64_t end = std::min(row + kTileRows, weight.dim(0));
    Tensor tile = Tensor::empty({end - row, weight.dim(1)}, dy.dtype(), context.allocator());
    INSTRUCT_KERNEL(dequantise_rows)(context, weight, row, tile);
    INSTRUCT_KERNEL(matmul)
    (context, Matmul{.a = dy.columns(row, end),
                     .b = tile,
                     .c = dx,
                     .low_a = row == 0 ? low.left : Tensor(),
                     .low_b = row == 0 ? low.right : Tensor(),
                     .accumulate = row > 0 ? Accumulate::kYes : accumulate});
  }
}

// gradient of a parameter [N, K] += left [T, N]^T right [T, K].
void add_outer(const Context& context, const Variable& parameter, const Tensor& left, const Tensor& right) {
  if (!parameter.requires_gradient()) return;
  GradientTarget target = gradient_target(context, parameter);
  INSTRUCT_KERNEL(matmul)
  (context, Matmul{.a = left,
                   .b = right,
                   .c = target.gradient,
                   .transpose_a = Transpose::kYes,
                   .accumulate = target.fresh ? Accumulate::kNo : Accumulate::kYes});
}

void add_bias_gradient(const Context& context, const Variable& bias, const Tensor& dy) {
  if (!bias.requires_gradient()) return;
  GradientTarget target = gradient_target(context, bias);
  if (target.fresh) target.gradient.fill_zero();
  INSTRUCT_KERNEL(add_column_sums)(context, dy, target.gradient);
}

// Input of the branch: x, or x with dropout. Recomputed in the backward pass from the random stream.
Tensor branch_input(const Context& context, const LowRank& branch, const Tensor& x, bool training) {
  if (!training || branch.dropout <= 0.0F) return x;
  Tensor dropped = Tensor::empty(x.shape(), x.dtype(), context.allocator());
  INSTRUCT_KERNEL(dropout)(context, x, branch.random, branch.dropout, dropped);
  return dropped;
}

// Gradients of A and B; returns dz. z = scale * dropout(x) A^T was kept: dB = dy^T z; dz = scale * dy B;
// dA = dz^T dropout(x).
Tensor branch_backward(const Context& context, const LowRank& branch, const Variable& x, const Tensor& z,
                       const Tensor& dy) {
  add_outer(context, branch.b, dy, z);
  Tensor dz = Tensor::empty(z.shape(), z.dtype(), context.allocator());
  INSTRUCT_KERNEL(matmul)(context, Matmul{.a = dy, .b = branch.b.value(), .c = dz, .alpha = branch.scale});
  add_outer(context, branch.a, dz, branch_input(context, branch, x.value(), true));
  return dz;
}

// dx += mask(dz A): what passes through the dropout before the branch.
void add_dropped(const Context& context, const LowRank& branch, const Tensor& dz, Tensor& dx) {
  Tensor part = Tensor::empty(dx.shape(), dx.dtype(), context.allocator());
  INSTRUCT_KERNEL(matmul)(context, Matmul{.a = dz, .b = branch.a.value(), .c = part});
  INSTRUCT_KERNEL(dropout)(context, part, branch.random, branch.dropout, part);
  INSTRUCT_KERNEL(add_into)(context, part, dx);
}

// dx (+)= dy W, and the branch's part when there is one; on integers where W has a packed transpose.
void input_gradient(const Context& context, const Variable& x, const Variable& weight,
                    const kernels::IntegerWeight* transposed, const Tensor& dy, const LowRank* branch,
                    const Tensor& dz) {
  if (!x.requires_gradient()) return;
  GradientTarget target = gradient_target(context, x);
  const Accumulate accumulate = target.fresh ? Accumulate::kNo : Accumulate::kYes;
  const bool dropped = branch != nullptr && branch->dropout > 0.0F;
  Low low;
  if (branch != nullptr && !dropped) low = {dz, branch->a.value()};
  if (transposed != nullptr) {
    const kernels::IntegerMatmul product{.weight = transposed,
                                         .result = target.gradient,
                                         .low_a = low.left,
                                         .low_b = low.right,
                                         .transpose_low_b = Transpose::kNo,
                                         .accumulate = accumulate};
    INSTRUCT_KERNEL(integer_matmul)(context, dy, kernels::ActivationBits::k8, std::span(&product, 1));
  } else {
    multiply(context, dy, weight.value(), low, accumulate, target.gradient);
  }
  if (dropped) add_dropped(context, *branch, dz, target.gradient);
}

// Records the backward pass of y = x W^T + bias + branch. Keeps x (for the gradients of the weight and of A) and the
// branch's z, which is narrow. A weight on integers is frozen: `weight` is undefined then.
void record_backward(const Context& context, const Variable& x, const Variable& weight,
                     const std::shared_ptr<const kernels::IntegerWeight>& transposed, const Variable& bias,
                     const LowRank* branch, const Tensor& z, const Variable& y) {
  std::optional<LowRank> kept;
  if (branch != nullptr) kept = *branch;
  context.tape->record([context, x, weight, transposed, bias, y, z, kept] {
    const Tensor& dy = y.gradient();
    if (!dy.defined()) return;
    if (weight.requires_gradient()) add_outer(context, weight, dy, x.value());
    if (bias.defined()) add_bias_gradient(context, bias, dy);
    const Tensor dz = kept ? branch_backward(context, *kept, x, z, dy) : Tensor();
    input_gradient(context, x, weight, transposed.get(), dy, kept ? &*kept : nullptr, dz);
    y.mutable_gradient() = Tensor();
  });
}

// z = scale * x A^T of the part that each row chose, 0 in the columns of the others.
Tensor chosen_forward(const Context& context, const LowRank& branch, const Tensor& x,
                      std::span<const std::int32_t> chosen) {
  Tensor z = Tensor::empty({x.dim(0), branch.b.value().dim(1)}, x.dtype(), context.allocator());
  std::vector<std::int64_t> ends;
  for (const LowRank::Part& part : branch.parts) {
    const std::int64_t begin = ends.empty() ? 0 : ends.back();
    ends.push_back(begin + part.a.dim(0));
    if (ends.back() == begin) continue;
    INSTRUCT_KERNEL(matmul)
    (context,
     Matmul{
         .a = x, .b = part.a, .c = z.columns(begin, ends.back()), .transpose_b = Transpose::kYes, .alpha = part.scale});
  }
  INSTRUCT_KERNEL(keep_chosen)(context, chosen, ends, z);
  return z;
}

// z = scale * dropout(x) A^T.
Tensor branch_forward(const Context& context, const LowRank& branch, const Tensor& x, bool training,
                      std::span<const std::int32_t> chosen) {
  if (!branch.parts.empty()) return chosen_forward(context, branch, x, chosen);
  Tensor z = Tensor::empty({x.dim(0), branch.a.value().dim(0)}, x.dtype(), context.allocator());
  INSTRUCT_KERNEL(matmul)
  (context, Matmul{.a = branch_input(context, branch, x, training),
                   .b = branch.a.value(),
                   .c = z,
                   .transpose_b = Transpose::kYes,
                   .alpha = branch.scale});
  return z;
}

void check_branch(const Context& context, const LowRank& branch, std::int64_t outputs, const Tensor& x,
                  std::span<const std::int32_t> chosen) {
  const std::int64_t inputs = x.dim(1);
  const Tensor& b = branch.b.value();
  if (!branch.parts.empty()) {
    std::int64_t rank = 0;
    for (const LowRank::Part& part : branch.parts) {
      require_shape(part.a.dim(1) == inputs, "linear (low-rank branch)", part.a, x);
      rank += part.a.dim(0);
    }
    require_shape(b.dim(0) == outputs && b.dim(1) == rank, "linear (low-rank branches)", b, x);
    INSTRUCT_CHECK(context.tape == nullptr && static_cast<std::int64_t>(chosen.size()) == x.dim(0));
    return;
  }
  const Tensor& a = branch.a.value();
  require_shape(a.dim(1) == inputs && b.dim(0) == outputs && a.dim(0) == b.dim(1), "linear (low-rank branch)", a, b);
}

}  // namespace

Variable linear(const Context& context, const Variable& x, const Variable& weight, const Variable& bias,
                const LowRank* branch, std::span<const std::int32_t> chosen) {
  const Tensor& w = weight.value();
  require_shape(x.value().rank() == 2 && w.rank() == 2 && x.value().dim(1) == w.dim(1), "linear", x.value(), w);
  const bool records = context.records(
      {&x, &weight, &bias, branch != nullptr ? &branch->a : nullptr, branch != nullptr ? &branch->b : nullptr});
  Variable y(Tensor::empty({x.value().dim(0), w.dim(0)}, x.value().dtype(), context.allocator()), records);
  Low low;
  if (branch != nullptr) {
    check_branch(context, *branch, w.dim(0), x.value(), chosen);
    low = {branch_forward(context, *branch, x.value(), records, chosen), branch->b.value()};
  }
  multiply_transposed(context, x.value(), w, low, y.mutable_value());
  if (bias.defined()) INSTRUCT_KERNEL(add_bias)(context, bias.value(), y.mutable_value());
  if (records) record_backward(context, x, weight, nullptr, bias, branch, low.left, y);
  return y;
}

std::vector<Variable> integer_linears(const Context& context, const Variable& x, std::span<const IntegerLayer> layers,
                                      std::span<const std::int32_t> chosen) {
  const Tensor& input = x.value();
  std::vector<kernels::IntegerMatmul> products;
  std::vector<Variable> outputs;
  for (const IntegerLayer& layer : layers) {
    const kernels::IntegerWeight& weight = *layer.weight.forward;
    if (input.rank() != 2 || input.dim(1) != weight.inputs) {
      raise(ErrorCategory::kInvalidArgument, "linear: an input of {} does not fit a weight of [{}, {}]",
            input.shape().text(), weight.outputs, weight.inputs);
    }
    const LowRank* branch = layer.branch;
    if (branch != nullptr) check_branch(context, *branch, weight.outputs, input, chosen);
    const bool records = context.records(
        {&x, &layer.bias, branch != nullptr ? &branch->a : nullptr, branch != nullptr ? &branch->b : nullptr});
    outputs.emplace_back(Tensor::empty({input.dim(0), weight.outputs}, input.dtype(), context.allocator()), records);
    kernels::IntegerMatmul product{.weight = &weight, .result = outputs.back().value()};
    if (branch != nullptr) {
      product.low_a = branch_forward(context, *branch, input, records, chosen);
      product.low_b = branch->b.value();
    }
    products.push_back(product);
  }
  INSTRUCT_KERNEL(integer_matmul)(context, input, layers.front().weight.bits, products);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const IntegerLayer& layer = layers[i];
    const Variable& y = outputs[i];
    if (layer.bias.defined()) INSTRUCT_KERNEL(add_bias)(context, layer.bias.value(), outputs[i].mutable_value());
    if (y.requires_gradient()) {
      record_backward(context, x, Variable(), layer.weight.transposed, layer.bias, layer.branch, products[i].low_a, y);
    }
  }
  return outputs;
}

}  // namespace instruct::ops
