// Matrix products of the kernel interface by tiles (tiles.h). Internal to kernels/cpu.
#pragma once

#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

// Whether tiles are worth it: bf16 operands and enough rows to make up for packing the right side.
bool suits_tiles(const Matmul& product);
// The same as matmul() for products that suit tiles.
void tile_matmul(Stream& stream, const Matmul& product);

}  // namespace instruct::kernels::cpu
