// Matrix product, plain: one dot product per output element, summed in double and rounded once.
#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

namespace {

// The second product of low rank, added to sums [M, N].
void add_low(const Matmul& product, std::vector<double>& sums) {
  if (!product.low_a.defined()) return;
  const std::int64_t rank = product.low_a.dim(1);
  const std::vector<float> a = read_matrix(product.low_a, false);                                  // [M, R]
  const std::vector<float> b = read_matrix(product.low_b, product.transpose_b == Transpose::kNo);  // [N, R]
  const std::int64_t columns = product.c.dim(1);
  for (std::int64_t i = 0; i < product.c.dim(0); ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      double& sum = sums[static_cast<std::size_t>(i * columns + j)];
      for (std::int64_t r = 0; r < rank; ++r) {
        sum += static_cast<double>(a[static_cast<std::size_t>(i * rank + r)]) *
               static_cast<double>(b[static_cast<std::size_t>(j * rank + r)]);
      }
    }
  }
}

}  // namespace

void matmul(Stream& /*stream*/, const Matmul& product) {
  Tensor c = product.c;
  const std::int64_t rows = c.dim(0);                                                                       // M
  const std::int64_t columns = c.dim(1);                                                                    // N
  const std::int64_t depth = product.transpose_a == Transpose::kYes ? product.a.dim(0) : product.a.dim(1);  // K
  const std::vector<float> a = read_matrix(product.a, product.transpose_a == Transpose::kYes);              // [M, K]
  const std::vector<float> b = read_matrix(product.b, product.transpose_b == Transpose::kNo);               // [N, K]
  std::vector<double> sums(static_cast<std::size_t>(rows * columns));
  add_low(product, sums);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const float* left = a.data() + i * depth;
      const float* right = b.data() + j * depth;
      double sum = sums[static_cast<std::size_t>(i * columns + j)];
      for (std::int64_t k = 0; k < depth; ++k) sum += static_cast<double>(left[k]) * static_cast<double>(right[k]);
      sum *= static_cast<double>(product.alpha);
      if (product.accumulate == Accumulate::kYes) sum += static_cast<double>(read(c, i, j));
      write(c, i, j, static_cast<float>(sum));
    }
  }
}

}  // namespace instruct::kernels::reference
