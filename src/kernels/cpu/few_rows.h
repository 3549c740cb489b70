// bf16 products of few rows with a matrix that is stored by outputs, as weights are. Internal to kernels/cpu.
//
// Such a product waits for the matrix: tiles would first pack it (reading, writing and reading it again), and oneDNN
// 2.6 takes two to three times as long as reading does. Here each output is a dot product along k of two rows as they
// are stored. It does not depend on the rows beside it: one row and many give the same bits.
#pragma once

#include "kernels/cpu/tiles.h"
#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

// Whether a product has so few rows and is laid out so that this is the faster way than `unit`.
bool suits_few_rows(const Matmul& product, tiles::Unit unit);
// The same as matmul() for products that suit; AVX-512 bf16.
void few_rows_matmul(Stream& stream, const Matmul& product);

}  // namespace instruct::kernels::cpu
