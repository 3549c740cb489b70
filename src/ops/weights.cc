#include "ops/weights.h"

#include "kernels/kernels.h"

namespace instruct::ops {

tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator,
                              ThreadPool& threads) {
  kernels::Stream stream{threads, allocator, nullptr};
  tensor::Tensor copy = tensor::Tensor::empty(source.shape(), dtype, allocator);
  const std::int64_t columns = source.dim(-1);
  tensor::Tensor matrix = copy.reshape({copy.elements() / columns, columns});
  const tensor::Tensor rows = source.rank() == 2 ? source : source.reshape({source.elements() / columns, columns});
  kernels::cpu::dequantise_rows(stream, rows, 0, matrix);
  return copy;
}

tensor::Tensor converted_copy(const tensor::Tensor& source, tensor::DType dtype, tensor::Allocator& allocator) {
  ThreadPool threads(1);
  return converted_copy(source, dtype, allocator, threads);
}

bool has_integer_products() {
  return kernels::cpu::has_integer_products(kernels::detect_cpu_features());
}

std::shared_ptr<const kernels::IntegerWeight> packed_for_integers(const tensor::Tensor& source,
                                                                  tensor::Allocator& allocator, ThreadPool& threads) {
  kernels::Stream stream{threads, allocator, nullptr};
  return std::make_shared<kernels::IntegerWeight>(kernels::cpu::pack_integer_weight(stream, source));
}

}  // namespace instruct::ops
