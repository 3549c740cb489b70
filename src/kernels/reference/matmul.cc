// Matrix product, plain: one dot product per output element, summed in double and rounded once.
#include "kernels/kernels.h"
#include "kernels/reference/loops.h"

namespace instruct::kernels::reference {

void matmul(Stream& /*stream*/, const Matmul& product) {
  Tensor c = product.c;
  const std::int64_t rows = c.dim(0);                                                                       // M
  const std::int64_t columns = c.dim(1);                                                                    // N
  const std::int64_t depth = product.transpose_a == Transpose::kYes ? product.a.dim(0) : product.a.dim(1);  // K
  const std::vector<float> a = read_matrix(product.a, product.transpose_a == Transpose::kYes);              // [M, K]
  const std::vector<float> b = read_matrix(product.b, product.transpose_b == Transpose::kNo);               // [N, K]
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const float* left = a.data() + i * depth;
      const float* right = b.data() + j * depth;
      double sum = 0;
      for (std::int64_t k = 0; k < depth; ++k) sum += static_cast<double>(left[k]) * static_cast<double>(right[k]);
      sum *= static_cast<double>(product.alpha);
      if (product.accumulate == Accumulate::kYes) sum += static_cast<double>(read(c, i, j));
      write(c, i, j, static_cast<float>(sum));
    }
  }
}

}  // namespace instruct::kernels::reference
