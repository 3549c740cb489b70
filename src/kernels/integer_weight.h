// What integer_matmul multiplies with. Apart from kernels.h, so that headers of other layers need not include all kernels.
#pragma once

#include "tensor/tensor.h"

namespace instruct::kernels {

// A block-quantised weight [N, K] and what one backend made of it.
struct IntegerWeight {
  tensor::Tensor stored;
  tensor::Tensor packed;
};

}  // namespace instruct::kernels
