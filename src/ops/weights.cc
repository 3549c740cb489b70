#include "ops/weights.h"

#include "kernels/kernels.h"

namespace instruct::ops {

tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator) {
  ThreadPool threads(1);
  kernels::Stream stream{threads, allocator, nullptr};
  tensor::Tensor copy = tensor::Tensor::empty(source.shape(), dtype, allocator);
  const std::int64_t columns = source.dim(-1);
  tensor::Tensor matrix = copy.reshape({copy.elements() / columns, columns});
  const tensor::Tensor rows = source.rank() == 2 ? source : source.reshape({source.elements() / columns, columns});
  kernels::cpu::dequantise_rows(stream, rows, 0, matrix);
  return copy;
}

}  // namespace instruct::ops
